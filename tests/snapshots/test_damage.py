"""A damaged file is refused in one sentence, or gives the very same content; never another one."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from lis2_lightning import SnapshotError
from lis2_lightning.snapshots import read_snapshot

Same = Callable[[Any, Any], bool]


def outcome(path: Path, content: bytes, expected: Any, same: Same) -> str:
    """What comes of reading damaged bytes: refused or the same; anything else fails."""
    path.write_bytes(content)
    try:
        content_read = read_snapshot(path)
    except SnapshotError as error:
        message = str(error)
        assert message.startswith(f"{path} ")
        assert message.isprintable()
        return "refused"
    assert same(content_read, expected), "other content was read without a word"
    return "same"


def flipped(content: bytes, bit: int) -> bytes:
    """The bytes with one bit the other way."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def outcomes(path: Path, changes: Iterable[bytes], same: Same) -> dict[str, int]:
    """How often reading was refused, and how often it gave the same."""
    expected = read_snapshot(path)
    results = [outcome(path, content, expected, same) for content in changes]
    return {name: results.count(name) for name in ("refused", "same")}


def check_lengths(path: Path, number: int, same: Same) -> None:
    whole = path.read_bytes()
    lengths = {len(whole) * part // number for part in range(number)} | {len(whole) - 1}
    counts = outcomes(path, (whole[:length] for length in sorted(lengths)), same)
    assert counts == {"refused": len(lengths), "same": 0}


def check_bits(path: Path, number: int, same: Same) -> None:
    whole = path.read_bytes()
    draw = random.Random(7)  # noqa: S311 - which bits is not secret
    bits = [draw.randrange(len(whole) * 8) for _ in range(number)]
    counts = outcomes(path, (flipped(whole, bit) for bit in bits), same)
    assert counts["refused"] + counts["same"] == number
    # dates, padding and what torch writes twice make up the rest
    assert counts["refused"] > number / 3


def test_a_file_cut_short_is_refused_at_every_length(whole: Path, same: Same) -> None:
    check_lengths(whole, 500, same)


def test_none_of_5000_flipped_bits_changes_anything_unseen(whole: Path, same: Same) -> None:
    check_bits(whole, 5000, same)


def test_the_same_holds_for_files_of_lis2(
    write_lis2: Callable[..., Any], tmp_path: Path, same: Same
) -> None:
    path = tmp_path / "theirs.pt"
    write_lis2(path)
    check_lengths(path, 50, same)
    write_lis2(path)
    check_bits(path, 300, same)


def test_a_flipped_bit_in_any_tensor_is_refused(whole: Path, same: Same) -> None:
    content = whole.read_bytes()
    expected = read_snapshot(whole)
    weight = expected["MODEL"]["MODEL_STATE"]["weight"].numpy().tobytes()
    start = content.index(weight) * 8
    for bit in range(start, start + 8 * len(weight), 5):
        assert outcome(whole, flipped(content, bit), expected, same) == "refused"


def test_zeroed_and_swapped_blocks_are_refused(whole: Path, same: Same) -> None:
    content = whole.read_bytes()
    expected = read_snapshot(whole)
    blocks = [content[start : start + 64] for start in range(0, len(content), 64)]
    for number, block in enumerate(blocks[:-1]):
        zeroed = b"".join([*blocks[:number], bytes(len(block)), *blocks[number + 1 :]])
        outcome(whole, zeroed, expected, same)
        swapped = b"".join([*blocks[:number], blocks[number + 1], block, *blocks[number + 2 :]])
        outcome(whole, swapped, expected, same)


def forged(content: bytes, draw: random.Random) -> bytes:
    """A pickle with some bytes replaced, left out or doubled."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        place, length = draw.randrange(2, len(changed) - 1), draw.randrange(1, 8)
        kind = draw.randrange(3)
        if kind == 0:
            changed[place] = draw.randrange(256)
        elif kind == 1:
            del changed[place : place + length]
        else:
            changed[place:place] = changed[place : place + length]
    return bytes(changed)


def test_a_forged_table_of_contents_is_refused_or_read_as_torch_reads_it(
    whole: Path, archive: Callable[..., Any], same: Same
) -> None:
    with zipfile.ZipFile(whole) as file:
        entries = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    program = entries["data.pkl"]
    draw = random.Random(11)  # noqa: S311 - which bytes is not secret
    read = 0
    for _ in range(1500):
        made = archive(forged(program, draw))
        made.entries = {**entries, "data.pkl": made.entries["data.pkl"]}
        made.write(whole)
        try:
            content_read = read_snapshot(whole)
        except SnapshotError:
            continue
        if b"LIGHTNING" in made.entries["data.pkl"]:  # or it is taken for one of LIS2's
            expected = torch.load(whole, weights_only=True)  # noqa: TID251 - the reference
            assert same(content_read, expected)
            read += 1
    assert read > 10
