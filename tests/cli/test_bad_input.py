"""What a user can mend: one sentence and exit code 2, no traceback, no file written or changed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from lis2_lightning import Lis2Error, Trainer
from lis2_lightning.__main__ import main

Make = Callable[..., dict[str, Any]]
Contents = Callable[[Path], dict[str, bytes]]


def truth(shape: tuple[int, int] = (64, 64)) -> NDArray[np.float32]:
    """A label map with both classes everywhere."""
    return np.asarray(np.indices(shape).sum(0) % 2, dtype=np.float32)


# what jsonargparse says to programmers, and no user should read
JARGON = re.compile(r"Namespace|Subtypes|NoneType|<class|\bParser key\b|Union")


@pytest.fixture
def maps(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Keys of a data set whose files are made from arrays."""

    def make(**changes: Any) -> dict[str, Any]:
        config: dict[str, Any] = {
            "type": "TileDataset",
            "image": 1 + np.arange(64 * 64, dtype=np.float32).reshape(64, 64),
            "target": truth(),
            "size": 16,
        }
        config |= changes
        for key, value in config.items():
            if isinstance(value, np.ndarray):
                np.save(tmp_path / f"{key}.npy", value)
                config[key] = str(tmp_path / f"{key}.npy")
        return config

    return make


@pytest.fixture(autouse=True)
def _nothing_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning warns if a program has command-line words besides those passed to it."""
    monkeypatch.setattr(sys, "argv", ["lis2"])


@pytest.fixture
def refuse(
    tmp_path: Path, contents: Contents, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Type ``lis2 fit``; see that it is refused as promised, and return the sentence."""

    def check(config: Mapping[str, Any] | str, *words: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(dict(config)))
        before = contents(tmp_path)
        capfd.readouterr()
        code = main(["fit", "--config", str(path), *words])
        captured = capfd.readouterr()
        assert code == 2, captured.err
        assert captured.err.startswith("lis2: "), captured.err
        assert captured.err.count("\n") == 1, captured.err
        assert captured.out == ""
        assert contents(tmp_path) == before
        return captured.err

    return check


@pytest.fixture
def complain(tmp_path: Path, contents: Contents) -> Callable[[Mapping[str, Any]], str]:
    """The same in Python, which is quicker: the command line prints what is raised here."""

    def check(config: Mapping[str, Any]) -> str:
        before = contents(tmp_path)
        with pytest.raises(Lis2Error) as error:
            Trainer.from_config(config).train()
        assert error.value.exit_code == 2
        assert "\n" not in str(error.value)
        assert not JARGON.search(str(error.value)), str(error.value)
        assert contents(tmp_path) == before
        return str(error.value)

    return check


Refuse = Callable[..., str]

CONV = {"in_channels": 1, "out_channels": 1, "kernel_size": 3, "padding": 1}
INSIDE = {"type": "unet", "encoder": {"type": "Lin"}}

KEYS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": ({"epochz": 3}, ["epochz", "'epochs'"]),
    "unknown key below lightning": ({"lightning": {"precisionx": 16}}, ["precisionx", "precision"]),
    "unknown key of a component": ({"model": {"type": "unet", "feature": 2}}, ["features"]),
    "unknown model": ({"model": {"type": "unett"}}, ["unknown model 'unett'", "'unet'"]),
    "unknown optimizer": ({"optimizer": {"type": "Adamm"}}, ["unknown optimizer", "'Adam'"]),
    "unknown scheduler": ({"scheduler": "StepLRR"}, ["unknown scheduler", "'StepLR'"]),
    "unknown metric": ({"metrics": ["dcie"]}, ["unknown metric 'dcie'", "'dice'"]),
    "unknown loss": ({"loss": "BCELos"}, ["unknown loss", "'BCELoss'"]),
    "unknown tracker": ({"trackers": ["wandbb"]}, ["unknown tracker", "'Wandb'"]),
    "a module that is not there": ({"model": {"class_path": "no.such.Net"}}, ["no.such.Net"]),
    "a class that is not there": ({"model": {"class_path": "torch.nn.Nett"}}, ["torch.nn.Nett"]),
    "a class of another kind": ({"model": {"class_path": "torch.optim.SGD"}}, ["model"]),
    "text for a number": ({"epochs": "many"}, ["epochs", "int", "many"]),
    "a fraction for a whole number": ({"batch_size": 2.5}, ["batch_size", "2.5"]),
    "a list for a number": ({"epochs": [1]}, ["epochs"]),
    "text for a number inside": ({"optimizer": {"type": "SGD", "lr": "fast"}}, ["lr", "fast"]),
    "a wrong word of a few": ({"mode": "least"}, ["mode", "min", "max"]),
    "no batch": ({"batch_size": 0}, ["batch_size", "at least 1", "0"]),
    "fewer than no epochs": ({"epochs": -1}, ["epochs", "-1"]),
    "fewer than no workers": ({"num_workers": -1}, ["num_workers", "-1"]),
    "a fraction below 0": ({"save_interval": -2}, ["save_interval", "-2"]),
    "a path for a name": ({"run_name": "../over"}, ["run_name", "../over"]),
    "a documented key below lightning": ({"lightning": {"max_epochs": 3}}, ["epochs"]),
    "a value Lightning refuses": ({"lightning": {"precision": "17"}}, ["precision"]),
    "another device": ({"lightning": {"accelerator": "abacus"}}, ["accelerator", "abacus"]),
    "an argument that is missing inside": ({"model": INSIDE}, ["model.encoder", "vars_config"]),
    "two names of one key": ({"epoch": 3, "epochs": 3}, ["epoch"]),
    "a snapshot that is not there": ({"resume": "gone.pt"}, ["gone.pt"]),
    "a learning rate below 0": ({"optimizer": {"type": "SGD", "lr": -1.0}}, ["-1"]),
    "an argument that is missing": ({"scheduler": {"type": "StepLR"}}, ["step_size"]),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_wrong_key_name_or_value_is_one_sentence(complain: Refuse, tiny: Make, case: str) -> None:
    changes, words = KEYS[case]
    output = complain(tiny(**changes))
    missing = [word for word in words if word.lower() not in output.lower()]
    assert not missing, output


