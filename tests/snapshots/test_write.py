"""Snapshots are written whole or not at all, without a copy in memory, with checksums."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lis2_lightning import SnapshotError
from lis2_lightning.snapshots import link_snapshot, read_snapshot, to_snapshot, write_snapshot


def snapshot(next_epoch: int = 1, num: int = 1000) -> dict[str, Any]:
    """A small one."""
    weights = {"model.weight": torch.arange(float(num))}
    checkpoint = {"state_dict": weights, "optimizer_states": [], "lr_schedulers": [], "loops": {}}
    return to_snapshot(
        checkpoint, model_config={}, global_config={}, best_loss=0.5, next_epoch=next_epoch
    )


def next_epoch(path: Path) -> int:
    """Which of the snapshots above lies there."""
    number: int = read_snapshot(path)["LIGHTNING"]["next_epoch"]
    return number


def fail(number: int) -> Callable[..., None]:
    """A function that raises an error of the system."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_writing_and_reading_gives_the_snapshot_back(tmp_path: Path) -> None:
    write_snapshot(snapshot(), tmp_path / "last.pt")
    back = read_snapshot(tmp_path / "last.pt")
    weights = back["MODEL"].pop("MODEL_STATE")
    expected = snapshot()
    assert torch.equal(weights["weight"], expected["MODEL"].pop("MODEL_STATE")["weight"])
    assert back == expected
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EFBIG, "choose another output_dir"),
        (errno.EIO, "check the folder and its disk"),
    ],
    ids=["full disk", "quota", "limit", "broken disk"],
)
def test_a_failed_write_says_which_file_why_what_is_there_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    path = tmp_path / "last.pt"
    write_snapshot(snapshot(1), path)
    monkeypatch.setattr(os, "fsync", fail(number))
    with pytest.raises(SnapshotError) as raised:
        write_snapshot(snapshot(2), path)
    assert str(raised.value) == (
        f"{path} cannot be written: {os.strerror(number)}; the earlier snapshot is whole: "
        f"{advice}, and start the command again"
    )
    assert next_epoch(path) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]
    with pytest.raises(SnapshotError) as raised:
        write_snapshot(snapshot(2), tmp_path / "new.pt")
    assert "whole" not in str(raised.value)


def stops_at(limit: int, error: BaseException) -> type[io.FileIO]:
    """A file that raises when it has taken so many bytes, and keeps none of them."""

    class FullFile(io.FileIO):
        written = 0

        def write(self, data: memoryview) -> int:  # type: ignore[override]
            self.written += len(data)
            if self.written > limit:
                raise error
            return len(data)

    return FullFile


LIMITS = pytest.mark.parametrize("limit", [0, 100, 4000, 100_000, 399_000])


@LIMITS
def test_a_file_that_takes_no_more_bytes_is_reported_by_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    # torch's writer would tell of positions in the file that it did not expect
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(io, "FileIO", stops_at(limit, full))
    with pytest.raises(SnapshotError, match=r"last\.pt cannot be written: No space left"):
        write_snapshot(snapshot(num=100_000), tmp_path / "last.pt")


@LIMITS
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)], ids=["Ctrl-C", "exit"])
def test_an_interrupt_while_torch_writes_is_not_taken_for_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, limit: int
) -> None:
    write_snapshot(snapshot(1), tmp_path / "last.pt")

    def write_while_something_is_handled() -> None:
        try:
            (tmp_path / "nothing").stat()
        except OSError:
            write_snapshot(snapshot(2, num=100_000), tmp_path / "last.pt")

    monkeypatch.setattr(io, "FileIO", stops_at(limit, error))
    with pytest.raises(type(error)) as raised:
        write_while_something_is_handled()
    assert raised.value is error
    monkeypatch.undo()
    assert next_epoch(tmp_path / "last.pt") == 1


def test_what_torch_cannot_write_is_reported_and_leaves_the_earlier_file(tmp_path: Path) -> None:
    write_snapshot(snapshot(1), tmp_path / "last.pt")
    changed = snapshot(2)
    weight = changed["MODEL"]["MODEL_STATE"]["weight"]
    changed["MODEL"]["MODEL_STATE"]["other"] = weight.view(torch.int32)
    with pytest.raises(SnapshotError, match=r"last\.pt cannot be written: Cannot save multiple"):
        write_snapshot(changed, tmp_path / "last.pt")
    assert next_epoch(tmp_path / "last.pt") == 1


def test_checksums_are_written_where_the_program_has_switched_them_off(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        write_snapshot(snapshot(), tmp_path / "last.pt")
        assert torch.serialization.get_crc32_options() is False
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_snapshot(tmp_path / "last.pt")
    with zipfile.ZipFile(tmp_path / "last.pt") as archive:
        assert archive.testzip() is None


def test_a_second_name_outlives_a_new_file_under_the_first(tmp_path: Path) -> None:
    best, last = tmp_path / "best.pt", tmp_path / "last.pt"
    write_snapshot(snapshot(1), best)
    link_snapshot(best, last)
    assert best.samefile(last)
    write_snapshot(snapshot(2), best)
    assert (next_epoch(last), next_epoch(best)) == (1, 2)


def test_a_second_name_that_cannot_be_given_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_snapshot(snapshot(1), tmp_path / "last.pt")
    write_snapshot(snapshot(2), tmp_path / "best.pt")
    monkeypatch.setattr(Path, "hardlink_to", fail(errno.EPERM))
    monkeypatch.setattr(os, "fsync", fail(errno.ENOSPC))
    message = r"last\.pt cannot be written: No space left on device; the earlier snapshot is whole"
    with pytest.raises(SnapshotError, match=message):
        link_snapshot(tmp_path / "best.pt", tmp_path / "last.pt")
    assert next_epoch(tmp_path / "last.pt") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


MEASURES_MEMORY = """
import resource, sys
import torch
from lis2_lightning.snapshots import write_snapshot

snapshot = {"MODEL": {str(i): torch.ones(10_000_000) for i in range(10)}}
write_snapshot({"MODEL": {}}, sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_snapshot(snapshot, sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux")
def test_writing_400_mb_takes_no_memory_for_them(tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    done = subprocess.run(
        [sys.executable, "-c", MEASURES_MEMORY, str(path)], capture_output=True, check=True
    )
    assert path.stat().st_size > 400_000_000
    path.unlink()
    assert int(done.stdout) * 1024 < 0.05 * 400_000_000


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_snapshot(snapshot(1), path)
    before = path.read_bytes()
    changed = snapshot(2)
    changed["GLOBAL_CONFIG"] = {"values": list(range(3_000_000))}
    with pytest.raises(SnapshotError, match=r"last\.pt is not written because it could not be"):
        write_snapshot(changed, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]
