"""What a snapshot's pickle would build, with notes in place of tensors; nothing in it is run.

Python's own unpickler builds it from stand-ins: whatever name the file holds, no class or function
of that name is imported or called. On the way, what would take much memory or time is refused.
"""

from __future__ import annotations

import io
import math
import pickle  # noqa: TID251 - with stand-ins for every name
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, Final, NamedTuple, Self, cast

import torch

from lis2_lightning.snapshots.archive import PICKLE, Entry, Refusal, read_entry, read_layout
from lis2_lightning.snapshots.foreign import FOREIGN, Stub

# limits of a pickle: for plain values, and for each entry, whose bytes somebody has to write
_MAX_BYTES: Final = 4_000_000, 1_000
_MAX_STEPS: Final = 200_000, 100
_MAX_COPIED: Final = 16_000_000, 1_000
_MAX_DEPTH: Final = 100
_MAX_DIMENSIONS: Final = 64
_MAX_REPEATED: Final = 1_000_000  # elements of a view that repeats its storage, as expand() does
_MAX_HASHED: Final = 1_000  # parts of keys whose hashes can be made alike, which makes dicts slow
_MAX_HASH: Final = 1 << 60  # smaller whole numbers have hashes of their own
_ITEM_BYTES: Final = 64  # that an item of a container takes at least
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS: Final = frozenset({"BINGET", "LONG_BINGET"})
# names of Python 2, which torch translates
_MODULES: Final = {
    "__builtin__": "builtins",
    **dict.fromkeys(("UserDict", "UserList", "UserString"), "collections"),
}
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
_LATIN: Final = frozenset({(), ("latin1",), ("latin-1",)})
_CONTAINERS: Final = frozenset({dict, OrderedDict, list, tuple})
_LEAVES: Final = (str, int, float, bytes, set, torch.dtype, PurePosixPath, PureWindowsPath)


class Storage(NamedTuple):
    """A storage: the entry that holds its bytes, and the type of its elements."""

    entry: Entry
    dtype: torch.dtype


class Note:
    """Stands for what a function or class would build, such as a tensor."""

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
        if self.path.startswith(("torch._", "torch.nn.")):
            raise Refusal("cannot be read safely: its pickle changes a tensor")


@dataclass(frozen=True)
class Outline:
    """What a file holds, by its own account."""

    content: Any
    entries: Mapping[str, Entry]
    foreign: tuple[str, ...]  # names of classes of other programs; none in our own files


