"""Where two snapshots differ, as values and as text.

What a file says is not trusted: text from it is shown without control characters.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from lis2_lightning.snapshots.read import read_snapshot

Source = Mapping[str, Any] | str | os.PathLike[str]
_LONGEST: Final = 60  # of a value that is shown beside another
_MISSING: Final = object()


@dataclass(frozen=True)
class Difference:
    """One place where two snapshots differ.

    Args:
        path: The keys that lead there, joined by slashes.
        left: What the first has there, shortened.
        right: What the second has.
        extent: For two tensors of one kind, in how many values they differ and how far.
    """

    path: str
    left: str
    right: str
    extent: str = ""

    def __str__(self) -> str:
        if self.extent:
            return f"{self.path}: {self.extent} ({self.left})"
        return f"{self.path}: {self.left} | {self.right}"


def differences(left: Source, right: Source) -> list[Difference]:
    """Every place where two snapshots differ; a NaN equals a NaN.

    Args:
        left: A snapshot, a part of one, or its file.
        right: The other.

    Raises:
        SnapshotError: A file is missing, damaged or no snapshot.

    >>> one = {"w": torch.tensor([1.0, 2.0, float("nan")]), "epoch": 3}
    >>> for found in differences(one, {"w": torch.tensor([1.0, 2.5, float("nan")]), "lr": 0.1}):
    ...     print(found)
    w: 1 of 3 values differ, by at most 0.5 (float32 [3])
    epoch: 3 | missing
    lr: missing | 0.1
    """
    one, other = (s if isinstance(s, Mapping) else read_snapshot(s) for s in (left, right))
    return list(_compared(one, other, ()))


def _compared(left: Any, right: Any, keys: tuple[Any, ...]) -> Iterator[Difference]:
    one, other = _parts(left), _parts(right)
    if one is not None and other is not None:
        for key in dict.fromkeys([*one, *other]):
            yield from _compared(one.get(key, _MISSING), other.get(key, _MISSING), (*keys, key))
    elif not _same(left, right):
        path = printable("/".join(str(key) for key in keys))
        yield Difference(path, _brief(left), _brief(right), _extent(left, right))


def _parts(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return value if isinstance(value, Mapping) else None


def _same(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, Tensor):
        return _kind(left) == _kind(right) and not bool(_unequal(left, right).any())
    both_nan = isinstance(left, float) and math.isnan(left) and math.isnan(right)
    return both_nan or bool(left == right)


def _unequal(left: Tensor, right: Tensor) -> Tensor:
    one, other = _numbers(left), _numbers(right)
    return (one != other) & ~(one.isnan() & other.isnan())


def _numbers(tensor: Tensor) -> Tensor:
    """The values where they can be compared: torch compares no 8-bit floats, for one."""
    dense = tensor.detach().cpu().to_dense()
    if dense.is_complex():
        return dense.to(torch.complex128)
    return dense.to(torch.float64) if dense.is_floating_point() else dense


def _extent(left: Any, right: Any) -> str:
    """How far two tensors of one kind differ."""
    if not (isinstance(left, Tensor) and isinstance(right, Tensor) and _kind(left) == _kind(right)):
        return ""
    unequal = _unequal(left, right)
    one, other = (_numbers(tensor)[unequal] for tensor in (left, right))
    apart = (one - other).abs() if one.is_complex() else (one.double() - other.double()).abs()
    finite = apart[~apart.isnan()]
    told = f"{len(apart):,} of {unequal.numel():,} values differ"
    if len(finite):
        told += f", by at most {float(finite.max()):.3g}"
    nan = len(apart) - len(finite)
    return told + (f", {nan:,} by being NaN in one alone" if nan else "")


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


def render_differences(found: Sequence[Difference], *, limit: int = 40) -> str:
    """Differences as aligned lines.

    Args:
        found: What :func:`differences` gives.
        limit: How many are shown; of the others their number.
    """
    if not found:
        return "no difference"
    shown = found[:limit]
    width = max(len(difference.path) for difference in shown) + 2
    lines = [f"{d.path:<{width}}{str(d).removeprefix(f'{d.path}: ')}" for d in shown]
    if len(found) > limit:
        lines.append(f"and {len(found) - limit} more")
    return "\n".join([f"{len(found)} differences" if len(found) > 1 else "1 difference", *lines])


def printable(text: str) -> str:
    """Text from a file without what a terminal would obey.

    >>> printable("a name" + chr(27))
    'a name<1b>'
    """
    return "".join(c if c.isprintable() else f"<{ord(c):x}>" for c in text)
