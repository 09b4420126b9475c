"""The zip file that a snapshot is: its layout, and its checksums, which torch never compares.

torch's reader takes entries that overlap or are compressed. Here these are refused, so that what
is checked is what torch reads.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

PICKLE: Final = "data.pkl"
_MAX_ENTRIES: Final = 100_000  # a network of 25,000 parameter tensors under Adam
_MAX_DIRECTORY: Final = 16_000_000  # bytes
_CHUNK: Final = 1 << 18  # fits a processor's cache
_PART: Final = r"\.?[\w-][\w.-]*"
_NAME: Final = re.compile(
    rf"((?!\.\./)[^/\\\0]+)/((?!constants\.pkl){_PART}(?:/{_PART})*)", re.ASCII
)
_FLAGS: Final = 0x0808  # sizes after the bytes; a name in UTF-8


class Refusal(Exception):  # noqa: N818 - becomes a SnapshotError as soon as the file is named
    """What is wrong with a file: the rest of a sentence that begins with its name."""


class Entry(NamedTuple):
    """Where an entry's bytes are in the file, and their checksum."""

    name: str
    start: int
    size: int
    checksum: int


def read_layout(file: io.FileIO) -> dict[str, Entry]:
    """The entries of a snapshot by name, without the folder that all of them are in."""
    if not _read_at(file, 0, 4).startswith(b"PK\x03\x04"):
        raise Refusal("is no snapshot: it is no zip file as torch.save writes it")
    end = _directory_start(file)
    try:
        with zipfile.ZipFile(file) as archive:
            infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise Refusal(f"is damaged: {error}") from error
    entries: dict[str, Entry] = {}
    folders, names = set(), set()
    for info, limit in zip(infos, [*(i.header_offset for i in infos[1:]), end], strict=True):
        match = _NAME.fullmatch(info.orig_filename)
        if match is None:
            raise Refusal(f"holds an entry {info.orig_filename[:60]!r}, which torch never writes")
        folder, name = match.groups()
        if name.lower() in names:  # torch finds entries in either case
            raise Refusal(f"holds the entry {name} twice")
        entries[name] = Entry(name, _start(file, info, limit), info.file_size, info.CRC)
        folders.add(folder)
        names.add(name.lower())
    if len(folders) != 1 or infos[0].header_offset:
        raise Refusal("is damaged: its entries are not in one folder")
    return entries


def read_entry(file: io.FileIO, entry: Entry) -> bytes:
    """One entry's bytes, compared with their checksum."""
    content = _read_at(file, entry.start, entry.size)
    _check(zlib.crc32(content), entry)
    return content


class CheckedFile(io.FileIO):
    """A snapshot's file that compares the checksum of every entry that is read from it.

    The bytes that are checked are the very bytes that are used, and are read only once.
    """

    def __init__(self, file: io.FileIO, entries: Mapping[str, Entry]) -> None:
        super().__init__(file.fileno(), closefd=False)
        self._unread = {entry.start: entry for entry in entries.values() if entry.size}
        self._damaged: list[Refusal] = []
        self.seek(0)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as the file goes."""
        view = memoryview(buffer).cast("B")
        entry = self._unread.get(self.tell())
        checksum = done = 0
        while size := super().readinto(view[done : done + _CHUNK]):
            checksum = zlib.crc32(view[done : done + size], checksum)
            done += size
        if entry is not None and entry.size == done:
            del self._unread[entry.start]
            try:
                _check(checksum, entry)
            except Refusal as error:  # torch, which calls this, would hide it
                self._damaged.append(error)
        return done

    def finish(self) -> None:
        """Compare the checksums of whatever has not been read; raise what was found before."""
        buffer = memoryview(bytearray(_CHUNK))
        for entry in self._unread.values():
            self.seek(entry.start)
            checksum, rest = 0, entry.size
            while rest and (size := super().readinto(buffer[:rest])):
                checksum, rest = zlib.crc32(buffer[:size], checksum), rest - size
            _check(checksum, entry)
        if self._damaged:
            raise self._damaged[0]


def _check(checksum: int, entry: Entry) -> None:
    if checksum != entry.checksum and not entry.checksum:
        raise Refusal("was written without checksums: write it again with torch's crc32 option on")
    if checksum != entry.checksum:
        raise Refusal(f"is damaged: the checksum of {entry.name} is wrong")


def _read_at(file: io.FileIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _directory_start(file: io.FileIO) -> int:
    """Where the directory begins, which must fill the rest of the file, and be of a sane size."""
    length = file.seek(0, 2)
    tail = _read_at(file, max(length - 98, 0), 98)
    if tail[-22:-18] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        raise Refusal("is cut short: the end of the zip file is missing")
    size, start = struct.unpack_from("<2L", tail, len(tail) - 10)
    end = length - 22
    if tail[-42:-38] == b"PK\x06\x07":  # the numbers of large files
        size, start = struct.unpack_from("<2Q", tail, 40)
        end = length - 98
    if start + size != end:
        raise Refusal("is damaged: its directory is not where its end says")
    count = _read_at(file, start, size).count(b"PK\x01\x02") if size <= _MAX_DIRECTORY else None
    if not count or count > _MAX_ENTRIES:
        raise Refusal(f"is no snapshot: it must hold from 1 to {_MAX_ENTRIES} entries")
    return int(start)


def _start(file: io.FileIO, info: zipfile.ZipInfo, limit: int) -> int:
    """Where an entry's bytes begin; they must end before the next entry begins."""
    if info.compress_type or info.compress_size != info.file_size or info.flag_bits & ~_FLAGS:
        raise Refusal(f"holds {info.filename} compressed or encrypted, which torch never writes")
    header = _read_at(file, info.header_offset, 30)
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise Refusal(f"is damaged: {info.filename} does not begin where the directory says")
    start: int = info.header_offset + 30 + sum(struct.unpack_from("<2H", header, 26))
    if start + info.file_size > limit:
        raise Refusal(f"is damaged: {info.filename} overlaps the next entry")
    return start
