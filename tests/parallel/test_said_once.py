"""Two processes show, tell and leave behind what one does: each line once, each file once."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import termios
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.parallel.conftest import end_all, start

pytestmark = pytest.mark.slow
Make = Callable[..., dict[str, Any]]

# A user's own network and data, which warn and log as they are built and as they are used.
CHATTY = """
import logging
import warnings

from torch import nn

from lis2_lightning.data import SyntheticDataset

log = logging.getLogger("lis2_lightning")
warnings.warn("the module warns as it is imported")


class Chatty(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(1, 1, 1)
        warnings.warn("the network warns as it is built")

    def forward(self, patch):
        warnings.warn("the network warns as it is used")
        return super().forward(patch).sigmoid()


class ChattyData(SyntheticDataset):
    def __init__(self, folds: list[int]) -> None:
        super().__init__(height=128, width=128, size=16, stride=16, num_folds=3, folds=folds)
        log.info("the data tell of their %d tiles of folds %s", len(self), folds)
        log.warning("the data warn of folds %s", folds)
"""
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
DEVICES = ("--lightning.devices=2", "--lightning.strategy=ddp")


@pytest.fixture
def config(tiny: Make, tmp_path: Path) -> Path:
    """The configuration of a run with bars, a tracker, snapshots and a test."""
    (tmp_path / "chatty_network.py").write_text(CHATTY, encoding="utf-8")
    data = "chatty_network.ChattyData"
    settings = tiny(
        model={"class_path": "chatty_network.Chatty"},
        **{
            f"{split}_dataset": {"class_path": data, "init_args": {"folds": [fold]}}
            for fold, split in enumerate(("train", "val", "test"))
        },
        trackers=[{"type": "TensorBoard"}],
        lightning={"accelerator": "cpu", "enable_progress_bar": True},
        save_last=True,
        save_interval=1,
    )
    path = tmp_path / "chatty.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def run(config: Path, *words: str, on_terminal: bool = False) -> str:
    """Run a command to its end; what it has told on both of its outputs."""
    leader, terminal = pty.openpty() if on_terminal else (-1, subprocess.PIPE)
    if on_terminal:
        termios.tcsetwinsize(terminal, (24, 120))  # or there is no room for a bar
    error = terminal if on_terminal else subprocess.STDOUT
    process = start(
        ["-m", *words], config.parent, streams={"stdout": subprocess.PIPE, "stderr": error}
    )
    try:
        if on_terminal:
            os.close(terminal)
            output = _all_of(leader).decode()
            process.communicate(timeout=180)
        else:
            output = process.communicate(timeout=180)[0]
    finally:
        end_all([process])
    assert process.returncode == 0, output
    return output


def _all_of(terminal: int) -> bytes:
    parts = []
    with os.fdopen(terminal, "rb", buffering=0) as file:
        while True:
            try:
                part = file.read(65536)
            except OSError:  # Linux says so when the last process has closed its end
                break
            if not part:
                break
            parts.append(part)
    return b"".join(parts)


def plain(output: str) -> list[str]:
    """The lines that are told, without the numbers that no two runs share."""
    output = output.replace("on 2 x cpu", "on cpu")  # the only thing that two processes add
    lines = (re.sub(r"[\d.]+", "#", line).strip() for line in output.splitlines())
    return sorted({line for line in lines if line})


def repeated_lines(output: str) -> dict[str, int]:
    """What is told more than once."""
    return {line: num for line, num in Counter(output.splitlines()).items() if line and num > 1}


def files(folder: Path) -> Counter[str]:
    """The files of a run, without the time and the process in their names."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return Counter(re.sub(r"tfevents\..*", "tfevents", name) for name in names)


def fit(config: Path, name: str) -> list[str]:
    """The words of a run of this name."""
    return ["lis2_lightning", "fit", "--config", str(config), "--run_name", name]


def test_two_processes_tell_write_and_answer_what_one_does(config: Path, tmp_path: Path) -> None:
    alone = run(config, *fit(config, "run"))
    (tmp_path / "runs").rename(tmp_path / "alone")
    for before, after in (((), DEVICES), (TORCHRUN, ())):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        two = run(config, *before, *fit(config, "run"), *after)
        assert repeated_lines(two) == {}, two
        assert plain(two) == plain(alone)
        assert "the module warns as it is imported" in two
        assert "the network warns as it is used" in two
        assert "the data warn of folds [0]" in two
        assert files(tmp_path / "runs") == files(tmp_path / "alone")

    answers = {"validate": "val_dice", "test": "test_dice", "predict": "", "plan": "lightning.dev"}
    for command, answer in answers.items():
        words = [command, "--config", str(config), "--run_name", "run"]
        words += ["--overwrite"] if command == "predict" else []  # the map that fit has made
        output = run(config, *TORCHRUN, "lis2_lightning", *words)
        assert answer in output
        assert repeated_lines(output) == {}, output


def test_only_the_main_process_draws_bars(config: Path) -> None:
    alone = run(config, *fit(config, "one"), on_terminal=True)
    two = run(config, *fit(config, "two"), *DEVICES, on_terminal=True)
    # a bar that is done stays, drawn a last time; another process would leave one of its own
    done = re.compile(r"epoch 2/2: 100%")
    # how often a bar is drawn depends on the time; two processes would draw it twice as often
    assert 0 < len(done.findall(two)) < 2 * len(done.findall(alone))
