from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lis2_lightning import ConfigError
from lis2_lightning.trackers import csv_rows
from lis2_lightning.trackers.csv_rows import CsvCopy, CsvRows, read_rows

LOG = "epoch,train_loss,val_loss\n0,3.25,\n1,2.5,1.5\n"


def test_a_row_an_epoch_with_columns_in_the_order_given(tmp_path: Path) -> None:
    log = CsvRows(tmp_path / "logs_train.csv")

    log.log_metrics({"epoch": 0, "train_loss": 0.1 + 0.2, "val_loss": 1.0}, step=0)
    log.log_metrics({"epoch": 1, "train_loss": 0.5, "val_loss": float("nan")}, step=1)

    assert (tmp_path / "logs_train.csv").read_text() == (
        "epoch,train_loss,val_loss\n0,0.30000000000000004,1.0\n1,0.5,nan\n"
    )


def test_a_resumed_run_cuts_the_log_back_to_its_epoch(tmp_path: Path) -> None:
    path = tmp_path / "logs_train.csv"
    first = CsvRows(path)
    for epoch in range(4):
        first.log_metrics({"epoch": epoch, "train_loss": float(epoch)}, step=epoch)

    CsvRows(path).log_metrics({"epoch": 2, "train_loss": 20.0}, step=2)

    assert [row["train_loss"] for row in read_rows(path)[1]] == ["0.0", "1.0", "20.0"]


def test_a_metric_that_appears_later_adds_a_column_and_loses_no_row(tmp_path: Path) -> None:
    path = tmp_path / "logs_train.csv"
    log = CsvRows(path)

    log.log_metrics({"epoch": 0, "train_loss": 3.0}, step=0)
    log.log_metrics({"epoch": 1, "train_loss": 2.0, "val_dice": 0.5}, step=1)
    log.log_metrics({"epoch": 2, "train_loss": 1.0}, step=2)

    columns, rows = read_rows(path)
    assert columns == ["epoch", "train_loss", "val_dice"]
    assert [row["val_dice"] for row in rows] == ["", "0.5", ""]


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "logs_train.csv"
    path.write_text("epoch,train_loss\n0,3.0\n1,2.")

    CsvRows(path).log_metrics({"epoch": 1, "train_loss": 2.5}, step=1)

    assert path.read_text() == "epoch,train_loss\n0,3.0\n1,2.5\n"


def test_what_is_no_epochs_row_is_passed_over(tmp_path: Path) -> None:
    CsvRows(tmp_path / "logs_train.csv").log_metrics({"test_loss": 1.0}, step=3)

    assert not (tmp_path / "logs_train.csv").exists()


SAVED_BY_A_SPREADSHEET: dict[str, Callable[[str], bytes]] = {
    "with a byte order mark": lambda text: text.encode("utf-8-sig"),
    "with semicolons": lambda text: text.replace(",", ";").encode(),
    "with decimal commas": lambda text: text.replace(",", ";").replace(".", ",").encode(),
    "with tabs": lambda text: text.replace(",", "\t").encode(),
    "with line ends of Windows": lambda text: text.replace("\n", "\r\n").encode(),
    "with line ends of an old Mac": lambda text: text.replace("\n", "\r").encode(),
    "with epochs as decimals": lambda text: text.replace("\n0,", "\n0.0,").encode(),
    "with quotes": lambda text: text.replace("epoch", '"epoch"').encode(),
    "without the last line end": lambda text: text[:-1].encode(),
    "without empty cells at an end": lambda text: text.replace("3.25,\n", "3.25\n").encode(),
    "with empty lines and cells": lambda text: text.replace("\n", ",,\n").encode() + b"\n,,,,\n",
    "after a power cut": lambda text: text.encode() + b"\0" * 512,
}


