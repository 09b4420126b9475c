from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lis2_lightning import TileDataset, Trainer, TrainingError
from lis2_lightning.base.records import Record, append_record, read_records
from lis2_lightning.callbacks import run_events
from lis2_lightning.callbacks.run_events import events_noted
from lis2_lightning.data import Raster

Make = Callable[..., dict[str, Any]]


def events(folder: Path) -> list[Record]:
    return [record for record, _ in read_records(folder / "events.jsonl")]


def test_a_run_notes_its_data_and_its_epochs(finished: tuple[Path, dict[str, Any]]) -> None:
    start, *epochs = events(finished[0])
    assert (start["kind"], start["epoch"], start["batch"]) == ("start", 0, 0)
    data = start["data"]
    assert list(data) == ["train", "val", "test"]
    assert [image["shape"] for image in data["train"]["images"]] == [[1, 128, 128]]
    digests = {split["images"][0]["digest"] for split in data.values()}
    assert len(digests) == 1  # of one image
    assert [(e["kind"], e["epoch"]) for e in epochs] == [("epoch", n) for n in range(5)]


def test_an_image_of_several_splits_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Raster] = []

    def identity(image: Raster) -> list[int]:
        read.append(image)
        return [len(read)]

    monkeypatch.setattr(run_events, "identity", identity)
    first, second = np.eye(32, dtype=np.float32), np.ones((32, 32), np.float32)
    images = {"train": first, "val": first.copy(), "test": second, "none": None}
    data = run_events.described(
        {k: None if v is None else TileDataset(v, target=v, size=16) for k, v in images.items()}
    )
    assert len(read) == 2
    digests = [split["images"][0]["digest"] for split in data.values()]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.usefixtures("no_pictures")
def test_a_resumed_run_notes_where_and_keeps_what_was_noted(tiny: Make, tmp_path: Path) -> None:
    for epochs in (1, 2):
        Trainer.from_config(tiny(epochs=epochs, save_last=True, resume="auto")).train()
    noted = [(e["kind"], e["epoch"]) for e in events(tmp_path / "runs/tiny")]
    assert noted == [("start", 0), ("epoch", 0), ("start", 1), ("epoch", 1)]


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_fails_notes_why(tiny: Make, tmp_path: Path, networks: str) -> None:
    trainer = Trainer.from_config(tiny(model={"class_path": f"{networks}.Diverges"}))
    with pytest.raises(TrainingError) as raised:
        trainer.train()
    last = events(tmp_path / "runs/tiny")[-1]
    assert (last["kind"], last["reason"]) == ("stopped", str(raised.value))


def test_warnings_are_noted_and_messages_are_not(tmp_path: Path) -> None:
    log = logging.getLogger("lis2_lightning")
    with events_noted(tmp_path):
        log.info("epoch %d", 1)
        log.warning("%s is slow", "the disk")
    log.warning("after the run")
    assert [(e["kind"], e["text"]) for e in events(tmp_path)] == [("warning", "the disk is slow")]


def test_a_folder_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    with events_noted(tmp_path / "gone"):
        logging.getLogger("lis2_lightning").warning("nobody hears")
    assert not (tmp_path / "gone").exists()


def test_a_line_that_a_crash_cut_short_swallows_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_record(path, "warning", text="first")
    with path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "warning", "text": "cut')
    append_record(path, "warning", text="last")
    assert [record["text"] for record, _ in read_records(path)] == ["first", "last"]
