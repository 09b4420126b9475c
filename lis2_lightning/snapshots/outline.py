"""What a snapshot's pickle would build, with notes in place of tensors; nothing in it is run.

Python's own unpickler builds it from stand-ins: whatever name the file holds, no class or function
of that name is imported or called. On the way, what would take much memory or time is refused.
"""

from __future__ import annotations

import io
import math
import pickle  # noqa: TID251 - with stand-ins for every name
import pickletools
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, Final, NamedTuple, Self

import torch

from lis2_lightning.snapshots.archive import PICKLE, Entry, Refusal, read_entry, read_layout
from lis2_lightning.snapshots.foreign import FOREIGN, Stub

# limits of a pickle: for plain values, and for each storage, whose bytes somebody has to write
_MAX_BYTES: Final = 4_000_000, 1_000
_MAX_STEPS: Final = 200_000, 100
_MAX_COPIED: Final = 16_000_000, 1_000
_MAX_DEPTH: Final = 100
_MAX_HASHED: Final = 1_000  # parts of keys whose hashes can be made alike, which makes dicts slow
_MAX_HASH: Final = 1 << 60  # smaller whole numbers have hashes of their own
_MAX_REPEATED: Final = 1_000_000  # elements of a view that repeats its storage, as expand() does
_ITEM_BYTES: Final = 64  # that an item of a container takes at least
_MAX_DIMENSIONS: Final = 64
_UNSAFE: Final = "cannot be read safely: "
_NESTED: Final = f"{_UNSAFE}its values are nested too often or too deep"
_PROTOCOL: Final = 2
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS: Final = frozenset({"BINGET", "LONG_BINGET"})
_ENCODINGS: Final = frozenset({"latin1", "latin-1"})
_MODULES: Final = {"__builtin__": "builtins"} | dict.fromkeys(
    ("UserDict", "UserList", "UserString"), "collections"
)  # names of Python 2, which torch translates
_DTYPES: Final = {
    "BFloat16": torch.bfloat16, "Bool": torch.bool, "Byte": torch.uint8, "Char": torch.int8,
    "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64, "Double": torch.float64,
    "Float": torch.float32, "Half": torch.float16, "Int": torch.int32, "Long": torch.int64,
    "QInt8": torch.qint8, "QInt32": torch.qint32, "QUInt8": torch.quint8, "Short": torch.int16,
}  # fmt: skip
_STORAGES: Final = {f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()} | {
    "torch.storage.UntypedStorage": torch.uint8
}
_VIEWS: Final = frozenset(
    f"torch._utils._rebuild_{kind}" for kind in ("tensor", "tensor_v2", "tensor_v3", "qtensor")
)
_SUBCLASS: Final = "torch._tensor._rebuild_from_type_v2"
_TENSOR_MODULES: Final = ("torch._utils.", "torch._tensor.", "torch.nn.parameter.")
_LEAVES: Final = frozenset(
    {str, int, float, complex, bool, bytes, bytearray, type(None), set, torch.dtype}
    | {PurePosixPath, PureWindowsPath}
)


class Storage(NamedTuple):
    """A storage: the entry that holds its bytes, and the type of its elements."""

    entry: Entry
    dtype: torch.dtype


class Note:
    """Stands for what one of torch's functions or classes would build, such as a tensor.

    Args:
        arguments: What it would be called with.
    """

    path: ClassVar[str]  # the name of the function
    check: ClassVar[Callable[[str, tuple[Any, ...]], None]]
    arguments: tuple[Any, ...]

    def __new__(cls, *arguments: Any) -> Self:
        """Check the arguments and note them."""
        cls.check(cls.path, arguments)
        note = super().__new__(cls)
        note.arguments = arguments
        return note

    def __setstate__(self, state: object) -> None:
        """Ignore attributes; torch would let a tensor be changed here, and never writes that."""
        if self.path.startswith(_TENSOR_MODULES):
            raise Refusal(f"{_UNSAFE}its pickle changes a tensor")


@dataclass(frozen=True)
class Outline:
    """What a file holds, by its own account.

    Args:
        content: What its pickle would build.
        entries: Where the bytes of its tensors are.
        foreign: The names it holds of classes of other programs; empty for our own files.
    """

    content: Any
    entries: Mapping[str, Entry]
    foreign: tuple[str, ...]


