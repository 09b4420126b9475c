"""The directory at the end of a zip file, taken to the letter."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, Final, NamedTuple

MAX_ENTRIES: Final = 100_000  # a network of 25,000 parameter tensors under Adam
_MAX_BYTES: Final = 16_000_000
_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_LINE: Final = struct.Struct("<4s6H3L5H2L")
_EXTRA: Final = struct.Struct("<2H")
_UNTOLD: Final = 0xFFFFFFFF  # what stands for a number that does not fit
_MANY: Final = 0xFFFF
DESCRIPTOR: Final = 0x0008
_UTF8: Final = 0x0800


class Refusal(Exception):  # noqa: N818 - becomes a SnapshotError as soon as the file is named
    """What is wrong with a file: the rest of a sentence that begins with its name."""


class Line(NamedTuple):
    """What the directory says of an entry: its name, flags, place, size and checksum."""

    name: bytes
    flags: int
    start: int
    size: int
    checksum: int


def read_bytes(file: IO[bytes], start: int, size: int) -> bytes:
    """Some bytes of a file, fewer where it ends."""
    file.seek(start)
    return file.read(size)


def shown(name: bytes) -> str:
    """A name as it may stand in a message, whatever it is."""
    return repr(name[:60].decode("utf-8", "replace"))


def read_directory(file: IO[bytes]) -> tuple[list[Line], int]:
    """Read the directory of a zip file that ends with it.

    Args:
        file: Open for reading.

    Returns:
        What it says of the entries, in the order of their places, and where it begins.

    Raises:
        Refusal: It is damaged, or says what torch never does.
    """
    place = file.seek(0, 2) - _END.size
    end = read_bytes(file, max(place, 0), _END.size)
    if len(end) < _END.size or not end.startswith(b"PK\x05\x06"):
        raise Refusal("is no whole snapshot: its end is missing")
    _, disk, first_disk, here, count, length, start, comment = _END.unpack(end)
    if larger := _larger_end(file, place):
        place, *told = larger
        if (count, length, start) != _as_they_fit(*told):
            raise Refusal("is damaged: its end tells two sizes")
        count, length, start = told
    if disk or first_disk or comment or here != min(count, _MANY) or start + length != place:
        raise Refusal("is damaged: its directory is not where its end says")
    if not 0 < count <= MAX_ENTRIES or length > _MAX_BYTES:
        raise Refusal(f"holds {count} entries: a snapshot holds from 1 to {MAX_ENTRIES}")
    lines = sorted(_lines(read_bytes(file, start, length), count), key=lambda line: line.start)
    return lines, start


def _larger_end(file: IO[bytes], place: int) -> tuple[int, int, int, int] | None:
    """Where the end for large files lies, and the count, length and start that it tells."""
    locator = place - _LOCATOR.size
    start = locator - _END64.size
    if start < 0:
        return None
    signature, disk, told, disks = _LOCATOR.unpack(read_bytes(file, locator, _LOCATOR.size))
    if signature != b"PK\x06\x07":
        return None
    end = _END64.unpack(read_bytes(file, start, _END64.size))
    expected = (b"PK\x06\x06", _END64.size - 12, 0, 0)
    is_as_written = (end[0], end[1], end[4], end[5]) == expected and end[6] == end[7]
    if not is_as_written or (disk, disks) != (0, 1) or told != start:
        raise Refusal("is damaged: its end is not as torch writes it")
    return start, end[7], end[8], end[9]


def _as_they_fit(count: int, length: int, start: int) -> tuple[int, int, int]:
    return min(count, _MANY), min(length, _UNTOLD), min(start, _UNTOLD)


def _lines(directory: bytes, count: int) -> Iterator[Line]:
    place = 0
    for _ in range(count):
        if len(directory) - place < _LINE.size or directory[place : place + 4] != b"PK\x01\x02":
            raise Refusal("is damaged: its directory tells of fewer entries than its end")
        fields = _LINE.unpack_from(directory, place)
        flags, method, checksum, packed, size = fields[3], fields[4], *fields[7:10]
        name_end = place + _LINE.size + fields[10]
        name = directory[place + _LINE.size : name_end]
        extra = directory[name_end : name_end + fields[11]]
        place = name_end + fields[11] + fields[12]
        if method or packed != size or flags & ~(_UTF8 | DESCRIPTOR) or fields[13]:
            raise Refusal(f"holds {shown(name)} compressed or encrypted: no snapshot does")
        size, start = _large_numbers(extra, size, fields[16])
        yield Line(name, flags, start, size, checksum)
    if place != len(directory):
        raise Refusal("is damaged: its directory tells of more entries than its end")


def _large_numbers(extra: bytes, size: int, start: int) -> tuple[int, int]:
    """Size and place, from the field for large numbers where they do not fit."""
    if _UNTOLD not in {size, start}:
        return size, start
    kind, length = _EXTRA.unpack_from(extra) if len(extra) >= _EXTRA.size else (0, 0)
    wanted = 2 * (size == _UNTOLD) + (start == _UNTOLD)  # with the packed size, which is the same
    if kind != 1 or length != 8 * wanted or len(extra) < _EXTRA.size + length:
        raise Refusal("is damaged: a size of its directory is missing")
    told = struct.unpack_from(f"<{wanted}Q", extra, _EXTRA.size)
    if size == _UNTOLD and told[0] != told[1]:
        raise Refusal("holds an entry that is compressed: no snapshot does")
    return told[0] if size == _UNTOLD else size, told[-1] if start == _UNTOLD else start
