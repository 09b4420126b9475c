"""Files of a few bytes that ask for much memory or time are refused at once."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lis2_lightning import SnapshotError
from lis2_lightning.snapshots import read_snapshot

Make = Callable[..., Any]
# of processor time; refusing takes half a second or less, and what some of these ask for, minutes:
# the limit is far from both, so that it holds on any machine
MAX_SECONDS = 10
COUNTER = b"ccollections\nCounter\nq\x00"
ORDERED = b"ccollections\nOrderedDict\nq\x00"
ENCODE = b"c_codecs\nencode\nq\x00"
SET = b"c__builtin__\nset\n"
COMPLEX = b"c__builtin__\ncomplex\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
PRIME = (1 << 61) - 1  # whole numbers that differ by it have one hash


def number(value: int) -> bytes:
    """A number in a pickle."""
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def text(value: str) -> bytes:
    """A text in a pickle."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def doubled(first: bytes, step: bytes) -> bytes:
    """A tuple of sixty things, each of which holds the one before it twice."""
    steps = [step.replace(b"?", b"h" + bytes([i])) + b"q" + bytes([i + 1]) for i in range(60)]
    return b"(" + first + b"q\x00" + b"".join(steps) + b"t"


def keys(values: list[bytes]) -> bytes:
    """A mapping with these keys."""
    return b"}(" + b"".join(value + b"K\x01" for value in values) + b"u"


def tensor(size: list[int], stride: list[int], length: int = 4, offset: int = 0) -> bytes:
    """A tensor on a storage of 16 bytes."""
    shape = b"(" + b"".join(map(number, size)) + b"t(" + b"".join(map(number, stride)) + b"t"
    storage = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(length)
    return TENSOR + b"((" + storage + b"tQ" + number(offset) + shape + b"\x89" + ORDERED + b")RtR"


BOMBS = {
    "lists in lists, doubled": doubled(b"]", b"](??e"),
    "tuples in tuples, doubled": doubled(b")", b"??\x86"),
    "mappings in mappings, doubled": doubled(b"}", b"}(K\x00?K\x01?u"),
    "a tuple for a key, doubled": b"}" + doubled(b")", b"??\x86") + b"Ns",
    "a list in itself": b"]q\x00h\x00a",
    "a mapping in itself": b"}q\x00K\x01h\x00s",
    "a deep list": b"]" * 90_000 + b"a" * 89_999,
    "a deep tuple": b")" + b"\x85" * 200_000,
    "a deep tuple for a key": b"}" + b")" + b"\x85" * 200_000 + b"Ns",
    "shared lists, deep by turns": b"(]q\x00" + b"]h\x00aq\x00" * 150 + b"t",
    "marks without an end": b"(" * 190_000,
    "many lists": b"(" + b"]" * 3_900_000 + b"t",
    "many mappings": b"(" + b"}" * 3_900_000 + b"t",
    "many empty calls": ORDERED + b"(" + b"h\x00)R" * 900_000 + b"t",
    "a long pickle": text("a" * 5_000_000),
    "a wide text": text("a" * 3_900_000)[:-4] + "\U0001f600".encode() + b"K\x010",
    "a counter copied often": COUNTER + keys([number(i) for i in range(60_000)]) + b"\x85q\x01("
    + b"h\x00h\x01R" * 60_000 + b"t",
    "a text copied often": ENCODE + text("a" * 1_000_000) + text("latin1") + b"\x86q\x01("
    + b"h\x00h\x01R" * 90_000 + b"t",
    "a far place to remember": b"Nr\xf0\xff\xff\xff",
    "a set of one hash": SET + b"](" + b"".join(number(i * PRIME) for i in range(1, 90_000))
    + b"e\x85R",
    "a set of tuples": SET + b"](" + b"".join(number(i) + b"\x85" for i in range(50_000))
    + b"e\x85R",
    "keys that a call makes": keys([COMPLEX + b"K\x01K\x02\x86R"] * 20_000),
    "a counter by its old name": b"cUserList\nCounter\n](K\x01K\x02e\x85R",
    "a tensor that is changed": tensor([4], [1]) + b"(" + number(10**12) + b"tb",
    "a bytearray": b"c__builtin__\nbytearray\n" + number(10**12) + b"\x85R",
    "a range": b"c__builtin__\nxrange\n" + number(10**12) + b"\x85R",
    "keys of one hash": keys([number(i * PRIME) for i in range(1, 90_000)]),
    "tuples for keys": keys([number(i) + b"\x85" for i in range(60_000)]),
    "a long tuple for a key": keys([b"(" + b"N" * 100_000 + b"t"]),
    "a long number": b"\x8b" + struct.pack("<I", 3_000_000) + b"\x7f" * 3_000_000,
    "a number of many digits": b"I" + b"9" * 3_000_000 + b"\n",
    "a tensor larger than its storage": tensor([10**12], [1]),
    "a tensor of one number repeated": tensor([10**12], [0]),
    "a tensor repeated in two ways": tensor([2**20, 2**20], [0, 0]),
    "a tensor from far inside": tensor([1], [1], offset=2**50),
    "a tensor of large strides": tensor([2], [2**61]),
    "a tensor of less than nothing": tensor([-1], [1]),
    "a tensor of many sizes": tensor([1] * 10_000, [1] * 10_000),
    "a tensor of endless sizes": tensor([2**2000] * 60, [0] * 60),
    "a storage longer than its entry": tensor([4], [1], length=10**15),
    "a storage shorter than its entry": tensor([2], [1], length=2),
}  # fmt: skip