def read_outline(file: io.FileIO) -> Outline:
    """Judge all of a file but the bytes of its tensors."""
    entries = read_layout(file)
    if PICKLE not in entries:
        raise Refusal(f"is no snapshot: it holds no {PICKLE}")
    if entries[PICKLE].size > _limit(_MAX_BYTES, entries):
        raise _unsafe("its pickle is longer than that of any snapshot")
    program, max_steps = read_entry(file, entries[PICKLE]), _limit(_MAX_STEPS, entries)
    _check_steps(program, max_steps)
    file.seek(0)
    names = set(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    if unknown := sorted(names - FOREIGN.keys()):
        raise _unsafe(f"it names {unknown[0][:80]!r}, which no snapshot needs")
    content = _Unpickler(program, entries).load()
    if _weigh(content, 0, {})[0] > max_steps:
        raise _unsafe("its values are nested too often")
    return Outline(content, entries, tuple(sorted(names)))


def _unsafe(reason: str) -> Refusal:
    return Refusal(f"cannot be read safely: {reason}")


def _limit(numbers: tuple[int, int], entries: Mapping[str, Entry]) -> int:
    return numbers[0] + numbers[1] * len(entries)


def _check_steps(program: bytes, max_steps: int) -> None:
    """Refuse a pickle of too many steps, or with keys that take long to hash.

    Of each value on the unpickler's stack it follows how many parts its hash is made of.
    """
    stacks: list[list[int]] = [[]]  # one more for each mark
    memo: dict[Any, int] = {}
    hashed = 0
    for step, (code, value, _) in enumerate(pickletools.genops(program)):
        name, argument = code.name, cast("Any", value)
        if step > max_steps or hashed > _MAX_HASHED or (name in _PUTS and argument > max_steps):
            raise _unsafe("its pickle asks for too much")
        if name == "PROTO" and argument != 2:
            raise _unsafe(f"its pickle is of protocol {argument}, torch writes 2")
        if name == "MARK":
            stacks.append([])
        elif name in _PUTS:
            memo[argument] = stacks[-1][-1]
        elif name in _GETS:
            stacks[-1].append(memo[argument])
        else:
            items = _popped(code, stacks)
            hashed += sum(items[1::2]) if name.startswith("SETITEM") else 0
            stacks[-1] += [_hash_size(name, argument, items)] * len(code.stack_after)


def _popped(code: pickletools.OpcodeInfo, stacks: list[list[int]]) -> list[int]:
    """What an instruction takes from the stack."""
    needed, items = code.stack_before, []
    if pickletools.markobject in needed:
        needed, items = needed[: needed.index(pickletools.markobject)], stacks.pop()
    start = len(stacks[-1]) - len(needed)
    if start < 0:
        raise _unsafe("its pickle takes more than there is")
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
    """Builds what a pickle would build, from stand-ins."""

    def __init__(self, program: bytes, entries: Mapping[str, Entry]) -> None:
        super().__init__(io.BytesIO(program), encoding="utf-8")
        self._entries = entries
        self._storages: dict[str, Storage] = {}
        self._left = _limit(_MAX_COPIED, entries)
        self._stand_ins: dict[str, Any] = {**FOREIGN, "collections.OrderedDict": _ordered}

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name."""
        path = f"{_MODULES.get(module, module)}.{name}"
        if path not in self._stand_ins:
            dtype = vars(torch).get(name) if module == "torch" else None
            note = type("Note", (Note,), {"path": path, "check": self._check_call})
            self._stand_ins[path] = dtype if isinstance(dtype, torch.dtype) else note
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
            raise _unsafe("its pickle refers to a storage that is not there")
        if entry.size != length * dtype.itemsize:
            raise Refusal(f"is damaged: {entry.name} is not as long as its tensors need")
        storage = Storage(entry, dtype)
        if self._storages.setdefault(key, storage) != storage:
            raise _unsafe(f"its pickle uses {entry.name} as two types")
        return storage

    def _check_call(self, path: str, arguments: tuple[Any, ...]) -> None:
        for value in arguments:  # a few bytes can ask for the same large copy again and again
            size = len(value) if hasattr(value, "__len__") else 0
            self._left -= _ITEM_BYTES + size * (1 if isinstance(value, str) else _ITEM_BYTES)
        if self._left < 0:
            raise _unsafe("its pickle asks for too much")
        check: Callable[..., bool] = _CHECKS.get(path, _is_harmless)
        if path in _VIEWS:
            _check_view(*arguments)
        elif not check(path, *arguments):
            raise _unsafe(f"its pickle calls {path[:80]!r} with other arguments than torch writes")


def _ordered() -> OrderedDict[Any, Any]:
    return OrderedDict()  # torch writes its items afterwards


def _is_harmless(path: str, *_: Any) -> bool:
    # classes of tensors would make new ones of any size
    return not (path.startswith("torch.") and path.endswith(("Tensor", "Storage")))


def _is_tensor_with_attributes(_: str, function: Any, __: Any, inner: Any, *___: Any) -> bool:
    return isinstance(function, type) and issubclass(function, Note) and bool(function(*inner))


def _are_bytes(_: str, text: Any = "", *encoding: Any) -> bool:
    is_text = isinstance(text, Note) and text.path == "_codecs.encode"  # as bytes are written
    return (is_text or isinstance(text, str)) and encoding in _LATIN


def _are_counts(_: str, counts: Any) -> bool:
    return type(counts) is dict and all(type(count) is int for count in counts.values())


def _are_fast_to_hash(_: str, items: Any) -> bool:
    return type(items) is list and all(
        item is None
        or isinstance(item, str | float)
        or (isinstance(item, int) and abs(item) < _MAX_HASH)
        for item in items
    )


_CHECKS: Final[Mapping[str, Callable[..., bool]]] = {
    "_codecs.encode": _are_bytes,
    "builtins.bytearray": _are_bytes,
    "builtins.set": _are_fast_to_hash,
    "collections.Counter": _are_counts,
    "torch._tensor._rebuild_from_type_v2": _is_tensor_with_attributes,
}


def _check_view(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> None:
    """Refuse a tensor that reaches beyond its storage, which torch would make longer."""
    lengths = (offset, *size, *stride)
    is_odd = type(storage) is not Storage or len(size) != len(stride) or len(size) > _MAX_DIMENSIONS
    if is_odd or not all(type(length) is int and 0 <= length < 1 << 62 for length in lengths):
        raise _unsafe("a tensor is not as torch writes it")
    dtype = next((item for item in rest if isinstance(item, torch.dtype)), storage.dtype)
    length = storage.entry.size // dtype.itemsize
    num_elements = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if num_elements and last >= length:
        raise Refusal(f"is damaged: a tensor reaches beyond its storage {storage.entry.name}")
    if num_elements > max(length, _MAX_REPEATED):
        raise _unsafe(f"a tensor repeats its storage {storage.entry.name}")


def _weigh(value: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a value holds, those it holds twice counted twice, and how deep.

    A few bytes can hold a list that holds another list ten times, and so on: nothing that walks
    through such a value would come to an end.
    """
    if value is None or isinstance(value, (Note, *_LEAVES)):
        return 1, 0
    if id(value) not in known and depth <= _MAX_DEPTH:
        known[id(value)] = 0, _MAX_DEPTH  # until it is done: it must not hold itself
        inner = [_weigh(item, depth + 1, known) for item in _items(value)]
        height = max((height for _, height in inner), default=-1) + 1
        known[id(value)] = 1 + sum(weight for weight, _ in inner), height
    weight, height = known.get(id(value), (0, 0))
    if depth + height > _MAX_DEPTH:
        raise _unsafe("its values are nested too deep")
    return weight, height


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Stub):
        return value.attributes.values()
    # torch keeps the versions of layers in this attribute; others could hide methods
    attributes = getattr(value, "__dict__", {}).keys()
    if type(value) not in _CONTAINERS or not attributes <= {"_metadata"}:
        raise _unsafe(f"it holds a {type(value).__name__} that is no plain value")
    if isinstance(value, dict) and any(isinstance(key, type) for key in value):
        raise _unsafe("a mapping has a class for a key")
    return value.values() if isinstance(value, dict) else value
