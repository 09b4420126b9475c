"""A snapshot judged before anything of it is used: its layout, its checksums, what it would build.

Nothing that a file names is called or imported, so a file from anywhere may be judged. What is
found is a description: plain values as they are, and a note of place and shape for each tensor.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from lis2_lightning.errors import SnapshotError
from lis2_lightning.snapshots.archive import (
    PICKLE,
    STORAGE,
    Entry,
    check_sums,
    read_entry,
    read_layout,
)
from lis2_lightning.snapshots.directory import Refusal
from lis2_lightning.snapshots.foreign import FOREIGN
from lis2_lightning.snapshots.machine import Machine
from lis2_lightning.snapshots.notes import PLAIN, Ordered, Sparse, Stub, Tensor
from lis2_lightning.snapshots.pickled import walk

_MAX_DEPTH: Final = 100
_LEAVES: Final = frozenset({str, int, float, bool, bytes, type(None), Tensor, Counter})
_NESTED: Final = "cannot be read safely: its values are nested too often or too deep"
_MAKERS: Final = {**PLAIN, **FOREIGN}


@dataclass(frozen=True)
class Scan:
    """What a file holds, by its own account.

    Args:
        content: What its pickle would build, with notes in place of tensors.
        foreign: The names of other programs' classes that it holds; empty for our own files.
        entries: Where the bytes of its tensors lie.
    """

    content: Any
    foreign: tuple[str, ...]
    entries: Mapping[str, Entry]


def check_archive(path: str | os.PathLike[str]) -> Scan:
    """Judge a whole file: its layout, every checksum, and what it would build.

    Memory stays flat, whatever the size of its tensors.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        SnapshotError: It is missing, damaged, or holds what no snapshot holds.
    """
    with named(path), opened(path) as file:
        found = scan(file)
        check_sums(file, found.entries)
    return found


def scan(file: IO[bytes]) -> Scan:
    """Judge a file but for the bytes of its tensors, whose checksums are not compared.

    Args:
        file: Open for reading.

    Returns:
        What it holds.

    Raises:
        Refusal: It is damaged, or holds what no snapshot holds.
    """
    entries = read_layout(file)
    sizes = {
        name.removeprefix(STORAGE): entry.size
        for name, entry in entries.items()
        if name.startswith(STORAGE)
    }
    machine = Machine(read_entry(file, entries, PICKLE), _MAKERS, sizes)
    content = walk(machine)
    weight, _ = _weigh(content, 0, {})
    if weight > machine.max_steps:
        raise Refusal(_NESTED)
    foreign = tuple(path for path in machine.names if path in FOREIGN)
    return Scan(content, foreign, entries)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a snapshot for reading, without a buffer: its parts are read whole.

    Yields:
        The file.

    Raises:
        SnapshotError: There is none.
    """
    if not Path(path).is_file():
        raise SnapshotError(f"there is no snapshot {path}: check the path")
    with Path(path).open("rb", buffering=0) as file:
        yield file


@contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever goes wrong with a file into one sentence that begins with its name.

    Yields:
        Nothing.

    Raises:
        SnapshotError: Something went wrong.
    """
    try:
        yield
    except SnapshotError:
        raise
    except Refusal as error:
        raise SnapshotError(f"{path} {error}") from error
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch raises a dozen kinds where a file is not what it expects
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise SnapshotError(f"{path} cannot be read safely: {told}") from error


def _weigh(value: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values lie in a value, those it holds twice counted twice, and how deep they lie.

    A few bytes can hold a list that holds another list ten times, and so on: nothing that walks
    through such a value would come to an end.
    """
    if type(value) in _LEAVES or not value:
        return 1, 0
    if depth > _MAX_DEPTH:
        raise Refusal(_NESTED)
    inner = _inside(value)
    if id(value) not in known:
        known[id(value)] = 0, 0
        weight, height = 1, 0
        for item in inner:
            if type(item) in _LEAVES or not item:
                weight += 1
            else:
                below = _weigh(item, depth + 1, known)
                weight, height = weight + below[0], max(height, below[1] + 1)
        known[id(value)] = weight, height
    weight, height = known[id(value)]
    if not weight:
        raise Refusal("cannot be read safely: it holds a value that holds itself")
    if depth + height > _MAX_DEPTH:
        raise Refusal(_NESTED)
    return weight, height


def _inside(value: Any) -> Any:
    if type(value) in {dict, Ordered, Stub}:
        return value.values()
    if type(value) in {list, tuple}:
        return value
    if type(value) is Sparse:
        return [part for part in value.parts if type(part) in {Tensor, tuple}]
    raise Refusal(f"cannot be read safely: it holds a {type(value).__name__} that is no value")
