"""The command line: the same keys as the file and as Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lis2_lightning import Trainer, __version__
from lis2_lightning.__main__ import main
from lis2_lightning.config import Schema

ROOT = Path(__file__).parents[2]
Make = Callable[..., dict[str, Any]]
Finished = tuple[Path, dict[str, Any]]


@pytest.fixture(autouse=True)
def _nothing_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning warns if a program has command-line words besides those passed to it."""
    monkeypatch.setattr(sys, "argv", ["lis2"])


@pytest.fixture
def config(tiny: Make, tmp_path: Path) -> str:
    """The file of a tiny run."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny()), encoding="utf-8")
    return str(path)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A copy of a run that is over, which a test may write to."""
    folder, _ = finished
    copy = tmp_path / "runs" / "tiny"
    shutil.copytree(folder, copy)
    text = (copy / "config.yaml").read_text(encoding="utf-8")
    (copy / "config.yaml").write_text(text.replace(str(folder.parent), str(copy.parent)))
    return copy


def command(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lis2_lightning", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=120,
    )


def printed_config(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What ``--print_config`` prints, read back."""
    with pytest.raises(SystemExit) as stop:
        main([*words, "--print_config"])
    assert not stop.value.code
    printed: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return printed


@pytest.mark.usefixtures("no_pictures")
def test_fit_trains_and_leaves_what_python_leaves(config: str, tmp_path: Path) -> None:
    assert main(["fit", "--config", config, "--run_name", "typed"]) == 0
    Trainer.from_config(config, run_name="called").train()
    typed, called = tmp_path / "runs/typed", tmp_path / "runs/called"
    assert {path.name for path in typed.iterdir()} == {path.name for path in called.iterdir()}
    for name in ("logs_train.csv", "test_results.csv"):
        assert (typed / name).read_bytes() == (called / name).read_bytes()
    first, second = (
        yaml.safe_load((folder / "config.yaml").read_text()) for folder in (typed, called)
    )
    assert {**first, "run_name": ""} == {**second, "run_name": ""}


@pytest.mark.usefixtures("no_pictures")
def test_flags_beat_the_file(config: str, tmp_path: Path) -> None:
    flags = ["--epochs", "1", "--optimizer.lr", "1e-3", "--model.features=3", "--save_last", "true"]
    assert main(["fit", "--config", config, *flags, "--lightning.precision", "bf16-mixed"]) == 0
    used = yaml.safe_load((tmp_path / "runs/tiny/config.yaml").read_text())
    assert used["epochs"] == 1
    assert used["optimizer"]["init_args"]["lr"] == 1e-3
    assert used["model"]["init_args"]["features"] == 3
    assert used["model"]["init_args"]["num_blocks"] == 1
    assert used["lightning"]["precision"] == "bf16-mixed"
    assert (tmp_path / "runs/tiny/last.pt").is_file()


@pytest.mark.parametrize("before", [True, False])
def test_flags_beat_the_file_on_either_side_of_it(
    config: str, capsys: pytest.CaptureFixture[str], before: bool
) -> None:
    flags, file = ["--epochs", "7", "--optimizer", "SGD"], ["--config", config]
    words = [*flags, *file] if before else [*file, *flags]
    printed = printed_config(capsys, "fit", *words)
    assert printed["epochs"] == 7
    assert printed["optimizer"]["class_path"] == "torch.optim.SGD"


def test_what_print_config_prints_loads_back_to_itself(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = printed_config(capsys, "fit", "--config", config)
    path = tmp_path / "printed.yaml"
    path.write_text(yaml.safe_dump(printed), encoding="utf-8")
    assert printed_config(capsys, "fit", "--config", str(path)) == printed
    original, reloaded = (Trainer.from_config(source).global_config for source in (config, path))
    assert original == reloaded


def test_both_spellings_and_the_short_epoch_are_flags(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ["fit", "--config", config]
    short = ["--optimizer", "adamw", "--optimizer.lr", "0.1", "--epoch", "3"]
    long = ["--optimizer.class_path", "torch.optim.AdamW", "--optimizer.init_args.lr", "0.1"]
    by_name = printed_config(capsys, *file, *short)
    by_path = printed_config(capsys, *file, *long, "--epochs=3")
    assert by_name == by_path
    assert by_name["optimizer"]["init_args"]["lr"] == 0.1


def test_test_repeats_the_figures_of_the_run_exactly(copied: Path) -> None:
    before = (copied / "test_results.csv").read_bytes()
    (copied / "test_results.csv").unlink()
    words = ["--config", str(copied / "config.yaml"), "--ckpt_path", str(copied / "best.pt")]
    assert main(["test", *words]) == 0
    assert (copied / "test_results.csv").read_bytes() == before


def test_test_prints_the_scores_that_train_returned(
    finished: Finished, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", "--config", str(copied / "config.yaml")]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    expected = finished[1]["metrics_test"]
    assert {f"test_{key}": f"{value:.6f}" for key, value in expected.items()} == printed


@pytest.mark.parametrize(("snapshot", "epoch"), [("{}/save_2.pt", 2), ("last", 4)])
def test_validate_prints_the_scores_of_that_epoch(
    copied: Path,
    capsys: pytest.CaptureFixture[str],
    read_log: Callable[[Path], list[dict[str, float]]],
    snapshot: str,
    epoch: int,
) -> None:
    words = ["--config", str(copied / "config.yaml"), "--ckpt_path", snapshot.format(copied)]
    assert main(["validate", *words]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    row = read_log(copied / "logs_train.csv")[epoch]
    scores = {key: value for key, value in row.items() if key.startswith("val_")}
    assert {key: float(text) for key, text in printed.items()} == pytest.approx(scores, abs=2e-6)


def test_predict_writes_the_map(copied: Path, finished: Finished) -> None:
    (copied / "prediction.npy").unlink()
    assert main(["predict", "--config", str(copied / "config.yaml")]) == 0
    before, after = (folder / "prediction.npy" for folder in (finished[0], copied))
    assert after.read_bytes() == before.read_bytes()  # best.pt, as at the end of the run


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert not stop.value.code
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("subcommand", ["fit", "test"])
def test_help_tells_of_every_documented_key(
    subcommand: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([subcommand, "--help"])
    assert not stop.value.code
    output = capsys.readouterr().out
    for key in Schema(Trainer).keys:
        assert f"\n  --{key} " in output, key
        after = output.split(f"\n  --{key} ", 1)[1].split("\n  --")[0]
        assert len(after.split()) >= 3, f"{key} has no help: {after}"


def test_help_lists_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    output = capsys.readouterr().out
    assert all(word in output for word in ("fit", "validate", "test", "predict"))


def test_fit_in_a_process_of_its_own_warns_of_nothing_and_writes_only_to_its_folder(
    tiny: Make, tmp_path: Path
) -> None:
    path = tmp_path / "here.yaml"
    path.write_text(yaml.safe_dump(tiny(output_dir="out", epochs=1)), encoding="utf-8")
    done = command("fit", "--config", str(path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    output = (done.stdout + done.stderr).lower()
    assert "warn" not in output
    assert "tip" not in output
    assert "best train_loss" in output
    assert {entry.name for entry in tmp_path.iterdir()} == {"here.yaml", "out"}


# the others map an image, train folds or trials, and have their own tests
OTHERS = {"predict", "cross_validate", "tune"}
TRAINING = sorted(p for p in (ROOT / "configs").glob("*.yaml") if p.stem not in OTHERS)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.stem)
def test_each_shipped_configuration_trains_an_epoch(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "maps/" in path.read_text(encoding="utf-8"):
        assert main(["sample", "maps"]) == 0
    little = ["--epochs", "1", "--lightning.limit_train_batches", "2", "--model.features", "2"]
    quiet = ["--lightning.enable_progress_bar", "false", "--lightning.limit_val_batches", "2"]
    out = ["--output_dir", str(tmp_path), "--run_name", "one"]
    assert main(["fit", "--config", str(path), *out, *little, *quiet]) == 0
    assert (tmp_path / "one" / "best.pt").is_file()
