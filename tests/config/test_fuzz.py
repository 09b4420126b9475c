"""Any configuration is built or refused with one sentence; nothing is left behind."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lis2_lightning import Trainer
from lis2_lightning.__main__ import main
from lis2_lightning.config import Schema, load_config
from lis2_lightning.config.names import TABLES
from lis2_lightning.errors import ConfigError, Lis2Error

Make = Callable[..., dict[str, Any]]
SCHEMA = Schema(Trainer)
FIELD = {"type": "SyntheticDataset", "height": 64, "width": 64, "size": 16, "num_folds": 2}
VALID: dict[str, Any] = {
    "run_name": "fuzz",
    "seed": 1,
    "model": {"type": "unet", "features": 2, "num_blocks": 1},
    "train_dataset": {**FIELD, "folds": [0], "data_augmentations": [{"type": "ToTensor"}]},
    "val_dataset": {**FIELD, "folds": [1]},
    "optimizer": {"type": "Adam", "lr": 0.01},
    "scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 2}},
    "metrics": ["dice", {"type": "iou", "threshold": 0.4}],
    "epochs": 2,
    "lightning": {"accelerator": "cpu", "callbacks": [{"class_path": "LearningRateMonitor"}]},
}
NAMES = sorted(
    {name for table in TABLES.values() for name in table if name not in {"Wandb", "Mlflow"}}
)
# no size between: a network or an image of such a size would fill the memory of the machine
NUMBERS = st.sampled_from([-3, -1, 0, 1, 2, 3, 5, 2**70, -(2**70), 0.0, 0.5, -0.5, 1e308])
WORDS = st.one_of(
    st.sampled_from(
        [*NAMES, *SCHEMA.keys, "auto", "torch.nn.Conv2d", "torch", ".", "a.b", "x.yaml"]
    ),
    st.text(max_size=6),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.floats(allow_nan=True, width=16),
    WORDS,
    st.binary(max_size=3),
)
KEYS = st.one_of(st.sampled_from([*SCHEMA.keys, "type", "class_path", "init_args", "name"]), WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a configuration."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A valid configuration in which one to three places were set, left out or renamed."""
    config = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from([place for place in places(config) if place]))
        inner: Any = config
        for key in place[:-1]:
            inner = inner[key]
        act = draw(st.sampled_from(["set", "set", "drop", "rename"]))
        if act == "set":
            inner[place[-1]] = draw(VALUES)
        elif act == "rename" and isinstance(inner, dict):
            inner[draw(KEYS)] = inner.pop(place[-1])
        else:
            del inner[place[-1]]
    return config


@pytest.fixture
def answer(
    tmp_path_factory: pytest.TempPathFactory,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], None]:
    """Plan a configuration's run: it is built or refused as promised, and no file is left."""
    folder = tmp_path_factory.mktemp("fuzz")
    monkeypatch.setattr(sys, "argv", ["lis2"])
    monkeypatch.chdir(folder)

    def check(text: str) -> None:
        path = folder / "config.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        capfd.readouterr()
        code = main(["plan", "--config", str(path)])
        captured = capfd.readouterr()
        assert code in {0, 2}, captured.err
        refusals = [line for line in captured.err.splitlines() if line.startswith("lis2: ")]
        assert len(refusals) == (code == 2), captured.err
        assert "Traceback" not in captured.err
        assert [entry.name for entry in folder.iterdir()] == ["config.yaml"]

    return check


@pytest.fixture
def built(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """The same in Python, which is quicker: the command line prints what is raised here."""
    folder = tmp_path_factory.mktemp("fuzz")
    monkeypatch.chdir(folder)

    def check(text: str) -> None:
        path = folder / "config.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with contextlib.suppress(Lis2Error):
            assert Trainer.from_config(path).lightning
        assert [entry.name for entry in folder.iterdir()] == ["config.yaml"]

    return check


Answer = Callable[[str], None]
MANY = int(os.environ.get("LIS2_EXAMPLES", "120"))  # `make soak` asks for more
LENIENT: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=12, **LENIENT)
@given(config=mutated())
def test_a_mutated_configuration_is_built_or_refused(answer: Answer, config: Any) -> None:
    answer(yaml.safe_dump(config))


@settings(max_examples=38, **LENIENT)
@given(value=VALUES)
def test_any_yaml_is_refused(answer: Answer, value: Any) -> None:
    answer(yaml.safe_dump(value))


@pytest.mark.slow
@settings(max_examples=MANY, **LENIENT)
@given(config=mutated())
def test_many_mutated_configurations_are_built_or_refused(built: Answer, config: Any) -> None:
    built(yaml.safe_dump(config))


@pytest.mark.slow
@settings(max_examples=2 * MANY, **LENIENT)
@given(value=VALUES)
def test_much_yaml_is_refused(built: Answer, value: Any) -> None:
    built(yaml.safe_dump(value))


@settings(max_examples=200, **LENIENT)
@given(text=st.text(st.sampled_from("ab: -[]{}&*!#|>?\n\t'\"%@0é\x00"), max_size=40))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        assert isinstance(load_config(path), dict)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right
