"""Snapshots as files: whole or not at all, and read without running anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lis2_lightning import SnapshotError
from lis2_lightning.snapshots import (
    link_snapshot,
    newest_snapshot,
    read_snapshot,
    to_snapshot,
    write_snapshot,
)


def snapshot(next_epoch: int = 1) -> dict[str, Any]:
    """A small one."""
    weights = {"model.weight": torch.arange(1000.0)}
    given = {"state_dict": weights, "optimizer_states": [], "lr_schedulers": [], "loops": {}}
    return to_snapshot(
        given, model_config={}, global_config={}, best_loss=0.5, next_epoch=next_epoch
    )


def test_writing_and_reading_gives_the_snapshot_back(tmp_path: Path) -> None:
    write_snapshot(snapshot(), tmp_path / "last.pt")
    back = read_snapshot(tmp_path / "last.pt")
    weights = back["MODEL"].pop("MODEL_STATE")
    expected = snapshot()
    assert torch.equal(weights["weight"], expected["MODEL"].pop("MODEL_STATE")["weight"])
    assert back == expected
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    write_snapshot(snapshot(1), path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SnapshotError, match=r"last\.pt cannot be written: .*No space left"):
        write_snapshot(snapshot(2), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, part: float) -> None:
    path = tmp_path / "torn.pt"
    write_snapshot(snapshot(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(SnapshotError, match=r"torn\.pt"):
        read_snapshot(path)


def test_a_flipped_bit_in_a_weight_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "flipped.pt"
    write_snapshot(snapshot(), path)
    content = bytearray(path.read_bytes())
    place = content.find(torch.arange(500.0, 501.0).numpy().tobytes())
    assert place > 0
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match=r"flipped\.pt is damaged: the checksum"):
        read_snapshot(path)


class Runs:
    """Code that a file would run when it is read."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("ran",)


def test_a_file_that_would_run_code_runs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**snapshot(), "EXTRA": Runs()}, tmp_path / "evil.pt")
    with pytest.raises(SnapshotError, match=r"evil\.pt cannot be read safely"):
        read_snapshot(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_snapshot_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "lightning.ckpt")
    with pytest.raises(SnapshotError, match=r"lightning\.ckpt is no snapshot: MODEL is missing"):
        read_snapshot(tmp_path / "lightning.ckpt")
    with pytest.raises(SnapshotError, match="there is no snapshot"):
        read_snapshot(tmp_path)


def test_another_format_says_what_to_do(tmp_path: Path) -> None:
    newer = snapshot()
    newer["LIGHTNING"]["format"] = 99
    write_snapshot(newer, tmp_path / "newer.pt")
    with pytest.raises(SnapshotError, match=r"format 99.*update lis2-lightning"):
        read_snapshot(tmp_path / "newer.pt")


def test_a_second_name_outlives_a_new_file_under_the_first(tmp_path: Path) -> None:
    best, last = tmp_path / "best.pt", tmp_path / "last.pt"
    write_snapshot(snapshot(1), best)
    link_snapshot(best, last)
    write_snapshot(snapshot(2), best)
    assert read_snapshot(last)["LIGHTNING"]["next_epoch"] == 1
    assert read_snapshot(best)["LIGHTNING"]["next_epoch"] == 2


def test_a_second_name_is_a_copy_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_snapshot(snapshot(1), tmp_path / "best.pt")
    link_snapshot(tmp_path / "best.pt", tmp_path / "last.pt")
    assert (tmp_path / "last.pt").read_bytes() == (tmp_path / "best.pt").read_bytes()


def test_the_newest_snapshot_is_told_by_its_content_and_damaged_ones_are_passed_over(
    tmp_path: Path,
) -> None:
    assert newest_snapshot(tmp_path) is None
    for epoch, name in ((4, "save_3"), (6, "save_5"), (6, "last"), (2, "best")):
        write_snapshot(snapshot(epoch), tmp_path / f"{name}.pt")
    os.utime(tmp_path / "best.pt", (2e9, 2e9))  # the newest date
    assert newest_snapshot(tmp_path) == tmp_path / "last.pt"
    for name in ("last", "save_5"):
        (tmp_path / f"{name}.pt").write_bytes(b"torn")
    assert newest_snapshot(tmp_path) == tmp_path / "save_3.pt"


def test_a_copy_resumes_as_the_original_does(tmp_path: Path) -> None:
    write_snapshot(snapshot(3), tmp_path / "last.pt")
    shutil.copy(tmp_path / "last.pt", tmp_path / "copy.pt")
    assert read_snapshot(tmp_path / "copy.pt")["LIGHTNING"]["next_epoch"] == 3