@pytest.mark.parametrize("change", SAVED_BY_A_SPREADSHEET.values(), ids=SAVED_BY_A_SPREADSHEET)
def test_no_row_of_a_file_that_something_else_has_saved_is_lost(
    tmp_path: Path, change: Callable[[str], bytes]
) -> None:
    path = tmp_path / "logs_train.csv"
    path.write_bytes(change(LOG))

    CsvRows(path).log_metrics({"epoch": 2, "train_loss": 2.0, "val_loss": 1.0}, step=2)

    assert path.read_text() == f"{LOG}2,2.0,1.0\n"


@pytest.mark.parametrize(
    "text",
    [
        "shopping\n",
        '"',
        "shopping\nmilk\n",
        "epoch,train_loss\nfirst,2.0\n",
        "epoch\n0.5\n",
        "epoch,a\n0,1,2\n",
    ],
)
def test_a_file_that_is_no_log_is_refused_and_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "logs_train.csv"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"logs_train.csv is no log of a run, or is damaged .*: "):
        CsvRows(path).check()

    assert path.read_text() == text


def run(folder: Path, elsewhere: Path, *losses: float, start: int = 0) -> CsvCopy:
    """A run that logs some epochs into its folder and elsewhere."""
    own = CsvRows(folder / "logs_train.csv")
    copy = CsvCopy(elsewhere / "logs_train.csv", own.path)
    copy.check()
    for epoch, loss in enumerate(losses, start):
        for log in (own, copy):
            log.log_metrics({"epoch": epoch, "train_loss": loss}, step=epoch)
    return copy


def test_runs_that_share_a_folder_for_copies_keep_each_others_rows(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    runs = [tmp_path / "a", tmp_path / "b", tmp_path / "c" / "b"]

    copies = [run(folder, elsewhere, float(i), 0.5).path for i, folder in enumerate(runs)]

    assert [path.name for path in copies] == [
        *("logs_train.csv", "logs_train_b.csv", "logs_train_b-2.csv")
    ]
    for folder, copy in zip(runs, copies, strict=True):
        assert copy.read_bytes() == (folder / "logs_train.csv").read_bytes()


def test_a_resumed_run_goes_on_in_its_own_copy(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    run(tmp_path / "a", elsewhere, 1.0, 0.5)
    run(tmp_path / "b", elsewhere, 2.0, 1.5)

    path = run(tmp_path / "b", elsewhere, 1.25, start=2).path

    assert path == elsewhere / "logs_train_b.csv"
    assert path.read_bytes() == (tmp_path / "b" / "logs_train.csv").read_bytes()


def test_a_copy_that_fails_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = run(tmp_path / "a", tmp_path / "elsewhere", 1.0)
    copy.path.unlink()
    copy.path.mkdir()

    with caplog.at_level(logging.WARNING, "lis2_lightning"):
        run_on = [{"epoch": epoch, "train_loss": 0.5} for epoch in (1, 2)]
        for row in run_on:
            copy.log_metrics(row, step=int(row["epoch"]))

    (record,) = caplog.records
    assert "the copy of the log in" in record.message
    assert os.fspath(tmp_path / "a") in record.message


def test_a_folder_for_copies_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"output_run .*file of the tracker csv cannot be made"):
        run(tmp_path / "a", tmp_path / "file")


def test_a_log_is_read_again_only_when_something_else_has_changed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = tmp_path / "log.csv", csv_rows.read_rows
    times: list[Path] = []

    def counting(path: Path) -> Any:
        times.append(path)
        return read(path)

    monkeypatch.setattr(csv_rows, "read_rows", counting)
    rows = CsvRows(path)
    for epoch in range(20):
        rows.log_metrics({"epoch": epoch, "train_loss": 0.5}, epoch)
    assert len(times) == 1
    kept = path.read_text(encoding="utf-8").splitlines()[:4]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    rows.log_metrics({"epoch": 20, "train_loss": 0.5}, 20)
    assert len(times) == 2
    assert [row["epoch"] for row in read(path)[1]] == ["0", "1", "2", "20"]
