"""Files are judged before they are used: their layout, their checksums, what they ask for."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lis2_lightning import SnapshotError
from lis2_lightning.snapshots import peek, read_snapshot, write_snapshot
from lis2_lightning.snapshots.outline import Outline

Make = Callable[..., Any]
Patch = pytest.MonkeyPatch
MEGABYTE = 1_000_000


Outlined = Callable[[Path], Outline]


def test_the_layout_is_the_one_that_python_reads(whole: Path, outlined: Outlined) -> None:
    entries = outlined(whole).entries
    content = whole.read_bytes()
    with zipfile.ZipFile(whole) as reference:
        listed = {info.filename.partition("/")[2]: info for info in reference.infolist()}
        assert entries.keys() == listed.keys()
        for name, entry in entries.items():
            info = listed[name]
            assert (entry.size, entry.checksum) == (info.file_size, info.CRC)
            assert content[entry.start :][: entry.size] == reference.read(info)


def test_numbers_too_large_for_32_bits_are_read(
    archive: Make, pickled: Make, outlined: Outlined, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)  # then Python writes them as large ones
    made = archive(pickled({"a": 1}), {"0": bytes(40)})
    outline = outlined(made.write(tmp_path / "large.pt"))
    assert outline.content == {"a": 1}
    assert outline.entries["data/0"].size == 40


def test_memory_stays_flat_whatever_the_size_of_the_tensors(snapshot: Make, tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    write_snapshot({**snapshot(), "EXTRA": torch.zeros(5_000_000)}, path)
    for reader in (peek, read_snapshot):  # besides the tensors, which are torch's own
        assert peak(path, reader) < 2 * MEGABYTE


def test_each_byte_is_read_once_and_compared_with_its_checksum(
    snapshot: Make, tmp_path: Path, monkeypatch: Patch
) -> None:
    path = tmp_path / "large.pt"
    write_snapshot({**snapshot(), "EXTRA": torch.zeros(500_000)}, path)
    sizes: list[int] = []
    real = zlib.crc32

    def crc32(data: Any, value: int = 0) -> int:
        sizes.append(len(data))
        return real(data, value)

    monkeypatch.setattr(zlib, "crc32", crc32)
    read_snapshot(path)
    assert 2 * MEGABYTE <= sum(sizes) <= path.stat().st_size + 100_000


def peak(path: Path, reader: Callable[[Path], Any]) -> int:
    """The most memory that reading takes."""
    tracemalloc.start()
    try:
        reader(path)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


def refusal(path: Path) -> str:
    """What is said of a file, without its name; it is one sentence in one line."""
    with pytest.raises(SnapshotError) as raised:
        read_snapshot(path)
    message = str(raised.value)
    assert message.startswith(f"{path} ")
    assert message.isprintable()
    return message.removeprefix(f"{path} ")


NAMES = {
    "../../evil": "which torch never writes",
    "/etc/evil": "which torch never writes",
    "a/../data/0": "which torch never writes",
    "a/data/../0": "which torch never writes",
    "a\\data\\0": "which torch never writes",
    "a/constants.pkl": "which torch never writes",  # of compiled programs, which torch would run
    "a/data/0\u202e": "which torch never writes",
    "a/data/0\n": "which torch never writes",
    "a/DATA.PKL": "holds the entry DATA.PKL twice",  # torch takes either for the other
    "a/data.pkl": "holds the entry data.pkl twice",
    "b/data.pkl": "holds the entry data.pkl twice",
    "b/data/0": "are not in one folder",
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_an_entry_with_a_name_that_torch_does_not_write_is_refused(
    name: str, archive: Make, pickled: Make, tmp_path: Path
) -> None:
    path = archive(pickled({})).write(tmp_path / "evil.pt")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, pickled({}))
    assert NAMES[name] in refusal(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_file_is_refused_however_large_it_would_become(
    method: int, archive: Make, pickled: Make, tmp_path: Path
) -> None:
    path = archive(pickled({}), {"0": bytes(30 * MEGABYTE)}).write(tmp_path / "bomb.pt", method)
    assert path.stat().st_size < MEGABYTE
    assert "compressed" in refusal(path)


def edited(path: Path, place: int, form: str, *values: int | bytes) -> Path:
    """The file with some bytes replaced."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, place % len(content), *values)
    path.write_bytes(content)
    return path


