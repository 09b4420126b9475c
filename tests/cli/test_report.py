"""``lis2 report`` and its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Typed = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", "a: [1"),
        ("config.yaml", "- a list"),
        ("environment.json", "{"),
        ("result.json", "[]"),
        ("logs_train.csv", "epoch,train_loss\n0,1,2,3,4\n"),
        ("logs_train.csv", "epoch,train_loss\n0,none\n"),
        ("test_results.npz", "PK"),
        ("report_map.npz", ""),
    ],
)
def test_a_damaged_file_is_named_in_a_sentence(
    name: str, text: str, copied: Path, typed: Typed
) -> None:
    (copied / name).write_text(text, encoding="utf-8")
    code, output, error = typed("report", copied)
    assert (code, output) == (2, "")
    assert error.count("\n") == 1
    assert name in error
    assert "damaged" in error


def test_what_is_no_run_is_refused(tmp_path: Path, copied: Path, typed: Typed) -> None:
    (tmp_path / "mine.html").write_text("<p>mine</p>", encoding="utf-8")
    for words, reason in (
        (("report", tmp_path / "none"), "is no folder:"),
        (
            ("report", tmp_path / "none", "--output", tmp_path / "new" / "page.html"),
            "is no folder:",
        ),
        (("report", tmp_path), "is no folder of a run"),
        (("report", copied, "--output", tmp_path / "mine.html"), "is no report"),
        (("report", copied, "--output", tmp_path), "is a folder"),
        (("report", copied, "--output", tmp_path / "mine.html" / "page.html"), "cannot be written"),
        (("report",), "required"),
    ):
        code, output, error = typed(*words)
        assert (code, output, error.count("\n")) == (2, "", 1)
        assert reason in error
    assert {path.name for path in tmp_path.iterdir()} == {"mine.html", "runs"}
    assert (tmp_path / "mine.html").read_text(encoding="utf-8") == "<p>mine</p>"


def test_the_command_writes_the_page_again(copied: Path, typed: Typed) -> None:
    before = (copied / "report.html").stat().st_mtime_ns
    code, output, _ = typed("report", copied, "--json")
    assert code == 0
    assert json.loads(output) == {"written": str(copied / "report.html")}
    assert (copied / "report.html").stat().st_mtime_ns > before


def test_the_map_of_a_run_that_was_killed_before_its_page_is_shown(
    copied: Path, typed: Typed, said: pytest.LogCaptureFixture
) -> None:
    view = copied / "report_map.npz"
    before = view.read_bytes()
    view.unlink()
    assert typed("report", copied)[0] == 0
    assert view.read_bytes() == before
    assert "Right and wrong pixels" in (copied / "report.html").read_text(encoding="utf-8")

    view.unlink()
    np.save(copied / "prediction.npy", np.ones((12, 20), np.float32))
    assert typed("report", copied)[0] == 0
    assert "prediction.npy is not on the page: it has 12 x 20 px, and its image 128" in said.text
    assert not view.exists()
