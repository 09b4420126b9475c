"""The help of the commands: our keys on one or two screens, from the signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import lightning.pytorch as pl
import pytest

from lis2_lightning import Trainer
from lis2_lightning.cli import manual
from lis2_lightning.cli.dispatch import TRAINER_COMMANDS
from lis2_lightning.config.names import TABLES
from lis2_lightning.errors import ConfigError

Asked = Callable[..., str]


@pytest.fixture
def asked(typed: Callable[..., tuple[int, str, str]], capsys: pytest.CaptureFixture[str]) -> Asked:
    """Ask for help; give what is printed."""

    def ask(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            typed(*words)
        assert not stop.value.code
        return capsys.readouterr().out

    return ask


@pytest.mark.parametrize("command", TRAINER_COMMANDS)
def test_help_is_two_screens_at_most_with_our_keys_in_the_order_of_the_signature(
    asked: Asked, command: str
) -> None:
    lines = asked(command, "--help").splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 80
    flags = [line.split()[0] for line in lines if line.startswith("  --")]
    keys = [f"--{key}" for key in inspect.signature(Trainer).parameters]
    assert [flag for flag in flags if flag in keys] == keys
    assert not any("torch.nn." in line for line in lines)


def test_help_has_a_name_of_every_class_of_the_tables(asked: Asked) -> None:
    words = asked("fit", "--help").replace(",", " ").split()
    for table in TABLES.values():
        for path in table.values():
            assert any(name in words for name in table if table[name] == path), path


def test_the_source_is_read_as_python_reads_it() -> None:
    for owner, keys in ((Trainer, manual.keys()), (pl.Trainer, manual.lightning_keys())):
        parameters = inspect.signature(owner).parameters
        assert list(keys) == list(parameters)
        for name, key in keys.items():
            default = parameters[name].default
            is_plain = default is None or type(default) in {bool, int, float, str}
            assert (key.default is not None) == is_plain, name
            if is_plain:
                shown = "null" if default is None else str(default)
                assert key.default == (shown.lower() if default is True or not default else shown)
    assert all(key.meaning for key in manual.keys().values())


def test_values_are_shown_as_they_are_typed() -> None:
    shown = {key: item.value for key, item in manual.keys().items()}
    assert shown["mode"] == "min|max"
    assert shown["num_workers"] == "INT|auto"
    assert shown["compile"] == "true|false"
    assert shown["save_every_minutes"] == "FLOAT"


def test_a_key_has_help_of_its_own(asked: Asked) -> None:
    assert asked("fit", "--help", "epochs") == "epochs: How many epochs to train. (default: 100)\n"
    assert "AdamW " in asked("fit", "--help=optimizer")
    assert asked("fit", "--model.help") == asked("fit", "-h", "model")
    assert "TileDataset" in asked("fit", "--help", "data")
    assert asked("fit", "--help", "--config", "gone.yaml") == asked("fit", "-h")


def test_help_of_lightning_has_each_of_its_arguments(asked: Asked) -> None:
    output = asked("test", "--help", "lightning")
    for name in inspect.signature(pl.Trainer).parameters:
        assert f"--lightning.{name}" in output
    assert "--logging_interval" in asked(
        "fit", "--lightning.callbacks.help", "LearningRateMonitor"
    ).replace("--lightning.callbacks.", "--")


def test_help_of_what_is_no_key_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="no help of 'epochz': did you mean 'epochs'"):
        manual.key_help("epochz")
    with pytest.raises(ConfigError, match="no help of 'xyz': --help alone lists the keys"):
        manual.key_help("xyz")
