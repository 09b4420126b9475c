"""Where a command's output goes: results to stdout, the rest to stderr, bars to a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pty = pytest.importorskip("pty", reason="this system has no pseudo terminals")
termios = pytest.importorskip("termios", reason="this system has no pseudo terminals")
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def command(tiny: Make, tmp_path: Path) -> list[str]:
    """A training on the command line, with bars."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny(lightning={"accelerator": "cpu"})), encoding="utf-8")
    return [sys.executable, "-m", "lis2_lightning", "fit", "--config", str(path)]


@pytest.mark.slow
def test_a_file_gets_a_line_an_epoch_and_no_bars(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "epoch 2/2  train_loss 0." in done.stderr
    assert "\x1b" not in done.stderr
    assert "%|" not in done.stderr
    assert "\r" not in done.stderr


@pytest.mark.slow
def test_a_terminal_gets_bars(command: list[str]) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 100))  # a new one has no width, and so no room for a bar
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        output = b""
        try:
            while part := os.read(ours, 4096):
                output += part
        except OSError:
            pass  # Linux's way to say that the other end is closed
        assert process.stdout is not None
        assert process.stdout.read() == b""
    os.close(ours)
    assert process.returncode == 0
    assert b"epoch 2/2: 100%|" in output


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_run_needs_no_stream(command: list[str], tmp_path: Path, closed: str) -> None:
    words = [*command, "--trackers", "tensorboard", "--num_workers", "1"]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *words], check=False)
    assert done.returncode == 0
    folder = tmp_path / "runs" / "tiny"
    assert json.loads((folder / "result.json").read_text())["info"]["epochs_run"] == 2
    # a file that had got the number of a closed stream would have its output
    written = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".txt"]
    assert not [path.name for path in written if b"starting a new run" in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code"), [("--help", 0), ("fit", 2), ("plan --config tiny.yaml", 0)]
)
def test_a_command_without_streams_ends_with_its_code(
    command: list[str], tmp_path: Path, words: str, code: int
) -> None:
    typed = [*command[:3], *words.split()]
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    assert subprocess.run([*shell, *typed], cwd=tmp_path, check=False).returncode == code
