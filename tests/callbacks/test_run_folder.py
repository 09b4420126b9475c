from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from lis2_lightning import Trainer, TrainingError
from lis2_lightning.callbacks import run_folder

Make = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.usefixtures("no_pictures")


def environment(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    return read


@pytest.mark.parametrize(
    "script",
    [
        "#!/bin/sh\nexec sleep 60\n",
        "#!/bin/sh\nprintf '\\377\\376 nothing'\n",
        "#!/bin/sh\nexit 1\n",
        "#!/nowhere/interpreter\n",
        "no program at all",
    ],
    ids=["hangs", "prints no UTF-8", "fails", "has no interpreter", "is no program"],
)
def test_training_needs_no_git_that_works(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text(script, encoding="utf-8")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{git.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(run_folder, "_GIT_S", 0.3)

    assert Trainer.from_config(tiny(epochs=1)).train()["epochs_run"] == 1

    assert environment(tmp_path / "runs" / "tiny")["git_commit"] is None


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_commit_of_the_working_folder_is_noted(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *identity, "commit", "-qm", "a", "--allow-empty"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)

    Trainer.from_config(tiny(epochs=1)).train()

    assert environment(tmp_path / "runs" / "tiny")["git_commit"] == head.stdout.strip()


class Removes(pl.Callback):
    """Somebody cleans up while a run trains."""

    def __init__(self, folder: Path, target: Path | None) -> None:
        self.folder, self.target = folder, target

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 1 and batch_idx == 0:
            if self.target is None:
                shutil.rmtree(self.folder)
            else:
                self.folder.rename(self.target)


@pytest.mark.parametrize("is_moved", [False, True])
@pytest.mark.parametrize("every", [None, 2])
def test_a_run_whose_folder_is_gone_says_so(
    tiny: Make, tmp_path: Path, every: int | None, *, is_moved: bool
) -> None:
    folder = tmp_path / "runs" / "tiny"
    target = tmp_path / "elsewhere" if is_moved else None
    trainer = Trainer.from_config(tiny(epochs=3, save_every_n_steps=every))
    trainer.lightning.callbacks.append(Removes(folder, target))  # type: ignore[attr-defined]

    with pytest.raises(TrainingError, match=r"tiny was removed or moved while the run trained"):
        trainer.train()

    assert not (folder / "logs_train.csv").exists()
    if target is not None:
        assert len((target / "logs_train.csv").read_text().splitlines()) == 2


def test_no_secret_of_the_command_line_is_noted(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["lis2", "fit", "--trackers", '[{type: mlflow, tracking_uri: "http://me:pw@h"}]']
    monkeypatch.setattr(
        sys, "argv", [*words, "--x.api_key", "pw", "--x.token=pw", "{password: pw}"]
    )

    Trainer.from_config(tiny(epochs=1)).train()

    command = environment(tmp_path / "runs" / "tiny")["command"]
    assert command[:3] == words[:3]
    assert command[3] == '[{type: mlflow, tracking_uri: "http://h"}]'
    assert "pw" not in str(command)
