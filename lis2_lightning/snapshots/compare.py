"""Where two snapshots differ, as values and as text.

What a file says is not trusted: text from it is shown without control characters.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from lis2_lightning.snapshots.read import read_snapshot

Source = Mapping[str, Any] | str | os.PathLike[str]
_LONGEST: Final = 60  # of a value that is shown beside another
_WIDTH: Final = 80  # columns
_MISSING: Final = object()


@dataclass(frozen=True)
class Difference:
    """One place where two snapshots differ, with what each has there, shortened."""

    path: str  # the keys that lead there, joined by slashes
    left: str
    right: str
    extent: str = ""  # of two tensors of one kind: in how many values they differ, and how far

    @property
    def values(self) -> str:
        """Both values, or how far two tensors differ."""
        return f"{self.extent} ({self.left})" if self.extent else f"{self.left} | {self.right}"

    def __str__(self) -> str:
        return f"{self.path}: {self.values}"


def differences(left: Source, right: Source) -> list[Difference]:
    """Every place where two snapshots differ; a NaN equals a NaN.

    Either is a snapshot, a part of one, or its file.

    >>> before = {"w": torch.tensor([1.0, 2.0, float("nan")]), "epoch": 3}
    >>> after = {"w": torch.tensor([1.0, 2.5, float("nan")]), "lr": 0.1}
    >>> for difference in differences(before, after):
    ...     print(difference)
    w: 1 of 3 values differ, by at most 0.5 (float32 [3])
    epoch: 3 | missing
    lr: missing | 0.1
    """
    before, after = (s if isinstance(s, Mapping) else read_snapshot(s) for s in (left, right))
    return list(_differences(before, after, ()))


def _differences(left: Any, right: Any, keys: tuple[Any, ...]) -> Iterator[Difference]:
    before, after = _parts(left), _parts(right)
    path = printable("/".join(map(str, keys)))
    if before is not None and after is not None:
        for key in {**before, **after}:
            values = before.get(key, _MISSING), after.get(key, _MISSING)
            yield from _differences(*values, (*keys, key))
    elif isinstance(left, Tensor) and isinstance(right, Tensor) and _kind(left) == _kind(right):
        if extent := _extent(_numbers(left), _numbers(right)):
            yield Difference(path, _kind(left), _kind(right), extent)
    elif not _equal(left, right):
        yield Difference(path, _brief(left), _brief(right))


def _parts(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return value if isinstance(value, Mapping) else None


def _equal(left: Any, right: Any) -> bool:
    if type(left) is not type(right) or isinstance(left, Tensor):
        return False
    return bool(left == right) or (isinstance(left, float) and left != left and right != right)  # noqa: PLR0124


def _numbers(tensor: Tensor) -> Tensor:
    """The values where they can be compared: torch compares no 8-bit floats, for one."""
    dense = tensor.detach().cpu().to_dense()
    if dense.is_complex():
        return dense.to(torch.complex128)
    return dense.to(torch.float64) if dense.is_floating_point() else dense


def _extent(left: Tensor, right: Tensor) -> str:
    """How far two tensors of one kind differ; empty where they do not."""
    unequal = (left != right) & ~(left.isnan() & right.isnan())
    if not unequal.any():
        return ""
    left, right = left[unequal], right[unequal]
    apart = (left - right).abs() if left.is_complex() else (left.double() - right.double()).abs()
    finite = apart[~apart.isnan()]
    num_nan = len(apart) - len(finite)
    extent = f"{len(apart):,} of {unequal.numel():,} values differ"
    extent += f", by at most {float(finite.max()):.3g}" if len(finite) else ""
    return extent + (f", {num_nan:,} by being NaN in one alone" if num_nan else "")


def _kind(tensor: Tensor) -> str:
    return f"{dtype_name(tensor)} {list(tensor.shape)}"


def dtype_name(tensor: Tensor) -> str:
    """A tensor's type, such as ``float32``."""
    return str(tensor.dtype).removeprefix("torch.")


def _brief(value: Any) -> str:
    if value is _MISSING:
        return "missing"
    if isinstance(value, Tensor):
        return _kind(value)
    if isinstance(value, Mapping | list | tuple):
        return f"{len(value)} entries"
    text = printable(repr(value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def render_differences(items: Sequence[Difference], *, limit: int = 40) -> str:
    """The first differences as lines, and the number of the others.

    Values and settings come first, then weights, then what Lightning counts.
    """
    if not items:
        return "no difference"
    count = f"{len(items)} differences" if len(items) > 1 else "1 difference"
    shown = sorted(items, key=lambda item: (item.path.startswith("LIGHTNING/"), bool(item.extent)))
    lines = [count, *map(_lines, shown[:limit])]
    return "\n".join(lines + [f"and {len(items) - limit} more"] * (len(items) > limit))


def _lines(item: Difference) -> str:
    line = f"{item.path}  {item.values}"
    return line if len(line) <= _WIDTH else f"{item.path}\n    {item.values}"


def printable(text: str) -> str:
    """Text from a file without what a terminal would obey.

    >>> printable("a name" + chr(27))
    'a name<1b>'
    """
    return "".join(c if c.isprintable() else f"<{ord(c):x}>" for c in text)
