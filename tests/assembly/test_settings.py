"""Values that no run can have are refused wherever they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.snapshots import read_snapshot, write_snapshot

Make = Callable[..., dict[str, Any]]
NAMES = {
    "no name": "",
    "this folder": ".",
    "the folder above": "..",
    "a folder inside": "a/b",
    "a separator of Windows": "a\\b",
    "an absolute path": "/runs",
    "a NUL character": "a\0b",
    "a line break": "a\nb",
    "256 bytes": "a" * 256,
    "256 bytes of two each": "é" * 128,
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_run_is_named_like_a_folder(tiny: Make, tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match=r"^run_name must be the name of a folder: .*, got "):
        Trainer.from_config(tiny(run_name=NAMES[kind]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "...", "a b", "-", "run.pt"])
def test_any_other_name_is_allowed(tiny: Make, name: str) -> None:
    assert Trainer.from_config(tiny(run_name=name)).run_name == name


def test_a_snapshot_cannot_name_a_run_otherwise(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    snapshot = read_snapshot(finished[0] / "best.pt")
    snapshot["GLOBAL_CONFIG"]["run_name"] = ".."
    write_snapshot(snapshot, tmp_path / "crafted.pt")
    with pytest.raises(ConfigError, match="run_name must be"):
        Trainer.from_snapshot(tmp_path / "crafted.pt")


def test_a_folder_of_runs_has_no_nul_character(tiny: Make) -> None:
    with pytest.raises(ConfigError, match=r"^output_dir must be .* NUL character, got 'a"):
        Trainer.from_config(tiny(output_dir="a\0b"))
