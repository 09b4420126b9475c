"""Delivers what did not arrive while a run was going on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lis2_lightning.base.lock import lock
from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.courier import Courier
from lis2_lightning.trackers.journal import Journal
from lis2_lightning.trackers.limits import Limits
from lis2_lightning.trackers.service import make_service
from lis2_lightning.trackers.worker import held


@dataclass(frozen=True)
class Delivery:
    """What became of one tracker's journal.

    Args:
        tracker: Its name.
        rows: How many rows have arrived now.
        left: How many rows have not.
        refused: How many records the service does not take.
        complete: Whether everything has arrived: files and the run's status, too.
        told: What went wrong, or what a user should know.
    """

    tracker: str
    rows: int
    left: int
    refused: int
    complete: bool
    told: str


def sync(run_dir: Path) -> list[Delivery]:
    """Deliver what trackers have not got yet; may be called again and again.

    Args:
        run_dir: The folder of a run that is not going on.

    Raises:
        ConfigError: There is no such folder, it has no trackers, or its run is going on.
    """
    paths = sorted((run_dir / "trackers").glob("*.jsonl"))
    if not paths:
        raise ConfigError(f"{run_dir} holds no rows of a tracker: name the folder of a run")
    with lock(run_dir):
        return [_delivered(Journal(path), Limits()) for path in paths]


def _delivered(journal: Journal, limits: Limits) -> Delivery:
    with held(journal, limits.linger_s):
        before = _rows(journal)
        mark = Courier(
            journal, partial(make_service, journal.run_dir), limits, is_over=lambda: True
        ).run()
        left = _rows(journal)
    return Delivery(
        tracker=journal.name,
        rows=before - left,
        left=left,
        refused=mark.refused,
        complete=mark.phase == "done",
        told=mark.error or mark.note,
    )


def _rows(journal: Journal) -> int:
    return sum(record["kind"] == "row" for record in journal.undelivered())


def table(deliveries: list[Delivery]) -> str:
    """What a user reads of it, a line for each tracker."""
    lines = []
    for one in deliveries:
        told = f" ({one.told})" if one.told else ""
        refused = f", {one.refused} records refused" if one.refused else ""
        lines.append(f"{one.tracker}: {one.rows} rows delivered, {one.left} left{refused}{told}")
    return "\n".join(lines)