def read_outline(file: io.FileIO) -> Outline:
    """Judge all of a file but the bytes of its tensors.

    Args:
        file: Open for reading.

    Returns:
        What it holds.

    Raises:
        Refusal: It is damaged, or holds what no snapshot holds.
    """
    entries = read_layout(file)
    if PICKLE not in entries:
        raise Refusal(f"is no snapshot: it holds no {PICKLE}")
    if entries[PICKLE].size > _limit(_MAX_BYTES, entries):
        raise Refusal(f"{_UNSAFE}its pickle is longer than that of any snapshot")
    program, max_steps = read_entry(file, entries[PICKLE]), _limit(_MAX_STEPS, entries)
    _check_steps(program, max_steps)
    file.seek(0)
    unsafe = set(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    if unknown := sorted(unsafe - FOREIGN.keys()):
        raise Refusal(f"{_UNSAFE}it names {unknown[0][:80]!r}, which no snapshot needs")
    content = _Unpickler(program, entries).load()
    if _weigh(content, 0, {})[0] > max_steps:
        raise Refusal(_NESTED)
    return Outline(content, entries, tuple(sorted(unsafe)))


def _limit(numbers: tuple[int, int], entries: Mapping[str, Entry]) -> int:
    return numbers[0] + numbers[1] * len(entries)


def _check_steps(program: bytes, max_steps: int) -> None:
    """Refuse a pickle of too many steps, or with keys that take long to hash.

    Of each value on the unpickler's stack it follows how many parts its hash is made of.
    """
    stacks: list[list[int]] = [[]]  # one more for each mark
    memo: dict[Any, int] = {}
    hashed = 0
    for step, (code, argument, _) in enumerate(pickletools.genops(program)):
        name = code.name
        if step > max_steps or hashed > _MAX_HASHED or (name in _PUTS and argument > max_steps):
            raise Refusal(f"{_UNSAFE}its pickle asks for too much")
        if name == "PROTO" and argument != _PROTOCOL:
            raise Refusal(f"{_UNSAFE}its pickle is of protocol {argument}, torch writes 2")
        if name == "MARK":
            stacks.append([])
        elif name in _PUTS:
            memo[argument] = stacks[-1][-1]
        elif name in _GETS:
            stacks[-1].append(memo[argument])
        else:
            items = _popped(code, stacks)
            if name in {"SETITEM", "SETITEMS"}:
                hashed += sum(items[1::2])
            stacks[-1] += [_hash_size(name, argument, items)] * len(code.stack_after)


def _popped(code: pickletools.OpcodeInfo, stacks: list[list[int]]) -> list[int]:
    """What an instruction takes from the stack."""
    needed, items = code.stack_before, []
    if pickletools.markobject in needed:
        items = stacks.pop()
        needed = needed[: needed.index(pickletools.markobject)]
    start = len(stacks[-1]) - len(needed)
    if start < 0:
        raise Refusal(f"{_UNSAFE}its pickle takes more than there is")
    items = stacks[-1][start:] + items
    del stacks[-1][start:]
    return items


def _hash_size(name: str, argument: Any, items: list[int]) -> int:
    if name.startswith("TUPLE"):
        return min(1 + len(items) + sum(items), _MAX_HASH)
    if name in {"REDUCE", "NEWOBJ"}:
        return sum(items)
    return int(isinstance(argument, int) and abs(argument) > _MAX_HASH)


class _Unpickler(pickle.Unpickler):
    """Builds what a pickle would build, from stand-ins.

    Args:
        program: The pickle.
        entries: The entries of its file.
    """

    def __init__(self, program: bytes, entries: Mapping[str, Entry]) -> None:
        super().__init__(io.BytesIO(program), encoding="utf-8")
        self._entries = entries
        self._storages: dict[str, Storage] = {}
        self._left = _limit(_MAX_COPIED, entries)
        self._stand_ins: dict[str, Any] = {
            **FOREIGN,
            "_codecs.encode": self._bytes,
            "builtins.bytearray": self._bytearray,
            "builtins.complex": complex,
            "builtins.set": self._set,
            "collections.Counter": self._counter,
            "collections.OrderedDict": _ordered,
        }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name."""
        path = f"{_MODULES.get(module, module)}.{name}"
        if path not in self._stand_ins:
            dtype = vars(torch).get(name) if module == "torch" else None
            is_dtype = isinstance(dtype, torch.dtype)
            note = type("Note", (Note,), {"path": path, "check": self._check_call})
            self._stand_ins[path] = dtype if is_dtype else note
        return self._stand_ins[path]

    def persistent_load(self, pid: Any) -> Storage:
        """Note a storage, which must be as long as its entry."""
        match pid:
            case ("storage", type() as kind, str(key), str(), int(length)):
                dtype = _STORAGES.get(getattr(kind, "path", ""))
                entry = self._entries.get(f"data/{key}")
            case _:
                dtype = entry = None
        if dtype is None or entry is None:
            raise Refusal(f"{_UNSAFE}its pickle refers to a storage that is not there")
        if entry.size != length * dtype.itemsize:
            raise Refusal(f"is damaged: {entry.name} is not as long as its tensors need")
        storage = Storage(entry, dtype)
        if self._storages.setdefault(key, storage) != storage:
            raise Refusal(f"{_UNSAFE}its pickle uses {entry.name} as two types")
        return storage

    def _check_call(self, path: str, arguments: tuple[Any, ...]) -> None:
        self._spend(*arguments)
        if path.startswith("torch.") and path.endswith(("Tensor", "Storage")):
            raise Refusal(f"{_UNSAFE}its pickle calls {path!r}")
        if path in _VIEWS:
            _check_view(*arguments)
        elif path == _SUBCLASS:
            function, _, inner, *_ = arguments
            if not (isinstance(function, type) and issubclass(function, Note)):
                raise Refusal(f"{_UNSAFE}its pickle calls what makes no tensor")
            function(*inner)

    def _spend(self, *values: Any) -> None:
        """Count what is copied: a few bytes can ask for the same large thing again and again."""
        for value in values:
            size = len(value) if hasattr(value, "__len__") else 0
            self._left -= _ITEM_BYTES + size * (1 if isinstance(value, str) else _ITEM_BYTES)
        if self._left < 0:
            raise Refusal(f"{_UNSAFE}its pickle asks for too much")

    def _bytes(self, text: str, encoding: str) -> bytes:
        self._spend(text)
        if encoding not in _ENCODINGS:
            raise Refusal(f"{_UNSAFE}bytes are not as Python writes them")
        return text.encode("latin-1")

    def _bytearray(self, text: str = "", encoding: str = "latin-1") -> bytearray:
        return bytearray(self._bytes(text, encoding))

    def _counter(self, counts: dict[Any, Any]) -> Counter[Any]:
        self._spend(counts)
        if type(counts) is not dict:
            raise Refusal(f"{_UNSAFE}a counter is not as torch writes it")
        return Counter(counts)

    def _set(self, items: list[Any]) -> set[Any]:
        self._spend(items)
        if type(items) is not list or not all(map(_hashes_fast, items)):
            raise Refusal(f"{_UNSAFE}a set holds more than plain values")
        return set(items)


def _ordered() -> OrderedDict[Any, Any]:
    return OrderedDict()  # torch writes its items afterwards


def _hashes_fast(value: Any) -> bool:
    is_plain = value is None or isinstance(value, str | bytes | float | bool)
    return is_plain or (isinstance(value, int) and abs(value) < _MAX_HASH)


def _check_view(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> None:
    """Refuse a tensor that reaches beyond its storage, which torch would make longer."""
    lengths = (offset, *size, *stride)
    is_odd = type(storage) is not Storage or len(size) != len(stride) or len(size) > _MAX_DIMENSIONS
    if is_odd or not all(type(length) is int and 0 <= length < 1 << 62 for length in lengths):
        raise Refusal(f"{_UNSAFE}a tensor is not as torch writes it")
    dtype = next((item for item in rest if isinstance(item, torch.dtype)), storage.dtype)
    length = storage.entry.size // dtype.itemsize
    num_elements = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if num_elements and last >= length:
        raise Refusal(f"is damaged: a tensor reaches beyond its storage {storage.entry.name}")
    if num_elements > max(length, _MAX_REPEATED):
        raise Refusal(f"{_UNSAFE}a tensor repeats its storage {storage.entry.name}")


def _weigh(value: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a value holds, those it holds twice counted twice, and how deep.

    A few bytes can hold a list that holds another list ten times, and so on: nothing that walks
    through such a value would come to an end.
    """
    if type(value) in _LEAVES or isinstance(value, Note):
        return 1, 0
    if depth > _MAX_DEPTH:
        raise Refusal(_NESTED)
    if id(value) not in known:
        known[id(value)] = 0, _MAX_DEPTH  # until it is done: it must not hold itself
        weight, height = 1, 0
        for item in _items(value):
            below = _weigh(item, depth + 1, known)
            weight, height = weight + below[0], max(height, below[1] + 1)
        known[id(value)] = weight, height
    weight, height = known[id(value)]
    if depth + height > _MAX_DEPTH:
        raise Refusal(_NESTED)
    return weight, height


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Stub):
        return value.attributes.values()
    if not isinstance(value, dict | list | tuple):
        raise Refusal(f"{_UNSAFE}it holds a {type(value).__name__} that is no value")
    # torch keeps the versions of layers in this attribute; others could hide methods
    if not getattr(value, "__dict__", {}).keys() <= {"_metadata"}:
        raise Refusal(f"{_UNSAFE}it holds a {type(value).__name__} with attributes")
    if isinstance(value, Counter) and not all(type(count) is int for count in value.values()):
        raise Refusal(f"{_UNSAFE}it holds a counter of other things than counts")
    if isinstance(value, dict) and any(isinstance(key, type) for key in value):
        raise Refusal(f"{_UNSAFE}a mapping has a class for a key")
    return value.values() if isinstance(value, dict) else value