def test_what_is_around_or_over_the_entries_is_refused(
    archive: Make, pickled: Make, tmp_path: Path
) -> None:
    def fresh() -> Path:
        return Path(archive(pickled({}), {"0": bytes(8), "1": bytes(8)}).write(tmp_path / "a.pt"))

    content = fresh().read_bytes()
    directory = content.index(b"PK\x01\x02")
    last = content.rindex(b"PK\x01\x02")
    head = content.index(b"PK\x03\x04", 4)
    cases: list[tuple[str, Callable[[Path], object]]] = [
        ("the end of the zip file is missing", lambda p: p.write_bytes(content + b"x")),
        ("its directory is not where its end says", lambda p: edited(p, -6, "<L", 7)),
        ("is damaged", lambda p: edited(p, last, "4s", b"PK..")),
        ("must hold from 1 to", lambda p: edited(p, -10, "<2L", 0, len(content) - 22)),
        ("does not begin where the dir", lambda p: edited(p, head, "4s", b"PK..")),
        ("overlaps the next entry", lambda p: edited(p, last + 20, "<2L", 900, 900)),
        ("or encrypted", lambda p: edited(p, directory + 8, "<H", 1)),
        ("is no zip file", lambda p: p.write_bytes(b"MZ" + content)),
        ("is no zip file", lambda p: p.write_bytes(b"")),
    ]
    for expected, change in cases:
        path = fresh()
        change(path)
        assert expected in refusal(path)


def test_two_entries_may_not_share_their_bytes(
    archive: Make, pickled: Make, tmp_path: Path
) -> None:
    # how a file of a megabyte becomes a terabyte without compression
    path = archive(pickled({}), {"0": bytes(8), "1": bytes(8)}).write(tmp_path / "a.pt")
    lines = path.read_bytes().split(b"PK\x01\x02")
    places = [struct.unpack_from("<L", line, 38)[0] for line in lines[1:]]
    line = len(b"PK\x01\x02".join(lines[:-1])) + 4
    assert "damaged" in refusal(edited(path, line + 38, "<L", places[-2]))


def test_a_file_without_checksums_says_what_to_do(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert refusal(tmp_path / "a.pt").startswith("was written without checksums: write it again")


def test_bytes_whose_checksum_is_zero_are_whole(
    snapshot: Make, archive: Make, pickled: Make, tmp_path: Path
) -> None:
    zero = bytes.fromhex("9d0ad96d")  # four bytes for which the checksum comes out as zero
    path = archive(pickled(snapshot_of_plain_values(snapshot)), {"0": zero}).write(tmp_path / "a")
    assert read_snapshot(path)


def snapshot_of_plain_values(snapshot: Make) -> dict[str, Any]:
    """A snapshot without tensors."""
    content: dict[str, Any] = snapshot(state_dict={}, optimizer_states=[])
    return content


@pytest.mark.parametrize(
    ("name", "content"),
    [("version", b"x"), ("byteorder", b"middle"), ("version", None), ("data.pkl", None)],
)
def test_an_entry_that_is_missing_or_nonsense_is_refused(  # noqa: PLR0917 - fixtures
    name: str, content: bytes | None, archive: Make, pickled: Make, snapshot: Make, tmp_path: Path
) -> None:
    made = archive(pickled(snapshot_of_plain_values(snapshot)))
    assert read_snapshot(made.write(tmp_path / "a.pt"))
    del made.entries[name]
    if content is not None:
        made.entries[name] = content
    assert refusal(made.write(tmp_path / "a.pt"))


def test_an_entry_of_a_newer_torch_is_no_reason_to_refuse_a_file(
    archive: Make, pickled: Make, snapshot: Make, tmp_path: Path
) -> None:
    made = archive(pickled(snapshot_of_plain_values(snapshot)))
    made.entries[".data/checksum_kind"] = b"7"
    assert read_snapshot(made.write(tmp_path / "a.pt"))


def test_the_outline_of_a_foreign_file_names_what_is_not_ours(
    write_lis2: Make, outlined: Outlined, tmp_path: Path
) -> None:
    write_lis2(tmp_path / "theirs.pt")
    foreign = outlined(tmp_path / "theirs.pt").foreign
    assert {"logging.getLogger", "configurable.GlobalConfig"} < set(foreign)
