"""TensorBoard: event files, read back with its own reader."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lis2_lightning import Trainer
from lis2_lightning.trackers import TensorBoard
from lis2_lightning.trackers.journal_logger import close_all, journal_logger

Make = Callable[..., dict[str, Any]]


def read(run_dir: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    return events


def steps(events: Any, tag: str) -> list[int]:
    return [event.step for event in events.Scalars(tag)]


@pytest.mark.usefixtures("no_pictures")
def test_rows_scores_texts_and_tiles_are_in_the_event_file(tiny: Make) -> None:
    config = tiny(trackers="tensorboard")

    info = Trainer.from_config(config).train()

    events = read(Path(config["output_dir"]) / "tiny")
    assert steps(events, "train_loss") == steps(events, "val_dice") == [0, 1]
    (score,) = events.Scalars("summary/test_dice")
    assert score.value == pytest.approx(info["metrics_test"]["dice"])
    assert [image.step for image in events.Images("tiles")] == [0, 1]
    assert events.Images("tiles")[0].width == 3 * 18
    texts = {tag.removesuffix("/text_summary") for tag in events.Tags()["tensors"]}
    assert texts == {"config", "environment", "status"}
    assert b"batch_size: 4" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_an_epoch_that_is_trained_again_takes_the_former_ones_place(tmp_path: Path) -> None:
    for first, loss in ((0, 1.0), (1, 2.0)):
        made = journal_logger(TensorBoard(), None, tmp_path, "run")
        made.version = "key"
        for epoch in range(first, 3):
            made.log_metrics({"epoch": epoch, "train_loss": loss, "größe a/b": math.nan}, epoch)
        close_all([made], "finished")

    events = read(tmp_path)

    assert [(e.step, e.value) for e in events.Scalars("train_loss")] == [(0, 1), (1, 2), (2, 2)]
    assert math.isnan(events.Scalars("größe a/b")[0].value)


@pytest.mark.slow
def test_curves_and_map_are_shown(tiny: Make) -> None:
    config = tiny(trackers="tensorboard")

    Trainer.from_config(config).train()

    events = read(Path(config["output_dir"]) / "tiny")
    assert events.Images("curves")
    assert events.Images("prediction")


@pytest.mark.usefixtures("no_pictures")
def test_pictures_of_tiles_do_not_change_what_is_trained(tiny: Make) -> None:
    from lis2_lightning.trackers.csv_rows import read_rows

    logs = []
    for name, trackers in (("without", []), ("with", ["tensorboard"])):
        config = tiny(run_name=name, trackers=trackers)
        Trainer.from_config(config).train()
        logs.append(read_rows(Path(config["output_dir"]) / name / "logs_train.csv"))

    assert logs[0] == logs[1]
