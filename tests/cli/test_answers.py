"""What commands answer on which stream, the equal configuration for Lightning, and `lis2 init`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI

from lis2_lightning import ConfigError, Trainer, __version__
from lis2_lightning.__main__ import main
from lis2_lightning.assembly.plan import lightning_yaml
from lis2_lightning.cli.dispatch import summaries
from lis2_lightning.snapshots import read_snapshot

Make = Callable[..., dict[str, Any]]
Finished = tuple[Path, dict[str, Any]]
Typed = Callable[..., tuple[int, str, str]]


def written(path: Path, config: dict[str, Any]) -> Path:
    """A configuration as a file."""
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def process(*words: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run Python as a user does, in a process of its own."""
    line = [sys.executable, *flags, *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.usefixtures("no_pictures")
def test_fit_answers_with_one_line_of_json(tiny: Make, tmp_path: Path, typed: Typed) -> None:
    path = written(tmp_path / "tiny.yaml", tiny(epochs=1))
    code, output, _ = typed("fit", "--config", path, "--json")
    assert code == 0
    assert output.count("\n") == 1
    read = json.loads(output)
    assert read["epochs_run"] == 1
    assert read["metrics_test"].keys() >= {"loss", "dice"}
    code, again, _ = typed("validate", "--config", path, "--json")
    assert (code, again.count("\n")) == (0, 1)
    assert json.loads(again).keys() >= {"val_loss", "val_dice"}


def test_plan_tells_what_each_key_becomes(tiny: Make, tmp_path: Path, typed: Typed) -> None:
    path = written(tmp_path / "tiny.yaml", tiny())
    code, output, _ = typed("plan", "--config", path)
    assert code == 0
    assert re.search(
        r"^optimizer +SegmentationModule.configure_optimizers\(\) -> torch", output, re.MULTILINE
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]
    code, output, _ = typed("plan", "--config", path, "--json")
    assert json.loads(output)["epochs"] == "lightning.pytorch.Trainer(max_epochs=2)"


@pytest.mark.parametrize("key", ["resume", "weights"])
def test_plan_refuses_a_missing_snapshot_as_fit_does(
    tiny: Make, tmp_path: Path, typed: Typed, key: str
) -> None:
    words = ("--config", written(tmp_path / "tiny.yaml", tiny()), f"--{key}", tmp_path / "gone.pt")
    code, output, errors = typed("plan", *words)
    assert (code, output) == (2, "")
    assert errors == f"lis2: there is no snapshot {tmp_path / 'gone.pt'}: check the path\n"
    code, _, of_fit = typed("fit", *words)
    assert (code, of_fit.splitlines()[-1:]) == (2, errors.splitlines())


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.filterwarnings("ignore")  # Lightning warns of what the facade keeps quiet
def test_lightning_alone_trains_the_plan_to_the_same_weights(
    tiny: Make, tmp_path: Path, typed: Typed, networks: str
) -> None:
    config = tiny(
        model={"class_path": f"{networks}.Droppy"},
        scheduler={"type": "StepLR", "step_size": 1},
        early_stopper=True,
        trackers=["csv"],
    )
    path, bare = written(tmp_path / "tiny.yaml", config), tmp_path / "bare.yaml"
    assert typed("plan", "--config", path, "--lightning_yaml", bare)[0] == 0
    ours = Trainer.from_config(path)
    ours.train()
    cli = LightningCLI(args=["fit", "--config", str(bare)], save_config_callback=None)
    theirs = {key.removeprefix("model."): value for key, value in cli.model.state_dict().items()}
    for name, weight in ours.model.state_dict().items():
        assert torch.equal(weight, theirs[name]), name
    best = torch.load(tmp_path / "runs/tiny/best.ckpt", weights_only=True)["state_dict"]  # noqa: TID251 - Lightning wrote it
    snapshot = read_snapshot(tmp_path / "runs/tiny/best.pt")["MODEL"]["MODEL_STATE"]
    assert all(torch.equal(value, best[f"model.{name}"]) for name, value in snapshot.items())


def test_objects_have_no_place_in_a_file(tiny: Make) -> None:
    trainer = Trainer.from_config(tiny(), model=torch.nn.Conv2d(1, 1, 3, padding=1))
    with pytest.raises(ConfigError, match="model: passed as objects"):
        lightning_yaml(trainer.global_config)


def images(folder: Path, *, signed: bool = False, side: int = 96) -> list[str]:
    """An image with labels, as a user has them."""
    rng = np.random.default_rng(0)
    image = rng.normal(0 if signed else 9, 1, (side, side)).astype(np.float32)
    np.save(folder / "image.npy", image)
    np.save(folder / "target.npy", (image > np.median(image)).astype(np.float32))
    return [str(folder / "image.npy"), str(folder / "target.npy")]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("signed", [False, True])
def test_what_init_writes_trains_as_it_is(
    tmp_path: Path, typed: Typed, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output, _ = typed("init", *images(tmp_path, signed=signed), "--output", "mine.yaml")
    assert code == 0
    assert "96 x 96 px, 1 channel" in output
    assert "labelled: 100.0% of the pixels, of which 50.0% are 1" in output
    text = Path("mine.yaml").read_text(encoding="utf-8")
    assert text.count("#") > 8
    assert ("Normalize" in text) == signed
    assert typed("fit", "--config", "mine.yaml", "--epochs", "1", "--model.features", "2")[0] == 0
    assert Path("runs/mine/best.pt").is_file()


def test_init_overwrites_nothing_and_tells_what_it_cannot_use(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image, target = images(tmp_path)
    code, output, _ = typed("init", image, target, "--json")
    assert (code, json.loads(output)["written"]) == (0, "lis2.yaml")
    for words in (["init", image, target], ["init", image], ["init", "gone.fits", target]):
        code, output, error = typed(*words)
        assert (code, output) == (2, "")
        assert error.startswith("lis2: "), error
        assert error.count("\n") == 1, error
    np.save("small.npy", np.ones((4, 4), np.float32))
    code, _, error = typed("init", "small.npy", "small.npy", "--output", "other.yaml")
    assert code == 2
    assert not Path("other.yaml").exists()


def test_init_finds_folds_where_little_is_labelled(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image, target = images(tmp_path)
    labelled = np.zeros((96, 96), np.float32)
    labelled[:8, :8] = 1
    np.save("labelled.npy", labelled)
    code, output, _ = typed("init", image, target, "--labelled", "labelled.npy", "--json")
    assert code == 0
    assert json.loads(output)["chosen"]["num_folds"] == 1  # one area has all of it
    config = yaml.safe_load(Path("lis2.yaml").read_text(encoding="utf-8"))
    assert "val_dataset" not in config


@pytest.mark.parametrize(("share", "loss"), [(0.02, "bce_dice_loss"), (0.2, "bce")])
def test_init_chooses_a_loss_for_rare_objects(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch, share: float, loss: str
) -> None:
    monkeypatch.chdir(tmp_path)
    image, target = images(tmp_path)
    values = np.load(image)
    np.save(target, values > np.quantile(values, 1 - share))
    code, output, _ = typed("init", image, target)
    assert code == 0
    assert ("these are few: the loss is bce_dice_loss" in output) == (share < 0.05)
    config = yaml.safe_load(Path("lis2.yaml").read_text(encoding="utf-8"))
    assert (config["loss"], config["monitor"]) == (loss, "val_loss")
    built = Trainer.from_config("lis2.yaml").global_config["loss"]["class_path"]
    assert built.endswith("BceDiceLoss" if share < 0.05 else "BCELoss")


def test_init_refuses_a_target_without_objects(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image, target = images(tmp_path)
    np.save(target, np.zeros((96, 96), np.float32))
    code, _, error = typed("init", image, target)
    assert (code, error.count("\n")) == (2, 1)
    assert f"no labelled pixel of {target} is 1: is it the target?" in error
    assert not Path("lis2.yaml").exists()


@pytest.mark.usefixtures("no_pictures")
def test_init_says_what_another_value_than_1_means(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image, target = images(tmp_path)
    np.save(target, np.load(target).astype(np.uint8) * 255)
    code, output, _ = typed("init", image, target, "--output", "mine.yaml")
    assert code == 0
    assert "labelled: 100.0% of the pixels, of which 50.0% are 1" in output
    config = yaml.safe_load(Path("mine.yaml").read_text(encoding="utf-8"))
    assert [config[f"{split}_dataset"]["positive"] for split in ("train", "val")] == [[255]] * 2
    assert typed("fit", "--config", "mine.yaml", "--epochs", "1", "--model.features", "2")[0] == 0

    several = np.load(target)
    several[:24] = 2
    np.save(target, several)
    code, _, error = typed("init", image, target, "--output", "other.yaml")
    assert code == 2
    assert "positive: [2, 255] (or positive: nonzero), negative: [2, 255]" in error
    words = ["--positive", "255", "--ignore", "[2]", "--output", "other.yaml"]
    code, output, _ = typed("init", image, target, *words)
    assert code == 0
    assert "labelled: 75.0% of the pixels" in output
    written = yaml.safe_load(Path("other.yaml").read_text(encoding="utf-8"))["train_dataset"]
    assert (written["positive"], written["ignore"]) == (255, [2])


def test_init_leaves_pixels_without_data_out_of_all_its_figures(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).random((2, 96, 96)).astype(np.float32) + 1
    values[0, :, :24], values[1, :, :24] = np.nan, -5000
    target = np.zeros((96, 96), np.uint8)
    target[:48] = target[:, :24] = 1
    np.save("image.npy", values)
    np.save("target.npy", target)
    code, output, _ = typed("init", "image.npy", "target.npy", "--json")
    seen = json.loads(output)["seen"]
    assert code == 0
    assert json.loads(output)["chosen"]["without_data"] == 96 * 24
    assert (seen["finite"], seen["negative"], seen["labelled"], seen["positive"]) == (
        *(0.75, 0, 0.75),
        pytest.approx(0.5),
    )
    assert 1 <= seen["least"] <= seen["mean"] <= seen["most"] <= 2
    code, output, _ = typed("init", "image.npy", "target.npy", "--output", "other.yaml")
    assert "labels where the image has no data, which do not count: 2304" in output


@pytest.mark.slow
def test_commands_that_train_nothing_do_without_lightning(
    finished: Finished, tmp_path: Path
) -> None:
    best, (image, target) = str(finished[0] / "best.pt"), images(tmp_path)
    words = (
        ["info", best],
        ["info", str(tmp_path / "gone.pt")],
        ["diff", best, best],
        ["convert", best, str(tmp_path / "new.pt")],
        ["init", image, target, "--output", str(tmp_path / "lis2.yaml")],
        ["init", image, str(tmp_path / "gone.npy")],
    )
    imported = packages_after(
        f"from lis2_lightning.__main__ import main; [main(line) for line in {words}]"
    )
    assert "torch" in imported
    assert not {"lightning", "torchmetrics", "matplotlib", "wandb"} & imported
    assert (tmp_path / "lis2.yaml").is_file()  # nothing before has ended the process


HELP = ("--help", "--version", "info --help", "init --help", "fit --help", "fit --help lightning")
REFUSED = ("fitt", "fit --epocs 3", "fit --config gone.yaml")


def test_help_and_refusals_import_neither_torch_nor_lightning() -> None:
    for word in (*HELP, *REFUSED):
        done = process("-m", "lis2_lightning", *word.split(), flags=("-X", "importtime"))
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "lis2_lightning.cli.dispatch" in imported
        assert not imported & {"torch", "lightning", "numpy"}, word


def test_help_lists_every_command_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    output = " ".join(capsys.readouterr().out.split())
    for name, about in summaries().items():
        assert f" {name} {about}" in output


def packages_after(code: str) -> set[str]:
    """The packages that a fresh process has imported when it ends."""
    ending = (
        "import sys\nsys.stderr.write('\\n' + ' '.join({m.split('.')[0] for m in sys.modules}))"
    )
    shown = process("-c", f"try:\n    {code}\nexcept SystemExit:\n    pass\n{ending}")
    return set(shown.stderr.splitlines()[-1].split())


@pytest.mark.slow
def test_a_refusal_imports_little_more_than_lightning(tmp_path: Path) -> None:
    path = written(tmp_path / "config.yaml", {"epochz": 3, "model": {"type": "unett"}})
    command = "from lis2_lightning.__main__ import main; main({})"
    bare = packages_after("import lightning.pytorch")
    refused = packages_after(command.format(["fit", "--config", str(path)]))
    ours = {"jsonargparse", "docstring_parser", "typeshed_client", "attr", "attrs", "h5py"}
    assert refused - bare - set(sys.stdlib_module_names) <= {"lis2_lightning", *ours}
    assert __version__ in process("-m", "lis2_lightning", "--version").stdout


def test_a_shell_completes_commands_keys_and_names(typed: Typed) -> None:
    for shell in ("bash", "zsh", "tcsh"):
        code, output, _ = typed("completion", shell)
        assert code == 0
        for word in ("verify-resume", "batch_size", "FilamentsDataset", "lightning.precision"):
            assert word in output, (shell, word)
    code, _, error = typed("completion", "dos")
    assert code == 2
    assert "completion: shell must be one of 'bash', 'zsh', 'tcsh', got dos; see" in error


def test_flags_of_tools_are_not_guessed(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = typed("init", *images(tmp_path), "--out", "other.yaml")
    assert code == 2
    assert "init: unrecognized arguments: --out other.yaml; see lis2 init --help" in error
    assert not (tmp_path / "other.yaml").exists()


def test_plan_refuses_what_fit_would_and_knows_the_direction(
    tiny: Make, tmp_path: Path, typed: Typed
) -> None:
    stopper = {"type": "LossEarlyStopping", "monitor": "val_dise"}
    path = written(tmp_path / "wrong.yaml", tiny(early_stopper=stopper))
    code, _, error = typed("plan", "--config", path)
    assert (code, error) == (
        2,
        "lis2: early_stopper.monitor 'val_dise' is not logged: did you mean 'val_dice' or "
        "'val_loss'?\n",
    )
    stopper["monitor"] = "val_dice"
    path = written(tmp_path / "right.yaml", tiny(early_stopper=stopper, monitor="val_roc_auc"))
    code, output, _ = typed("plan", "--config", path, "--lightning_yaml", tmp_path / "bare.yaml")
    assert code == 0
    assert "callbacks.BestSnapshot(mode=max)" in output
    bare = yaml.safe_load((tmp_path / "bare.yaml").read_text(encoding="utf-8"))
    modes = {
        callback["class_path"].rpartition(".")[2]: callback["init_args"]["mode"]
        for callback in bare["trainer"]["callbacks"]
        if "init_args" in callback
    }
    assert modes == {"LossEarlyStopping": "max", "ModelCheckpoint": "max"}
    assert not (tmp_path / "runs").exists()