TYPED = ["unknown key", "unknown model", "text for a number", "a learning rate below 0"]


@pytest.mark.parametrize("case", TYPED)
def test_the_command_line_says_the_same(refuse: Refuse, tiny: Make, case: str) -> None:
    changes, words = KEYS[case]
    output = refuse(tiny(**changes))
    assert all(word.lower() in output.lower() for word in words), output


@pytest.mark.parametrize("key", ["model", "train_dataset"])
def test_a_missing_key_is_named(refuse: Refuse, tiny: Make, key: str) -> None:
    config = tiny()
    del config[key]
    assert f"{key} is missing" in refuse(config)


@pytest.mark.parametrize(
    ("text", "word"),
    [("epochs: [1", "YAML"), ("- 1\n- 2\n", "keys and values"), ("", "keys and values")],
)
def test_a_file_that_is_no_configuration(refuse: Refuse, text: str, word: str) -> None:
    assert word in refuse(text)


def test_unknown_flags_and_files_are_one_sentence_each(
    refuse: Refuse, tiny: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "'--epochs'" in refuse(tiny(), "--epochz", "3")
    assert "epochs" in refuse(tiny(), "--epochs", "many")
    assert "gone.yaml" in refuse(tiny(), "--config", "gone.yaml")
    for words in (["fitt"], [], ["fit", "--config"], ["test", "--ckpt_path"]):
        assert main(words) == 2
        output = capfd.readouterr().err
        assert output.startswith("lis2: "), output
        assert output.count("\n") == 1, output


HALF = {"type": "RandomHorizontalFlip", "keys_to_augment": ["patch"]}
DATA: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a missing image": ({"image": "gone.fits"}, ["gone.fits"]),
    "images of different shapes": ({"target": truth((64, 60))}, ["64", "60", "shape"]),
    "a tile larger than the image": ({"size": 65}, ["65", "64"]),
    "a fold with no tile": ({"num_folds": 9, "folds": [8], "area_size": 32}, ["fold"]),
    "a fold that is not there": ({"num_folds": 2, "folds": [2]}, ["2"]),
    "no labelled pixel": ({"missing": np.zeros((64, 64), np.float32)}, ["labelled"]),
    "other target values": ({"target": truth() * 3}, ["3"]),
    "a stride of 0": ({"stride": 0}, ["stride", "0"]),
    "an unknown normalisation": ({"normalization": "directt"}, ["normalization", "direct"]),
    "an augmentation that is refused": ({"data_augmentations": [HALF]}, ["both patch and target"]),
    "an argument that is missing": ({"data_augmentations": ["Normalize"]}, ["mean", "std"]),
    "an unknown augmentation": ({"data_augmentations": ["RandomFlip"]}, ["RandomFlip"]),
}


@pytest.mark.parametrize("case", DATA)
def test_data_that_cannot_be_used_is_one_sentence(
    complain: Refuse, tiny: Make, maps: Make, case: str
) -> None:
    changes, words = DATA[case]
    output = complain(tiny(train_dataset=maps(**changes), val_dataset=None, test_dataset=None))
    missing = [word for word in words if word.lower() not in output.lower()]
    assert not missing, output