HUNGRY = [
    name for name in BOMBS if name.startswith(("many", "keys", "a counter", "a text", "a wi"))
]


def bomb(name: str, archive: Make, folder: Path) -> Path:
    """A file with a bomb in it."""
    program = b"\x80\x02}" + text("x") + BOMBS[name] + b"s."
    path: Path = archive(program, {"0": bytes(16)}).write(folder / "bomb.pt")
    return path


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_its_time(
    name: str, archive: Make, tmp_path: Path
) -> None:
    path = bomb(name, archive, tmp_path)
    began = time.process_time()
    with pytest.raises(SnapshotError, match=r"bomb\.pt (cannot be read safely|is damaged): "):
        read_snapshot(path)
    assert time.process_time() - began < MAX_SECONDS


@pytest.mark.parametrize("name", HUNGRY)
def test_a_bomb_is_refused_within_a_hundred_megabytes(
    name: str, archive: Make, tmp_path: Path
) -> None:
    path = bomb(name, archive, tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(SnapshotError):
            read_snapshot(path)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_what_is_a_little_large_is_no_bomb(
    archive: Make, pickled: Make, outlined: Make, tmp_path: Path
) -> None:
    content = {
        "history": [0.5] * 50_000,
        "rows": [{"epoch": i, "loss": 0.1} for i in range(5_000)],
        "text": "a" * 1_000_000,
        (1, "pair"): dict.fromkeys(range(20_000)),
    }
    path = archive(pickled(content)).write(tmp_path / "large.pt")
    assert outlined(path).content == content


def test_a_tensor_may_repeat_what_is_small(archive: Make, outlined: Make, tmp_path: Path) -> None:
    program = b"\x80\x02" + tensor([1000, 4], [0, 1]) + b"."
    path = archive(program, {"0": bytes(16)}).write(tmp_path / "expanded.pt")
    assert outlined(path).content.arguments[2] == (1000, 4)


def test_a_directory_of_millions_of_entries_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "many.pt"
    lines = b"PK\x01\x02" + bytes(42)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(lines) * 400_000, 30, 0)
    path.write_bytes(b"PK\x03\x04" + bytes(26) + lines * 400_000 + end)
    began = time.process_time()
    with pytest.raises(SnapshotError, match=r"many\.pt is no snapshot: it must hold"):
        read_snapshot(path)
    assert time.process_time() - began < MAX_SECONDS
