from __future__ import annotations

from pathlib import Path

from lis2_lightning.trackers.csv_rows import CsvRows, read_rows


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