@pytest.mark.parametrize("name", ["image.fits", "image.npy", "image.h5", "image.tif", "image.xyz"])
def test_a_file_of_the_wrong_format_is_named(
    complain: Refuse, tiny: Make, maps: Make, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("these are no pixels\n" * 200)
    changes = {"val_dataset": None, "test_dataset": None}
    output = complain(tiny(train_dataset=maps(image=str(tmp_path / name)), **changes))
    assert name in output


def test_an_hdf5_file_without_patches_is_named(
    complain: Refuse, tiny: Make, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "patches.h5", "w") as file:
        file["pictures"] = np.zeros((2, 8, 8))
    data = {"type": "FilamentsDataset", "dataset_path": str(tmp_path / "patches.h5")}
    output = complain(tiny(train_dataset=data, val_dataset=None, test_dataset=None))
    assert "patches" in output


def test_splits_that_share_pixels_are_refused(complain: Refuse, tiny: Make) -> None:
    config = tiny()
    output = complain(tiny(val_dataset={**config["val_dataset"], "folds": [0]}))
    assert "train_dataset" in output
    assert "val_dataset" in output


def test_a_network_whose_output_has_another_shape(
    complain: Refuse, tiny: Make, networks: str
) -> None:
    output = complain(tiny(model={"class_path": f"{networks}.Wrong"}))
    assert "(1, 1, 14, 14)" in output
    assert "(1, 1, 16, 16)" in output


def test_a_network_that_cannot_take_the_patch(complain: Refuse, tiny: Make) -> None:
    output = complain(tiny(model={"type": "unet", "features": 2, "in_channels": 3}))
    assert "(1, 1, 16, 16)" in output


def test_probabilities_that_are_none(complain: Refuse, tiny: Make) -> None:
    logits = {"class_path": "torch.nn.Conv2d", "init_args": CONV}
    assert "BCEWithLogitsLoss" in complain(tiny(model=logits, loss="BCELoss"))


def test_lists_of_images_and_targets_that_differ_in_length(complain: Refuse, tiny: Make) -> None:
    several = {"type": "TileDataset", "image": ["a.npy", "b.npy"], "target": ["t.npy"]}
    output = complain(tiny(train_dataset=several))
    assert "target has 1 entry for 2 entries of image" in output


def test_a_list_of_images_where_one_is_mapped(complain: Refuse, tiny: Make) -> None:
    several = {"class_path": "lis2_lightning.data.ImageTiles", "init_args": {"image": ["a.npy"]}}
    output = complain(tiny(train_dataset=several))
    assert "image must be a single one here" in output


def test_a_network_with_nothing_to_train(complain: Refuse, tiny: Make) -> None:
    output = complain(tiny(model={"class_path": "torch.nn.Sigmoid"}))
    assert "parameter" in output


def test_an_output_folder_that_cannot_be_written(
    complain: Refuse, tiny: Make, tmp_path: Path
) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    assert "cannot be written" in complain(tiny())


def test_a_folder_that_holds_a_run(complain: Refuse, tiny: Make, tmp_path: Path) -> None:
    (tmp_path / "runs/tiny").mkdir(parents=True)
    (tmp_path / "runs/tiny/logs_train.csv").write_text("epoch\n0\n")
    assert "holds a run already" in complain(tiny())


def test_a_damaged_snapshot_is_named(complain: Refuse, tiny: Make, tmp_path: Path) -> None:
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04 and no more")
    assert "torn.pt" in complain(tiny(resume=str(tmp_path / "torn.pt")))


def test_a_run_that_had_begun_and_failed_is_one_sentence_and_code_1(
    tiny: Make, networks: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tiny(model={"class_path": f"{networks}.Diverges"})))
    assert main(["fit", "--config", str(path)]) == 1
    output = capfd.readouterr().err
    assert "Traceback" not in output
    [line] = [line for line in output.splitlines() if line.startswith("lis2: ")]
    assert "epoch 0, step 0" in line
    assert not (tmp_path / "runs/tiny/best.pt").exists()


def test_the_process_ends_with_that_code(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lis2_lightning", "fit", "--config", "gone.yaml"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == ("lis2: there is no configuration file gone.yaml: check the path\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["fit"], "model and train_dataset"),
        (["fit", "--json", "--model", "unet"], "train_dataset"),
        (["plan", "--epochs", "3"], "model and train_dataset"),
        (["verify-resume"], "model and train_dataset"),
    ],
)
def test_a_command_without_a_configuration_says_where_one_comes_from(
    words: list[str], missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    sentence = f"lis2: {missing} must be set: name a file with --config; lis2 init writes one\n"
    assert capsys.readouterr().err == sentence


def test_a_sentence_has_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--model", "unet", "--train_dataset", "SyntheticDataset"]
    assert main([*words, "--trackers", "https://me:S3CRET@server/mlflow"]) == 2
    sentence = capsys.readouterr().err
    assert "https://server/mlflow" in sentence
    assert "S3CRET" not in sentence


def test_what_cannot_be_written_is_one_sentence(
    typed: Callable[..., tuple[int, str, str]], tiny: Make, tmp_path: Path
) -> None:
    file, folder, config = tmp_path / "file.txt", tmp_path / "folder", tmp_path / "c.yaml"
    file.write_text("")
    folder.mkdir()
    config.write_text(yaml.safe_dump(tiny()))
    for words in (
        ["sample", str(file / "maps")],
        ["plan", "--config", str(config), "--lightning_yaml", str(folder)],
    ):
        code, _, error = typed(*words)
        assert code == 2, error
        assert "cannot be written: " in error.splitlines()[-1]
        assert "Traceback" not in error


def test_a_command_s_own_key_with_a_mapping_is_one_sentence(
    typed: Callable[..., tuple[int, str, str]], tiny: Make, tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(tiny(folds={"train": [0, 1], "val": [2]})))
    code, _, error = typed("cross-validate", "--config", str(config))
    assert code == 2
    assert "folds must be a whole number" in error.splitlines()[-1]
