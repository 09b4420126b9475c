"""Broken configurations: each is refused with a sentence that names its key in full."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lis2_lightning.__main__ import main

Make = Callable[..., dict[str, Any]]
# what jsonargparse says to programmers, and no user should read
JARGON = re.compile(r"Namespace|Subtypes|NoneType|<class|\bParser key\b|Union|Traceback")
MODULES = {
    "raises": "raise KeyError('what a mess')\n",
    "broken": "def oops(:\n",
    "imports": "import there_is_no_such_package\n",
    "needs": "from torch import nn\n\n\nclass Net(nn.Module):\n"
    "    def __init__(self, width: int) -> None:\n        super().__init__()\n\n\n"
    "class Bad(nn.Module):\n    def __init__(self, width: int = 1) -> None:\n"
    "        super().__init__()\n        raise LookupError('no table')\n",
}


@pytest.fixture(autouse=True)
def _users_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of a user's own, and a program without words of its own."""
    folder = tmp_path / "code"
    folder.mkdir()
    for name, text in MODULES.items():
        (folder / f"users_{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "argv", ["lis2"])
    yield
    for name in MODULES:
        sys.modules.pop(f"users_{name}", None)


# the dotted key to set (or, with DROP, to leave out), its value, and what the sentence must have
DROP = object()
UNET, TRAIN = {"type": "unet", "features": 2, "num_blocks": 1}, "train_dataset"
KEYS: list[tuple[str, Any, list[str]]] = [
    # keys that are missing
    ("model", DROP, ["model is missing"]),
    ("train_dataset", DROP, ["train_dataset is missing"]),
    ("scheduler", {"type": "StepLR"}, ["scheduler.step_size is missing"]),
    ("scheduler", {"type": "MultiStepLR"}, ["scheduler.milestones is missing"]),
    ("train_dataset.type", DROP, ["train_dataset names no class", "type: <name>"]),
    ("model.type", DROP, ["model names no class"]),
    ("train_dataset.data_augmentations", ["Normalize"], ["data_augmentations[0].mean is missing"]),
    ("train_dataset", "TileDataset", ["train_dataset.image", "train_dataset.target"]),
    ("model", "users_needs.Net", ["model.width is missing"]),
    ("model.encoder", {"type": "Lin"}, ["model.encoder.vars_config is missing"]),
    # keys that are misspelt
    ("epochz", 3, ["'epochz'", "'epochs'"]),
    ("out_dir", "x", ["'out_dir'", "'output_dir'"]),
    ("batchsize", 3, ["'batchsize'", "'batch_size'"]),
    ("Model", UNET, ["'Model'", "'model'"]),
    ("controller", {"type": "x"}, ["unknown key 'controller'"]),
    ("lightning.precisionx", 16, ["lightning.precisionx", "'lightning.precision'"]),
    ("lightning.max_epoch", 16, ["lightning.max_epoch", "'lightning.max_epochs'"]),
    ("model.feature", 2, ["model.feature", "'model.features'"]),
    ("optimizer.learning_rate", 2, ["'optimizer.learning_rate'", "optimizer.lr"]),
    ("train_dataset.heightt", 2, ["train_dataset.heightt", "'train_dataset.height'"]),
    ("val_dataset.fold", [1], ["val_dataset.fold", "'val_dataset.folds'"]),
    ("model.encoder", {"type": "Lin", "vars": []}, ["model.encoder.vars", "vars_config"]),
    (
        "train_dataset.data_augmentations",
        [{"type": "RandomRotation", "degree": 9}],
        ["train_dataset.data_augmentations[0].degree", "degrees"],
    ),
    ("metrics", [{"type": "dice", "thresholdd": 0.3}], ["metrics[0].thresholdd", "threshold"]),
    # names that are misspelt
    ("model.type", "unett", ["unknown model 'unett' in model", "'unet'"]),
    ("optimizer", "Adamm", ["unknown optimizer 'Adamm' in optimizer", "'Adam'"]),
    ("scheduler", "StepLRR", ["unknown scheduler 'StepLRR'", "'StepLR'"]),
    ("metrics", ["map", "dcie"], ["unknown metric 'dcie' in metrics[1]", "'dice'"]),
    ("loss", "BCELos", ["unknown loss 'BCELos' in loss", "'BCELoss'"]),
    ("trackers", ["wandbb"], ["unknown tracker 'wandbb' in trackers[0]", "'Wandb'"]),
    ("early_stopper", "LossStopping", ["early_stopper", "'LossEarlyStopping'"]),
    ("model.encoder", {"type": "Linn"}, ["unknown encoder 'Linn' in model.encoder", "'Lin'"]),
    (
        "train_dataset.data_augmentations",
        ["ToTensor", "RandomFlip"],
        ["'RandomFlip' in train_dataset.data_augmentations[1]"],
    ),
    # values of a wrong type
    ("epochs", "many", ["epochs must be int, got many"]),
    ("epochs", [1], ["epochs must be int, got [1]"]),
    ("epochs", None, ["epochs must be a whole number", "None"]),
    ("batch_size", 2.5, ["batch_size must be int, got 2.5"]),
    ("save_last", "perhaps", ["save_last must be bool, got perhaps"]),
    ("run_name", 2024, ["run_name must be str, got 2024"]),
    ("seed", "one", ["seed must be int or null, got one"]),
    ("num_workers", "some", ["num_workers must be int or 'auto', got some"]),
    ("mode", "least", ["mode must be 'min', 'max' or null, got least"]),
    ("scheduler_interval", "day", ["scheduler_interval must be 'epoch' or 'step', got day"]),
    ("optimizer.lr", "fast", ["optimizer.lr", "fast"]),
    ("model.features", "wide", ["model.features must be int, got wide"]),
    ("model", 3, ["model", "3"]),
    ("model", ["unet"], ["model"]),
    ("train_dataset", True, ["train_dataset", "True"]),
    ("train_dataset.folds", "first", ["train_dataset.folds", "first"]),
    ("train_dataset.normalization", "directt", ["train_dataset.normalization", "'direct'"]),
    ("lightning", 3, ["lightning", "3"]),
    ("lightning", ["a"], ["lightning"]),
    ("lightning.accumulate_grad_batches", "x", ["lightning.accumulate_grad_batches", "x"]),
    ("optimizer", {"class_path": "torch.optim.SGD", "init_args": 3}, ["optimizer.init_args", "3"]),
    # values out of range
    ("epochs", -1, ["epochs must be a whole number of at least 0, got -1"]),
    ("batch_size", 0, ["batch_size must be a whole number of at least 1, got 0"]),
    ("save_interval", -2, ["save_interval", "-2"]),
    ("num_workers", -1, ["num_workers", "-1"]),
    ("seed", -1, ["seed must be from 0 to 4294967295, got -1"]),
    ("seed", 2**32, ["seed", "4294967296"]),
    ("save_every_n_steps", 0, ["save_every_n_steps", "0"]),
    ("save_every_minutes", -1.0, ["save_every_minutes", "-1"]),
    ("run_name", "../over", ["run_name", "../over"]),
    ("run_name", "", ["run_name", "''"]),
    ("optimizer.lr", -1.0, ["optimizer.lr", "-1.0"]),
    ("optimizer", {"type": "AdamW", "betas": [2.0, 0.9]}, ["optimizer.betas", "2.0"]),
    ("scheduler", {"type": "OneCycleLR", "max_lr": 1.0}, ["scheduler"]),
    ("model.features", 0, ["model.features", "at least 1", "0"]),
    ("model.dim", 4, ["model.dim", "1, 2, 3", "4"]),
    ("train_dataset.size", 0, ["train_dataset.", "at least 1 px, not 0"]),
    ("train_dataset.stride", 0, ["train_dataset.stride", "0"]),
    ("train_dataset.folds", [7], ["train_dataset.folds", "fold 7 does not exist"]),
    ("train_dataset.height", 8, ["train_dataset", "8"]),
    ("loss", {"type": "BCELoss", "reduction": "none "}, ["loss"]),
    ("lightning.precision", "17", ["lightning", "precision", "17"]),
    ("lightning.accelerator", "abacus", ["lightning", "abacus"]),
    ("lightning.max_epochs", 3, ["lightning.max_epochs", "set epochs"]),
    ("monitor", "val_dcie", ["monitor", "'val_dcie'", "'val_dice'"]),
    ("resume", "gone.pt", ["gone.pt"]),
    # classes
    ("model", {"class_path": "torch.optim.SGD"}, ["model", "torch.optim.SGD"]),
    ("train_dataset", {"class_path": "torch.nn.Conv2d"}, ["train_dataset", "torch.nn.Conv2d"]),
    ("optimizer", {"class_path": "torch.nn.Conv2d"}, ["optimizer", "torch.nn.Conv2d"]),
    ("model", {"class_path": "no.such.Net"}, ["model", "no.such.Net"]),
    ("model", {"class_path": "torch.nn.Nett"}, ["model", "torch.nn.Nett"]),
    ("model", {"class_path": "torch.nn.functional.relu"}, ["model", "torch.nn.functional.relu"]),
    ("model", "users_raises.Net", ["model", "users_raises", "what a mess"]),
    ("model", "users_broken.Net", ["model", "users_broken"]),
    ("model", "users_imports.Net", ["model", "there_is_no_such_package"]),
    ("model", "users_needs.Bad", ["model", "no table"]),
    ("lightning.callbacks", ["users_raises.Ping"], ["lightning.callbacks", "users_raises"]),
    ("model.encoder", "gone.yaml", ["model.encoder", "gone.yaml"]),
    ("model.class_path", "torch.nn.Conv2d", ["model"]),
]
FILES: list[tuple[str, bytes, list[str]]] = [
    ("an open bracket", b"epochs: [1\nseed: 2\n", ["line 2, column 5"]),
    ("two colons", b"epochs: 3: 4\n", ["line 1, column 10"]),
    ("a tab", b"model:\n\ttype: unet\n", ["line 2, column 1"]),
    ("a bad indent", b"model:\n  type: unet\n features: 2\n", ["line 3"]),
    ("an empty file", b"", ["keys and values", "nothing"]),
    ("only a comment", b"# nothing yet\n", ["keys and values", "nothing"]),
    ("a list at the top", b"- 1\n- 2\n", ["keys and values", "a list"]),
    ("a number at the top", b"3\n", ["keys and values", "3"]),
    ("a key twice", b"epochs: 1\nseed: 2\nepochs: 3\n", ["duplicate key 'epochs' (line 3)"]),
    ("an inner key twice", b"model:\n  type: unet\n  type: x\n", ["duplicate key 'type' (line 3)"]),
    ("not UTF-8", "run_name: Größe\n".encode("latin-1"), ["UTF-8"]),
    ("UTF-16", "epochs: 3\n".encode("utf-16"), ["UTF-8"]),
    ("a zero byte", b"epochs: 3\x00\n", ["YAML"]),
    ("a picture", b"\x89PNG\r\n\x1a\n\x00\x00", ["UTF-8"]),
    ("an object of Python", b"model: !!python/object:os.system {}\n", ["tag", "line 1"]),
    ("a set", b"metrics: !!set {dice}\n", ["tag", "set", "line 1"]),
    ("an unknown anchor", b"model: *there\n", ["line 1, column 8"]),
    ("itself inside itself", b"model: &m {type: unet, encoder: *m}\n", ["model.encoder"]),
]


def broken(config: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A configuration with one key set or left out."""
    config = copy.deepcopy(config)
    *outer, last = dotted.split(".")
    inner = config
    for key in outer:
        inner = inner.setdefault(key, {})
    if value is DROP:
        del inner[last]
    else:
        inner[last] = value
    return config


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[[bytes], str]:
    """Type ``lis2 fit`` on a file; see that it is refused as promised, and give the sentence."""

    def check(text: bytes) -> str:
        path = tmp_path / "config.yaml"
        path.write_bytes(text)
        capfd.readouterr()
        code = main(["fit", "--config", str(path)])
        captured = capfd.readouterr()
        assert code == 2, captured.err
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert 1 <= len(lines) <= 3, captured.err
        assert lines[-1].startswith("lis2: "), captured.err
        assert not JARGON.search(captured.err), captured.err
        assert {entry.name for entry in tmp_path.iterdir()} == {"code", "config.yaml"}
        return captured.err

    return check


Refused = Callable[[bytes], str]
CASES = [
    pytest.param(key, value, words, id=f"{i}-{key}") for i, (key, value, words) in enumerate(KEYS)
]
# the first ones of each kind are tried each time, all of them in the long suite
QUICK = {0, 2, 10, 16, 24, 33, 55, 65, 80, 86}


@pytest.mark.parametrize(("key", "value", "words"), [CASES[i] for i in sorted(QUICK)])
def test_a_broken_key_is_named_in_full(
    refused: Refused, tiny: Make, key: str, value: Any, words: list[str]
) -> None:
    output = refused(yaml.safe_dump(broken(tiny(), key, value)).encode())
    assert not [word for word in words if word not in output], output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "words"), [case for i, case in enumerate(CASES) if i not in QUICK]
)
def test_every_broken_key_is_named_in_full(
    refused: Refused, tiny: Make, key: str, value: Any, words: list[str]
) -> None:
    output = refused(yaml.safe_dump(broken(tiny(), key, value)).encode())
    assert not [word for word in words if word not in output], output


@pytest.mark.parametrize(("name", "text", "words"), FILES, ids=[name for name, *_ in FILES])
def test_a_broken_file_is_reported_with_its_place(
    refused: Refused, name: str, text: bytes, words: list[str]
) -> None:
    output = refused(text)
    assert not [word for word in words if word not in output], output
    assert "config.yaml" in output or name == "itself inside itself"


def test_there_are_at_least_sixty_of_them() -> None:
    assert len(KEYS) + len(FILES) >= 60


def test_all_wrong_keys_are_reported_at_once(refused: Refused, tiny: Make) -> None:
    config = tiny(epochz=3, batch_size="large", loss="BCELos", lightning={"precisionx": 1})
    config["model"] = {"type": "unet", "featuress": 2, "num_blocks": "few"}
    config["val_dataset"] = {"type": "SyntheticDataset", "heightt": 3, "folds": "x"}
    output = refused(yaml.safe_dump(config).encode())
    for word in (
        *("'epochz'", "batch_size", "'BCELos'", "lightning.precisionx", "model.featuress"),
        *("model.num_blocks", "val_dataset.heightt", "val_dataset.folds"),
    ):
        assert word in output, output


def test_the_traceback_is_there_for_who_asks(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lis2_lightning import ConfigError

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny(epochz=3)))
    monkeypatch.setenv("LIS2_DEBUG", "1")
    with pytest.raises(ConfigError, match="epochz"):
        main(["fit", "--config", str(tmp_path / "config.yaml")])
