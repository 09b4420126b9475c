from __future__ import annotations

from pathlib import Path

import pytest

from lis2_lightning.config import load_config, merge
from lis2_lightning.errors import ConfigError


def test_numbers_like_1e_3_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("optimizer: {type: Adam, lr: 1e-3}\n")

    assert load_config(path) == {"optimizer": {"type": "Adam", "lr": 0.001}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1, 2\nb: 3\n", "not valid YAML: .* in line 2, column 2"),
        (b"- 1\n- 2\n", "must hold keys and values at the top level, got a list"),
        (b"", "must hold keys and values at the top level, got nothing"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_a_broken_file_is_reported_in_one_sentence(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no configuration file .*nowhere.yaml"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("inside", [{"lr": 0.2}, {"init_args": {"lr": 0.2}}])
def test_a_mapping_reaches_the_arguments_of_a_component_in_either_spelling(
    inside: dict[str, object],
) -> None:
    written = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1, "eps": 1e-9}}

    merged = merge({"optimizer": written}, {"optimizer": inside})

    arguments = {"lr": 0.2, "eps": 1e-9}
    assert merged == {"optimizer": {"class_path": "torch.optim.Adam", "init_args": arguments}}
