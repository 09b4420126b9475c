"""What each benchmark leaves for the table of ``make bench``: one ratio a row, with what is wanted.

A script prints its own figures; where the variable ``LIS2_BENCH`` names a file, it adds its rows
there as lines of JSON.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Row:
    """Ours beside the other side, measured in the same run.

    Args:
        what: What is measured.
        ours: Our median.
        peer: The other side.
        theirs: Its median.
        unit: Of both.
        ratios: Ours over theirs, round by round.
        wanted: The limit of the ratio.
        larger_is_better: Whether the ratio should be at least, not at most, what is wanted.
    """

    what: str
    ours: float
    peer: str
    theirs: float
    unit: str
    ratios: Sequence[float]
    wanted: float
    larger_is_better: bool = False

    @classmethod
    def of(
        cls,
        what: str,
        ours: Sequence[float],
        peer: str,
        theirs: Sequence[float],
        *,
        unit: str,
        wanted: float,
        larger_is_better: bool = False,
    ) -> Row:
        """Of the values of both sides, round by round."""
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        return cls(
            what=what,
            ours=statistics.median(ours),
            peer=peer,
            theirs=statistics.median(theirs),
            unit=unit,
            ratios=ratios,
            wanted=wanted,
            larger_is_better=larger_is_better,
        )

    @property
    def spread(self) -> str:
        """The median of the rounds' ratios, the least and the greatest."""
        return f"{self.ratio:.2f} ({min(self.ratios):.2f} to {max(self.ratios):.2f})"

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def is_met(self) -> bool:
        """Whether the median is within what is wanted."""
        met = self.ratio >= self.wanted if self.larger_is_better else self.ratio <= self.wanted
        return bool(met)


def add(*rows: Row) -> None:
    """Leave rows for the table."""
    if path := os.environ.get("LIS2_BENCH"):
        with Path(path).open("a") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)


def read(path: Path) -> list[Row]:
    """The rows that scripts have left."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Row(**json.loads(line)) for line in lines]


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| what | ours | the other side | ratio (spread) | wanted | met |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        limit = f"{'≥' if row.larger_is_better else '≤'} {row.wanted:g}"
        lines.append(
            f"| {row.what} | {row.ours:.4g} {row.unit} | {row.peer}: {row.theirs:.4g} {row.unit} | "
            f"{row.spread} | {limit} | {'yes' if row.is_met else 'no'} |"
        )
    return "\n".join(lines)
