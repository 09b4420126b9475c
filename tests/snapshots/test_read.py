"""Reading gives what was written, and whatever is wrong with a file is one sentence."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lis2_lightning import SnapshotError
from lis2_lightning.snapshots import newest_snapshot, peek, read_snapshot, write_snapshot
from lis2_lightning.snapshots.outline import Outline

Make = Callable[..., dict[str, Any]]
Same = Callable[[Any, Any], bool]

base = torch.arange(24.0)
VALUES = {
    "numbers": [0, 255, 256, 65536, -1, 1 << 40, -(1 << 62), 0.1, float("inf"), float("nan")],
    "texts": ["", "text", "\u00e9\u4e16\U0001f600", "\ud800", "a" * 300, "two\nlines", "\0"],
    "bytes": [b"bytes", bytes(range(256))],
    "flags": [True, False, None],
    "nested": {"a": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, {1: {2.5: {None: b"x"}}}]},
    "keys": {"text": 1, 2: 2, 2.5: 3, True: 4, None: 5, b"b": 6, (1, "pair"): 7},
    "counter": Counter({1: 2, 30: 1}),
    "many": dict.fromkeys(map(str, range(2000)), 0.5),
    "types": [
        torch.arange(6).to(dtype)
        for dtype in (
            torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
            torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128,
            torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2,
        )
    ],
    "shapes": [torch.tensor(1.5), torch.empty(0), torch.empty(0, 3), torch.ones(2, 3, 4, 5, 6)],
    "views": [base[2:7], base.view(4, 6).T, base.view(4, 6)[1:3, ::2], base[3], base.expand(3, 24)],
}  # fmt: skip


def loaded(path: Path) -> Any:
    """What torch's own safe reader gives."""
    return torch.load(path, weights_only=True)  # noqa: TID251 - the reference


