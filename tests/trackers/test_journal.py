"""The journal: what a tracker is to receive, and how much of it has arrived."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lis2_lightning.trackers.journal import Journal, Mark


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "trackers" / "one.jsonl")


def kinds(journal: Journal, offset: int = 0) -> list[Any]:
    return [record and record["kind"] for record, _ in journal.read(offset)]


def test_what_is_appended_is_read_back_in_order(journal: Journal) -> None:
    journal.append("start", key="größe")
    journal.append("row", values={"a b/c": float("nan")}, step=3)

    (start, _), (row, _) = journal.read()

    assert start is not None
    assert start["key"] == "größe"
    assert row is not None
    assert row["step"] == 3
    assert row["values"]["a b/c"] != row["values"]["a b/c"]


def test_reading_resumes_where_it_stopped(journal: Journal) -> None:
    journal.append("start")
    (_, end), *_ = journal.read()
    journal.append("row")

    assert kinds(journal, end) == ["row"]


def test_a_line_that_a_crash_cut_short_costs_no_other_line(journal: Journal) -> None:
    journal.append("start")
    with journal.path.open("ab") as file:
        file.write(b'{"kind": "row", "val')
    assert kinds(journal) == ["start"]

    journal.append("row")

    assert kinds(journal) == ["start", None, "row"]


def test_a_mark_that_cannot_be_read_means_that_nothing_has_arrived(journal: Journal) -> None:
    journal.append("row", values={})
    journal.set_mark(Mark(offset=10, note="x"))
    assert journal.mark().offset == 10

    (journal.state_dir / "mark.json").write_text("{")

    assert journal.mark() == Mark()
    assert journal.rows_left() == 1
