"""The courier: in order, with retries, each record marked when it has arrived."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lis2_lightning.trackers.courier import Courier
from lis2_lightning.trackers.journal import Journal, Mark
from lis2_lightning.trackers.limits import Limits
from lis2_lightning.trackers.service import RefusedError, Service, Status

QUICK = Limits(retry_s=0.05, backoff_s=0.001, longest_pause_s=0.002, poll_s=0.001)


class Remembers(Service):
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

    def open(self, start: Mapping[str, Any]) -> str:
        self._get(("open", start["key"], start["run_id"]))
        return f"id of {start['key']}"

    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        self._get(dict(values))

    def close(self, status: Status) -> str:
        self._get(status)
        return "a note"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "trackers" / "one.jsonl")


def fill(journal: Journal, rows: int, *, key: str = "k", status: str | None = "finished") -> None:
    journal.append("start", key=key, run_id="")
    for epoch in range(rows):
        journal.append("row", values={"epoch": epoch}, step=epoch)
    if status:
        journal.append("close", status=status)


def deliver(journal: Journal, service: Service, *, is_over: bool = False) -> Mark:
    return Courier(journal, lambda _: service, QUICK, lambda: is_over).run()


def test_a_run_arrives_from_its_start_to_its_status(journal: Journal) -> None:
    service = Remembers()
    fill(journal, 2)

    mark = deliver(journal, service)

    assert service.got == [("open", "k", ""), {"epoch": 0}, {"epoch": 1}, "finished"]
    assert (mark.phase, mark.run_id, mark.note) == ("done", "id of k", "a note")
    assert list(journal.undelivered()) == []


def test_a_call_that_fails_is_tried_again_over_a_new_connection(journal: Journal) -> None:
    service = Remembers([None, None, OSError("down")])
    fill(journal, 2)

    deliver(journal, service)

    assert service.got == [
        ("open", "k", ""),
        {"epoch": 0},
        ("open", "k", "id of k"),
        {"epoch": 1},
        "finished",
    ]


def test_a_service_that_fails_for_good_leaves_every_row_in_the_journal(journal: Journal) -> None:
    fill(journal, 3)

    mark = deliver(journal, Remembers([OSError("down")] * 999))

    assert (mark.phase, mark.error) == ("off", "OSError: down")
    assert sum(record["kind"] == "row" for record in journal.undelivered()) == 3


def test_a_later_delivery_brings_only_what_is_missing(journal: Journal) -> None:
    fill(journal, 3)
    first, second = Remembers([None, None, *[OSError()] * 999]), Remembers()
    deliver(journal, first)

    deliver(journal, second, is_over=True)

    assert first.got == [("open", "k", ""), {"epoch": 0}]
    assert second.got == [("open", "k", "id of k"), {"epoch": 1}, {"epoch": 2}, "finished"]


def test_what_a_service_refuses_is_counted_and_holds_nothing_up(journal: Journal) -> None:
    service = Remembers([None, RefusedError("no such name")])
    fill(journal, 2)

    mark = deliver(journal, service)

    assert service.got == [("open", "k", ""), {"epoch": 1}, "finished"]
    assert (mark.refused, mark.phase) == (1, "done")


def test_a_service_that_confirms_at_the_end_gets_all_of_it_again(journal: Journal) -> None:
    fill(journal, 2)
    first = Remembers([None, None, None, *[OSError("lost")] * 999], late=True)
    assert deliver(journal, first).phase == "off"

    second = Remembers(late=True)
    deliver(journal, second)

    assert second.got == [("open", "k", "id of k"), {"epoch": 0}, {"epoch": 1}, "finished"]


def test_a_journal_hands_over_no_file_of_another_folder(journal: Journal, tmp_path: Path) -> None:
    (tmp_path.parent / "secret").write_text("not for others")
    journal.append("start", key="k", run_id="")
    journal.append("artifact", path="../secret")
    journal.append("close", status="finished")

    mark = deliver(journal, Remembers())

    assert mark.refused == 1
    assert "no file of this run" in mark.error


def test_a_run_whose_process_is_gone_is_closed_as_killed(journal: Journal) -> None:
    service = Remembers()
    fill(journal, 1, status=None)

    deliver(journal, service, is_over=True)

    assert service.got[-1] == "killed"


def test_a_resumed_run_goes_on_under_its_id(journal: Journal) -> None:
    fill(journal, 1, status="failed")
    fill(journal, 1)
    service = Remembers()

    deliver(journal, service, is_over=True)

    assert [got for got in service.got if isinstance(got, tuple)] == [
        ("open", "k", ""),
        ("open", "k", "id of k"),
    ]


def test_another_run_in_the_same_journal_gets_an_id_of_its_own(journal: Journal) -> None:
    fill(journal, 1, key="a")
    fill(journal, 1, key="b")
    service = Remembers()

    mark = deliver(journal, service, is_over=True)

    assert ("open", "b", "") in service.got
    assert mark.run_id == "id of b"
