"""The zip file that a snapshot is: its layout taken to the letter, its checksums compared.

torch reads a zip file leniently: it takes entries that lie over one another or were compressed,
and never compares a checksum. Here every byte must belong to exactly one entry or to the directory
at the end, so that nothing but the one thing that is checked can be meant.
"""

from __future__ import annotations

import re
import struct
import sys
import zlib
from collections.abc import Mapping
from itertools import pairwise
from typing import IO, Any, Final, NamedTuple, cast

from lis2_lightning.snapshots.directory import (
    DESCRIPTOR,
    Line,
    Refusal,
    read_bytes,
    read_directory,
    shown,
)

PICKLE: Final = "data.pkl"
STORAGE: Final = "data/"
_HEAD: Final = struct.Struct("<4s5H3L2H")
_STEP: Final = 1 << 18  # fits a processor's cache, so that each byte is fetched once
_NAME: Final = re.compile(
    r"([^/\\\0]+)/(data\.pkl|data/\d{1,9}|version|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/serialization_id)"
)
_OLD_FORMAT: Final = b"\x80\x02\x8a\nl\xfc\x9cF"  # the number that older files began with


class Entry(NamedTuple):
    """Where an entry's bytes lie in the file, and their checksum."""

    start: int
    size: int
    checksum: int


def read_layout(file: IO[bytes]) -> dict[str, Entry]:
    """Find the entries of a snapshot, and refuse whatever torch would not have written.

    Args:
        file: Open for reading, best without a buffer.

    Returns:
        The entries by name, without the folder that all of them lie in.

    Raises:
        Refusal: The file is no snapshot, was cut short, or holds what none holds.
    """
    _refuse_other_formats(read_bytes(file, 0, 16))
    lines, end = read_directory(file)
    entries: dict[str, Entry] = {}
    folders = set()
    for line, (_, following) in zip(
        lines, pairwise([*(line.start for line in lines), end]), strict=True
    ):
        found = _NAME.fullmatch(line.name.decode("utf-8", "replace"))
        if found is None:
            raise Refusal(f"holds an entry named {shown(line.name)}, which no snapshot holds")
        folder, name = found.groups()
        if name in entries:
            raise Refusal(f"holds the entry {name} twice: a snapshot holds each once")
        folders.add(folder)
        entries[name] = Entry(_start(file, line, following), line.size, line.checksum)
    if len(folders) != 1 or lines[0].start != 0:
        raise Refusal("is damaged: its entries do not lie in one folder from its start on")
    _check_small_entries(file, entries)
    return entries


def check_sums(file: IO[bytes], entries: Mapping[str, Entry]) -> None:
    """Compare the checksums of entries; memory stays flat.

    Args:
        file: Open for reading.
        entries: Which ones.

    Raises:
        Refusal: One is wrong, or the writer left them out.
    """
    buffer = memoryview(bytearray(_STEP))
    for name, entry in entries.items():
        file.seek(entry.start)
        found, left = 0, entry.size
        while left:
            part = buffer[: min(left, _STEP)]
            fill(file, part, name)
            found = zlib.crc32(part, found)
            left -= len(part)
        check_sum(found, name, entry)


def check_sum(found: int, name: str, entry: Entry) -> None:
    """Compare a checksum with the one that the file tells.

    Raises:
        Refusal: They differ.
    """
    if found == entry.checksum:
        return
    if entry.checksum == 0:
        raise Refusal("was written without checksums: write it again with torch's crc32 option on")
    raise Refusal(f"is damaged: the checksum of {name} is wrong")


def fill(file: IO[bytes], buffer: memoryview, name: str) -> None:
    """Read as many bytes as the buffer has room for.

    Raises:
        Refusal: The file ends before.
    """
    done = 0
    while done < len(buffer):
        # one call gives two gigabytes at most
        num_bytes = cast("Any", file).readinto(buffer[done:])
        if not num_bytes:
            raise Refusal(f"is damaged: it ends inside {name}")
        done += num_bytes


def read_entry(file: IO[bytes], entries: Mapping[str, Entry], name: str) -> bytes:
    """One entry's bytes, after comparing its checksum.

    Raises:
        Refusal: It is not there, or its checksum is wrong.
    """
    if name not in entries:
        raise Refusal(f"is no snapshot: it holds no {name}")
    content = read_bytes(file, entries[name].start, entries[name].size)
    check_sum(zlib.crc32(content), name, entries[name])
    return content


def _refuse_other_formats(head: bytes) -> None:
    if not head:
        raise Refusal("is no whole snapshot: it is empty")
    if head.startswith(_OLD_FORMAT):
        raise Refusal(
            "is in the format of torch before 1.6: if you trust it, write it again with "
            "torch.save(torch.load(old, weights_only=False), new)"
        )
    if not head.startswith(b"PK\x03\x04"):
        raise Refusal("is no snapshot: it is no zip file as torch.save writes it")


def _start(file: IO[bytes], line: Line, following: int) -> int:
    """Where the entry's bytes begin; they must end where the next entry begins."""
    head = read_bytes(file, line.start, _HEAD.size + len(line.name))
    if len(head) < _HEAD.size or not head.startswith(b"PK\x03\x04"):
        raise Refusal(f"is damaged: {shown(line.name)} does not begin where it should")
    fields = _HEAD.unpack_from(head)
    method, name_length, extra_length = int(fields[3]), int(fields[9]), int(fields[10])
    if head[_HEAD.size :] != line.name or name_length != len(line.name) or method:
        raise Refusal(f"is damaged: {shown(line.name)} is told of in two ways")
    start = line.start + _HEAD.size + name_length + extra_length
    # after the bytes, checksum and sizes may stand once more
    gaps = {16, 24} if line.flags & DESCRIPTOR else {0}
    if following - start - line.size not in gaps:
        raise Refusal(f"is damaged: {shown(line.name)} does not end where it should")
    return start


def _check_small_entries(file: IO[bytes], entries: Mapping[str, Entry]) -> None:
    """Refuse what torch's reader would stumble over besides the pickle."""
    order = sys.byteorder.encode()
    for name, pattern in (("version", rb"[0-9]{1,3}\n?"), ("byteorder", order)):
        if name in entries and not re.fullmatch(pattern, _small(file, entries[name])):
            raise Refusal(f"cannot be read here: its {name} is not one that this machine reads")
    if "version" not in entries:
        raise Refusal("is no snapshot: it holds no version")


def _small(file: IO[bytes], entry: Entry) -> bytes:
    return read_bytes(file, entry.start, min(entry.size, 100))
