"""Journal and delivery: in order, with retries, each record marked when it has arrived."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lis2_lightning.trackers import delivery
from lis2_lightning.trackers.adapter import Adapter, RefusedError
from lis2_lightning.trackers.journal import Journal, Mark


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"RETRY_S": 0.05, "BACKOFF_S": 0.001, "LONGEST_PAUSE_S": 0.002, "POLL_S": 0.001}
    for name, value in limits.items():
        monkeypatch.setattr(delivery, name, value)


class Remembers(Adapter):
    """Keeps what it gets; what is in ``faults`` is raised first, one for each call."""

    def __init__(self, faults: list[Exception | None] | None = None, *, late: bool = False) -> None:
        super().__init__(Path(), {})
        self.got: list[Any] = []
        self.faults = faults or []
        self.confirms_at_close = late

    def _get(self, what: Any) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        self.got.append(what)

    def open(self, start: Mapping[str, Any]) -> None:
        self._get(("open", start["key"]))

    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        self._get(dict(values))

    def close(self, record: Mapping[str, Any]) -> str:
        self._get(record["status"])
        return "a note"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "trackers" / "one.jsonl")


def fill(journal: Journal, rows: int, *, key: str = "k", status: str | None = "finished") -> None:
    journal.append("start", key=key)
    for epoch in range(rows):
        journal.append("row", values={"epoch": epoch}, step=epoch)
    if status:
        journal.append("close", status=status)


def deliver(journal: Journal, adapter: Adapter, *, is_over: bool = True) -> Mark:
    loop = delivery.Delivery(journal, adapter)
    if is_over:
        loop.end()
    loop.deliver()
    return loop.mark


def test_a_run_arrives_from_its_start_to_its_status(journal: Journal) -> None:
    adapter = Remembers()
    fill(journal, 2)

    mark = deliver(journal, adapter)

    assert adapter.got == [("open", "k"), {"epoch": 0}, {"epoch": 1}, "finished"]
    assert (mark.offset, mark.note) == (journal.size, "a note")
    assert journal.rows_left() == 0


def test_a_call_that_fails_is_tried_again_over_a_new_connection(journal: Journal) -> None:
    adapter = Remembers([None, None, OSError("down")])
    fill(journal, 2)

    deliver(journal, adapter)

    assert adapter.got == [
        ("open", "k"),
        {"epoch": 0},
        ("open", "k"),
        {"epoch": 1},
        "finished",
    ]


@pytest.mark.parametrize("is_over", [False, True])
def test_an_adapter_that_fails_for_good_leaves_every_row_in_the_journal(
    journal: Journal, *, is_over: bool
) -> None:
    fill(journal, 3)

    mark = deliver(journal, Remembers([OSError("down")] * 999), is_over=is_over)

    assert mark.error == "OSError: down"
    assert journal.rows_left() == 3


def test_a_later_delivery_brings_only_what_is_missing(journal: Journal) -> None:
    fill(journal, 3)
    first, second = Remembers([None, None, *[OSError()] * 999]), Remembers()
    deliver(journal, first)

    deliver(journal, second)

    assert first.got == [("open", "k"), {"epoch": 0}]
    assert second.got == [("open", "k"), {"epoch": 1}, {"epoch": 2}, "finished"]


def test_what_an_adapter_refuses_is_counted_and_holds_nothing_up(journal: Journal) -> None:
    adapter = Remembers([None, RefusedError("no such name")])
    fill(journal, 2)

    mark = deliver(journal, adapter)

    assert adapter.got == [("open", "k"), {"epoch": 1}, "finished"]
    assert (mark.refused, mark.offset) == (1, journal.size)


def test_an_adapter_that_confirms_at_the_end_gets_all_of_it_again(journal: Journal) -> None:
    fill(journal, 2)
    first = Remembers([None, None, None, *[OSError("lost")] * 999], late=True)
    assert deliver(journal, first).offset == 0

    second = Remembers(late=True)
    deliver(journal, second)

    assert second.got == [("open", "k"), {"epoch": 0}, {"epoch": 1}, "finished"]


def test_a_journal_sends_no_file_of_another_folder(journal: Journal, tmp_path: Path) -> None:
    (tmp_path.parent / "secret").write_text("not for others")
    journal.append("start", key="k")
    journal.append("file", path="../secret")
    journal.append("close", status="finished")

    mark = deliver(journal, Remembers())

    assert mark.refused == 1
    assert "outside the run" in mark.error


def test_a_run_whose_process_is_gone_is_closed_as_killed(journal: Journal) -> None:
    adapter = Remembers()
    fill(journal, 1, status=None)

    deliver(journal, adapter)

    assert adapter.got[-1] == "killed"


def test_a_run_that_another_one_follows_is_closed_as_killed(journal: Journal) -> None:
    fill(journal, 1, key="a", status=None)
    fill(journal, 1, key="b")
    adapter = Remembers()

    deliver(journal, adapter)

    assert adapter.got[2:4] == ["killed", ("open", "b")]


def test_what_a_resumed_run_appends_is_left_to_its_own_delivery(journal: Journal) -> None:
    fill(journal, 1)
    adapter = Remembers()
    loop = delivery.Delivery(journal, adapter)
    loop.end()
    fill(journal, 1, status=None)

    loop.deliver()

    assert adapter.got[-1] == "finished"
    assert journal.rows_left() == 1


def test_a_line_that_a_crash_cut_short_costs_no_other_line(journal: Journal) -> None:
    journal.append("start")
    with journal.path.open("ab") as file:
        file.write(b'{"kind": "row", "val')
    assert [record["kind"] for record, _ in journal.read()] == ["start"]

    journal.append("row")

    assert [record["kind"] for record, _ in journal.read()] == ["start", "row"]


def test_a_mark_that_cannot_be_read_means_that_nothing_has_arrived(journal: Journal) -> None:
    journal.append("row", values={})
    journal.set_mark(Mark(offset=10, note="x"))
    assert journal.mark().offset == 10

    (journal.state_dir / "mark.json").write_text("{")

    assert journal.mark() == Mark()
    assert journal.rows_left() == 1