@pytest.mark.parametrize("name", VALUES)
def test_reading_gives_what_torchs_own_safe_reader_gives(
    name: str, snapshot: Make, same: Same, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    torch.save({**snapshot(), "EXTRA": VALUES[name]}, path)
    read, expected = read_snapshot(path), loaded(path)
    if name == "types":  # torch does not compare numbers of some
        for part in (read, expected):
            part["EXTRA"] = [[tensor.dtype, tensor.view(torch.uint8)] for tensor in part["EXTRA"]]
    else:
        assert same(read["EXTRA"], VALUES[name])
    assert same(read, expected)


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta:UserWarning")
@pytest.mark.parametrize(
    "layout", ["sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc"]
)
def test_sparse_tensors_are_read(layout: str, snapshot: Make, tmp_path: Path) -> None:
    blocks = (2, 2) if layout.startswith("sparse_bs") else None
    kind = getattr(torch, layout)
    tensor = torch.arange(16.0).view(4, 4).tril().to_sparse(layout=kind, blocksize=blocks)
    torch.save({**snapshot(), "EXTRA": tensor}, tmp_path / "a.pt")
    for content in (read_snapshot(tmp_path / "a.pt"), loaded(tmp_path / "a.pt")):
        assert content["EXTRA"].layout == kind
        assert torch.equal(content["EXTRA"].to_dense(), tensor.to_dense())


class Unheard:
    """What a program has told torch is safe."""

    def __init__(self) -> None:
        self.number = 5


def tensor_with_attributes() -> torch.Tensor:
    """A tensor that carries something along."""
    tensor = torch.ones(2)
    tensor.note = "text"  # type: ignore[attr-defined]
    return tensor


@pytest.mark.parametrize(
    "make",
    [
        Unheard,
        tensor_with_attributes,
        lambda: torch.nn.Parameter(torch.ones(2)),
        lambda: torch.empty(2, device="meta"),
        lambda: torch.complex(torch.ones(2), torch.ones(2)).conj(),
        lambda: torch.Size([1, 2]),
        lambda: {1, "a", None},
        set,
        lambda: 1 + 2j,
        lambda: [bytearray(b"abc"), bytearray()],
        lambda: torch.device("cpu"),
        lambda: torch.float16,
    ],
)
def test_what_torch_takes_for_safe_is_never_refused(
    make: Callable[[], Any], snapshot: Make, tmp_path: Path
) -> None:
    value, path = make(), tmp_path / "a.pt"
    with torch.serialization.safe_globals([Unheard]):
        write_snapshot({**snapshot(), "EXTRA": value}, path)
        assert peek(path).next_epoch == 1
        assert type(read_snapshot(path)["EXTRA"]) is type(loaded(path)["EXTRA"]) is type(value)


def test_tensors_that_share_their_memory_still_do(snapshot: Make, tmp_path: Path) -> None:
    write_snapshot(snapshot(), tmp_path / "a.pt")
    state = read_snapshot(tmp_path / "a.pt")["MODEL"]["MODEL_STATE"]
    state["weight"][1, 0] = 77.0
    assert state["view"][0, 0] != 77.0
    assert state["view"][0, 1] == state["weight"][1, 1]
    state["weight"][1, 1] = 78.0
    assert state["view"][0, 1] == 78.0


def test_tensors_go_to_the_device_that_is_asked_for(whole: Path) -> None:
    state = read_snapshot(whole, map_location="meta")["MODEL"]["MODEL_STATE"]
    assert {tensor.device.type for tensor in state.values()} == {"meta"}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for reader in (read_snapshot, peek):
        with pytest.raises(SnapshotError, match=r"there is no snapshot .*gone\.pt: check the path"):
            reader(tmp_path / "gone.pt")
        with pytest.raises(SnapshotError, match="there is no snapshot"):
            reader(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(whole: Path) -> None:
    whole.chmod(0)
    with pytest.raises(SnapshotError, match=r"last\.pt cannot be read: Permission denied"):
        read_snapshot(whole)


WRONG: dict[str, Any] = {
    "MODEL": [],
    "MODEL.MODEL_STATE": 5,
    "TRAIN_INFO": None,
    "TRAIN_INFO.EPOCHS_RUN": "3",
    "TRAIN_INFO.BEST_LOSS": "0.5",
    "TRAIN_INFO.OPTIMIZER_STATE": 5,
    "TRAIN_INFO.SCHEDULER_STATE": [],
    "GLOBAL_CONFIG": "epochs: 3",
    "LIGHTNING": 5,
    "LIGHTNING.format": "1",
    "LIGHTNING.next_epoch": -1,
    "LIGHTNING.next_batch": 2.5,
    "LIGHTNING.other_state": None,
    "LIGHTNING.checkpoint": [],
    "LIGHTNING.checkpoint.loops": 3,
}


@pytest.mark.parametrize("place", WRONG)
def test_an_entry_of_another_kind_or_none_is_reported_in_one_sentence(
    place: str, snapshot: Make, tmp_path: Path
) -> None:
    *outer, last = place.split(".")
    for change in ("replaced", "missing"):
        content = snapshot()
        inner = content
        for key in outer:
            inner = inner[key]
        inner[last] = WRONG[place]
        if change == "missing":
            del inner[last]
        if "LIGHTNING" not in content:
            continue  # it could be one of LIS2's
        torch.save(content, tmp_path / "a.pt")
        for reader in (read_snapshot, peek):
            with pytest.raises(SnapshotError, match=rf"a\.pt .*{last}") as raised:
                reader(tmp_path / "a.pt")
            assert str(raised.value).isprintable()


def test_a_configuration_whose_keys_are_no_text_is_refused(snapshot: Make, tmp_path: Path) -> None:
    torch.save({**snapshot(), "GLOBAL_CONFIG": {1: 2}}, tmp_path / "a.pt")
    with pytest.raises(SnapshotError, match=r"a\.pt is no snapshot: it has the key 1"):
        read_snapshot(tmp_path / "a.pt")


def test_a_checkpoint_of_lightning_is_no_snapshot(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "lightning.ckpt")
    with pytest.raises(SnapshotError, match=r"lightning\.ckpt is no snapshot: MODEL is missing"):
        read_snapshot(tmp_path / "lightning.ckpt")


def test_a_newer_format_says_what_to_do(snapshot: Make, tmp_path: Path) -> None:
    newer = snapshot()
    newer["LIGHTNING"]["format"] = 99
    write_snapshot(newer, tmp_path / "newer.pt")
    with pytest.raises(SnapshotError, match=r"newer\.pt has snapshot format 99.*update"):
        read_snapshot(tmp_path / "newer.pt")


def test_classes_of_lis2_do_not_stand_in_a_file_of_ours(snapshot: Make, tmp_path: Path) -> None:
    torch.save({**snapshot(), "EXTRA": logging.getLogger("x")}, tmp_path / "a.pt")
    with pytest.raises(
        SnapshotError, match=r"a\.pt .*'logging\.getLogger', which our snapshots never do"
    ):
        read_snapshot(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RecursionError("deep"),
        UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
        KeyError(1),
        RuntimeError("two\nlines"),
        OSError(5, "Input/output error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_goes_wrong_becomes_one_sentence(
    error: Exception, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(SnapshotError, match=r"last\.pt cannot be read") as raised:
        read_snapshot(whole)
    assert str(raised.value).isprintable()


def test_a_peek_has_what_a_run_needs_to_continue(snapshot: Make, tmp_path: Path) -> None:
    names = ["save_3.pt", "../last.pt"]
    write_snapshot(snapshot(next_epoch=3, next_batch=7, names=names), tmp_path / "a.pt")
    header = peek(tmp_path / "a.pt")
    assert header.path == tmp_path / "a.pt"
    assert (header.position, header.best_loss) == ((3, 7), 0.5)
    assert header.config == {"epochs": 9, "model": {"type": "unet"}}
    assert header.names == ("save_3.pt", "last.pt")  # in the same folder, whatever the file says


def break_a_tensor(path: Path, outlined: Callable[[Path], Outline]) -> None:
    """Flip a bit of a tensor."""
    content = bytearray(path.read_bytes())
    content[outlined(path).entries["data/0"].start] ^= 1
    path.write_bytes(content)


def test_a_peek_reads_no_tensor(whole: Path, outlined: Callable[[Path], Outline]) -> None:
    break_a_tensor(whole, outlined)
    assert peek(whole).next_epoch == 1
    with pytest.raises(SnapshotError, match=r"last\.pt is damaged: the checksum of data/0"):
        read_snapshot(whole)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One item for each time that torch reads a file."""
    calls: list[None] = []
    real = torch.load  # noqa: TID251 - what is counted

    def load(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        return real(*arguments, **options)

    monkeypatch.setattr(torch, "load", load)
    return calls


def test_a_snapshot_is_read_once_however_often_it_is_asked(
    whole: Path, loads: list[None], same: Same
) -> None:
    header = peek(whole)
    assert os.fspath(header) == str(header) == str(whole)
    assert len(loads) == 0
    header.read()
    header.read()
    content = header.take()
    assert len(loads) == 1
    assert same(content, header.take())  # it was not kept
    assert len(loads) == 2


def newest(folder: Path) -> str | None:
    """The name of the newest snapshot."""
    header = newest_snapshot(folder)
    return None if header is None else header.path.name


def test_the_newest_snapshot_continues_latest_whatever_its_date(
    snapshot: Make, tmp_path: Path
) -> None:
    assert newest(tmp_path) is None
    places = {"save_3": (4, 0), "save_5": (6, 0), "inside": (6, 3), "last": (6, 3), "best": (2, 9)}
    for name, (epoch, batch) in places.items():
        write_snapshot(snapshot(epoch, batch), tmp_path / f"{name}.pt")
    os.utime(tmp_path / "best.pt", (2e9, 2e9))  # the newest date
    for expected in ("last", "inside", "save_5", "save_3", "best"):
        assert newest(tmp_path) == f"{expected}.pt"
        (tmp_path / f"{expected}.pt").unlink()
    assert newest(tmp_path) is None


def test_damaged_snapshots_are_named_and_older_ones_used(
    snapshot: Make,
    tmp_path: Path,
    outlined: Callable[[Path], Outline],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for epoch in (1, 2, 3):
        write_snapshot(snapshot(epoch), tmp_path / f"save_{epoch}.pt")
    (tmp_path / "save_3.pt").write_bytes(b"torn")
    break_a_tensor(tmp_path / "save_2.pt", outlined)
    with caplog.at_level(logging.WARNING, "lis2_lightning"):
        assert newest(tmp_path) == "save_1.pt"
    assert len(caplog.messages) == 2
    assert "save_3.pt is no snapshot" in caplog.messages[0]
    assert "save_2.pt is damaged" in caplog.messages[1]
    assert all(message.endswith("; it is passed over") for message in caplog.messages)


def test_only_the_newest_snapshot_is_read_whole(
    snapshot: Make, tmp_path: Path, loads: list[None]
) -> None:
    for epoch in (1, 2, 3):
        write_snapshot(snapshot(epoch), tmp_path / f"save_{epoch}.pt")
    header = newest_snapshot(tmp_path)
    assert header is not None
    assert header.take()["LIGHTNING"]["next_epoch"] == 3
    assert len(loads) == 1
