"""What a training shows while it runs: a line an epoch, and a bar without a false number."""

import csv
import io
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lis2_lightning import Trainer
from lis2_lightning.callbacks.terminal_bar import TerminalBar
from lis2_lightning.running.screen import ScreenHandler

Make = Callable[..., dict[str, Any]]


def line(columns: int) -> str:
    """A bar as a terminal of this width gets it."""
    return TerminalBar.format_meter(
        *(17_000, 99_000, 3909, columns),
        prefix="epoch 17/99: ",
        bar_format="{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
        postfix="loss 0.0123, training 1024/4096",
        ascii=" #",
    )


@pytest.mark.parametrize("columns", [20, 46, 50, 60, 79, 80, 90, 200])
def test_a_bar_fits_and_each_of_its_numbers_is_whole(columns: int) -> None:
    numbers = re.findall(r"[\d.:]+", line(columns).replace("#", ""))
    assert len(line(columns)) < max(columns - 1, 1)
    assert numbers in [re.findall(r"[\d.:]+", line(200))[:num] for num in (0, 5, 6, 8)]


def test_a_terminal_of_80_columns_has_room_for_everything() -> None:
    assert line(80).endswith("loss 0.0123, training 1024/4096")


@pytest.fixture
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """What this package reports."""
    monkeypatch.setattr(logging.getLogger("lis2_lightning"), "propagate", True)
    caplog.set_level(logging.INFO, "lis2_lightning")
    return caplog


def test_each_epoch_leaves_a_line_and_the_last_best_is_that_of_the_result(
    tiny: Make, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    config = tiny(epochs=4, monitor="val_loss", lightning={"enable_progress_bar": True})
    info = Trainer.from_config(config).train()
    with (tmp_path / "runs/tiny/logs_train.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = [message for message in log.messages if message.startswith("epoch ")]
    assert len(lines) == len(rows) == 4
    for text, row in zip(lines, rows, strict=True):
        shown = re.search(r"train_loss (\S+) +val_loss (\S+)", text)
        assert shown is not None
        for value, name in zip(shown.groups(), ("train_loss", "val_loss"), strict=True):
            assert float(value) == pytest.approx(float(row[name]), rel=1e-3)
    best = [row for text, row in zip(lines, rows, strict=True) if text.endswith("best")]
    assert float(best[-1]["val_loss"]) == info["best_loss"]
    losses = [float(row["val_loss"]) for row in rows]
    assert [float(row["val_loss"]) for row in best] == [
        loss for i, loss in enumerate(losses) if loss < min(losses[:i], default=1e9)
    ]


def test_the_first_line_says_what_is_trained_on_what(
    tiny: Make, log: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer.from_config(tiny(epochs=1, lightning={"enable_progress_bar": True}))
    trainer.train()
    size = sum(parameter.numel() for parameter in trainer.model.parameters())
    (text,) = [message for message in log.messages if "parameters on" in message]
    assert text.startswith(f"{type(trainer.model).__name__} of {size:,} parameters on cpu: ")
    assert f"{len(trainer.train_dataset)} tiles in " in text  # type: ignore[arg-type]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "no_colour", "expected"),
    [
        (Terminal(), "", "0.25  \x1b[32mbest\x1b[0m\n\x1b[33mbeware\x1b[0m\n"),
        (Terminal(), "1", "0.25  best\nbeware\n"),
        (io.StringIO(), "", "0.25  best\nbeware\n"),
    ],
)
def test_colours_are_for_a_terminal_alone(
    stream: io.StringIO, no_colour: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_colour)
    handler = ScreenHandler(stream)
    for level, text, mark in ((logging.INFO, "0.25  best", "best"), (30, "beware", "")):
        record = logging.LogRecord("lis2_lightning", level, "", 0, text, None, None)
        record.mark = mark
        handler.emit(record)
    assert stream.getvalue() == expected
