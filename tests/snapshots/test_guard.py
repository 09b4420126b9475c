"""Files are judged before they are used: their layout, their checksums, what they ask for."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lis2_lightning import SnapshotError
from lis2_lightning.snapshots import read_snapshot, write_snapshot
from lis2_lightning.snapshots.guard import Scan, check_archive

Make = Callable[..., Any]
MEGABYTE = 1_000_000


def test_a_whole_file_is_told_of_without_being_loaded(whole: Path) -> None:
    found = check_archive(whole)
    assert found.foreign == ()
    assert found.content["LIGHTNING"]["next_epoch"] == 1
    weight = found.content["MODEL"]["MODEL_STATE"]["weight"]
    assert (weight.dtype, weight.size, weight.stride) == ("float32", (3, 4), (4, 1))
    key = weight.storage.key
    entry = found.entries[f"data/{key}"]
    written = whole.read_bytes()[entry.start :][: entry.size]
    assert written == torch.arange(12.0).numpy().tobytes()


def test_the_layout_is_the_one_that_python_reads(whole: Path) -> None:
    found = check_archive(whole).entries
    with zipfile.ZipFile(whole) as reference:
        listed = {info.filename.partition("/")[2]: info for info in reference.infolist()}
        assert {name: (e.size, e.checksum) for name, e in found.items()} == {
            name: (info.file_size, info.CRC) for name, info in listed.items()
        }
        content = whole.read_bytes()
        for name, entry in found.items():
            assert content[entry.start :][: entry.size] == reference.read(listed[name])


def test_numbers_too_large_for_32_bits_are_read(
    archive: Make, pickled: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)  # then Python writes them as large ones
    made = archive(pickled({"a": 1}), {"0": bytes(40)})
    found = check_archive(made.write(tmp_path / "large.pt"))
    assert found.content == {"a": 1}
    assert found.entries["data/0"].size == 40


def test_memory_stays_flat_whatever_the_size_of_the_tensors(snapshot: Make, tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    write_snapshot({**snapshot(), "EXTRA": torch.zeros(5_000_000)}, path)
    for reader in (check_archive, read_snapshot):  # besides the tensors, which are torch's own
        assert peak(path, reader) < 2 * MEGABYTE


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
    with pytest.raises(SnapshotError) as told:
        check_archive(path)
    message = str(told.value)
    assert message.startswith(f"{path} ")
    assert message.isprintable()
    return message.removeprefix(f"{path} ")


NAMES = {
    "../../evil": "which no snapshot holds",
    "/etc/evil": "which no snapshot holds",
    "a/../data/0": "which no snapshot holds",
    "a/data/../0": "which no snapshot holds",
    "a\\data\\0": "which no snapshot holds",
    "a/data/x": "which no snapshot holds",
    "a/DATA.PKL": "which no snapshot holds",
    "a/b/data.pkl": "which no snapshot holds",
    "a/code/evil.py": "which no snapshot holds",
    "a/constants.pkl": "which no snapshot holds",
    "a/data/0\u202e": "which no snapshot holds",
    "a/data/0\n": "which no snapshot holds",
    "b/data/0": "do not lie in one folder",
    "b/data.pkl": "holds the entry data.pkl twice",
    "a/data.pkl": "holds the entry data.pkl twice",
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


def test_what_lies_around_or_over_the_entries_is_refused(
    archive: Make, pickled: Make, tmp_path: Path
) -> None:
    def fresh() -> Path:
        return Path(archive(pickled({}), {"0": bytes(8), "1": bytes(8)}).write(tmp_path / "a.pt"))

    content = fresh().read_bytes()
    directory = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", directory + 1)
    head = content.index(b"PK\x03\x04", 4)
    cases: dict[str, Callable[[Path], object]] = {
        "its end is missing": lambda p: p.write_bytes(content + b"x"),
        "is not where its end says": lambda p: edited(p, -6, "<L", 7),
        "its directory tells of fewer": lambda p: edited(p, -14, "<2H", 6, 6),
        "its directory tells of more": lambda p: edited(p, -14, "<2H", 4, 4),
        "holds 0 entries": lambda p: edited(p, -14, "<2H", 0, 0),
        "does not begin where it should": lambda p: edited(p, head, "4s", b"PK.."),
        "does not end where it should": lambda p: edited(p, second + 20, "<2L", 9, 9),
        "is told of in two ways": lambda p: edited(p, 30, "1s", b"b"),
        "or encrypted": lambda p: edited(p, directory + 8, "<H", 1),
        "is no zip file": lambda p: p.write_bytes(b"MZ" + content),
        "it is empty": lambda p: p.write_bytes(b""),
    }
    for expected, change in cases.items():
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
    archive: Make, pickled: Make, tmp_path: Path
) -> None:
    zero = bytes.fromhex("9d0ad96d")  # four bytes for which the checksum comes out as zero
    path = archive(pickled({}), {"0": zero}).write(tmp_path / "a.pt")
    assert check_archive(path).entries["data/0"].checksum == 0


@pytest.mark.parametrize(("name", "content"), [("version", b"x"), ("byteorder", b"middle")])
def test_an_entry_that_torch_would_stumble_over_is_refused(
    name: str, content: bytes, archive: Make, pickled: Make, tmp_path: Path
) -> None:
    made = archive(pickled({}))
    made.entries[name] = content
    assert f"its {name} is not one" in refusal(made.write(tmp_path / "a.pt"))
    del made.entries["version"]
    made.entries.pop("byteorder")
    assert "holds no version" in refusal(made.write(tmp_path / "b.pt"))
    del made.entries["data.pkl"]
    made.entries["version"] = b"3"
    assert "holds no data.pkl" in refusal(made.write(tmp_path / "c.pt"))


def test_the_scan_of_a_foreign_file_names_what_is_not_ours(
    write_lis2: Make, tmp_path: Path
) -> None:
    write_lis2(tmp_path / "theirs.pt")
    found: Scan = check_archive(tmp_path / "theirs.pt")
    assert {"logging.getLogger", "configurable.GlobalConfig"} < set(found.foreign)
