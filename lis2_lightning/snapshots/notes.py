"""What the names in a snapshot's pickle would build, noted down instead of built.

torch's own safe reader calls some forty functions for a file. A snapshot of plain values and
tensors needs the nine below, with arguments that are checked here: a tensor lies inside its
storage, a storage is as long as its entry in the file, a counter holds counts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from lis2_lightning.snapshots.directory import Refusal

Maker = Callable[..., Any]

_MAX_DIMENSIONS: Final = 64
_MAX_NUMBER: Final = 1 << 62
# a view may repeat what it shows, as an expanded buffer does, up to this many elements
_MAX_REPEATED: Final = 1_000_000
_ODD: Final = "cannot be read safely: a tensor is not as torch writes it"
_LAYOUTS: Final = frozenset(
    {"torch.sparse_coo", "torch.sparse_csr", "torch.sparse_csc"}
    | {"torch.sparse_bsr", "torch.sparse_bsc"}
)
_DEVICE: Final = re.compile(r"[a-z]{1,20}(:\d{1,4})?")


class Named(NamedTuple):
    """A name that the pickle holds, such as that of a function."""

    path: str


class Stored(NamedTuple):
    """A storage: the entry that holds its bytes, and of which type and number its elements are."""

    key: str
    dtype: str
    length: int


class Tensor(NamedTuple):
    """A view of a storage."""

    storage: Stored
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Layout(NamedTuple):
    """How a sparse tensor is laid out."""

    name: str


class Sparse(NamedTuple):
    """A sparse tensor: the name of its layout, and what torch builds it from."""

    layout: str
    parts: tuple[Any, ...]


class Ordered(dict[Any, Any]):
    """A mapping that torch may hang ``_metadata`` on, which nobody reads here."""


class Stub(dict[Any, Any]):
    """An object of another program, with its attributes, and without a class or a method.

    Args:
        path: The name of its class.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path


# the names of storages, each with its elements' type and size in bytes
STORAGES: Final[Mapping[str, tuple[str, int]]] = {
    "torch.BFloat16Storage": ("bfloat16", 2),
    "torch.BoolStorage": ("bool", 1),
    "torch.ByteStorage": ("uint8", 1),
    "torch.CharStorage": ("int8", 1),
    "torch.ComplexDoubleStorage": ("complex128", 16),
    "torch.ComplexFloatStorage": ("complex64", 8),
    "torch.DoubleStorage": ("float64", 8),
    "torch.FloatStorage": ("float32", 4),
    "torch.HalfStorage": ("float16", 2),
    "torch.IntStorage": ("int32", 4),
    "torch.LongStorage": ("int64", 8),
    "torch.ShortStorage": ("int16", 2),
    "torch.storage.UntypedStorage": ("uint8", 1),
}
# types without a storage of their own
DTYPES: Final[Mapping[str, int]] = {
    "torch.float8_e4m3fn": 1,
    "torch.float8_e4m3fnuz": 1,
    "torch.float8_e5m2": 1,
    "torch.float8_e5m2fnuz": 1,
    "torch.uint16": 2,
    "torch.uint32": 4,
    "torch.uint64": 8,
}


def stored(told: Any, sizes: Mapping[str, int]) -> Stored:
    """What torch tells of a storage, checked against the entries of the file.

    Args:
        told: ``("storage", type, key, device, length)``.
        sizes: The length of each storage's entry in bytes.

    Raises:
        Refusal: The two differ.
    """
    match told:
        case ("storage", Named(path=path), str(key), str(device), int(length)) if path in STORAGES:
            dtype, width = STORAGES[path]
        case _:
            raise Refusal("cannot be read safely: its pickle refers to what is no storage")
    if key not in sizes or not _DEVICE.fullmatch(device):
        raise Refusal(
            f"is damaged: it holds no storage {key[:20]!r} for the device {device[:20]!r}"
        )
    if sizes[key] != length * width:
        raise Refusal(f"is damaged: storage {key!r} is not as long as its tensors need")
    return Stored(key, dtype, length)


def _tensor(storage: Any, *told: Any) -> Tensor:
    if type(storage) is not Stored or len(told) not in {5, 6}:
        raise Refusal(_ODD)
    return _view(storage, storage.dtype, storage.length, told[:5], told[5:])


def _tensor_of_type(storage: Any, *told: Any) -> Tensor:
    known = len(told) in {6, 7} and type(told[5]) is Named and told[5].path in DTYPES
    if not known or type(storage) is not Stored or storage.dtype != "uint8":
        raise Refusal(_ODD)
    path = told[5].path
    length = storage.length // DTYPES[path]
    return _view(storage, path.removeprefix("torch."), length, told[:5], told[6:])


def _view(
    storage: Stored, dtype: str, length: int, told: tuple[Any, ...], properties: tuple[Any, ...]
) -> Tensor:
    offset, size, stride, grad, hooks = told
    if not (_are_lengths((offset,)) and _are_lengths(size) and _are_lengths(stride)):
        raise Refusal(_ODD)
    if len(size) != len(stride) or any(properties) or not _is_without_hooks(grad, hooks):
        raise Refusal(_ODD)
    num_elements = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if num_elements and last >= length:
        raise Refusal(f"is damaged: a tensor reaches beyond its storage {storage.key!r}")
    if num_elements > max(length, _MAX_REPEATED):
        raise Refusal(f"cannot be read safely: a tensor repeats its storage {storage.key!r}")
    return Tensor(storage, dtype, offset, size, stride)


def _are_lengths(value: Any) -> bool:
    if type(value) is not tuple or len(value) > _MAX_DIMENSIONS:
        return False
    return all(type(number) is int and 0 <= number < _MAX_NUMBER for number in value)


def _is_without_hooks(grad: Any, hooks: Any) -> bool:
    return type(grad) is bool and type(hooks) is Ordered and not hooks


def _sparse(layout: Any, parts: Any) -> Sparse:
    if type(layout) is not Layout or type(parts) is not tuple or not 3 <= len(parts) <= 4:
        raise Refusal(_ODD)
    *tensors, size = [part for part in parts if type(part) is not bool]
    if not all(type(part) is Tensor for part in tensors) or not _are_lengths(size):
        raise Refusal(_ODD)
    return Sparse(layout.name, parts)


def _layout(name: Any) -> Layout:
    if name not in _LAYOUTS:
        raise Refusal(_ODD)
    return Layout(name.removeprefix("torch."))


def _parameter(data: Any, grad: Any, hooks: Any) -> Tensor:
    if type(data) is not Tensor or not _is_without_hooks(grad, hooks):
        raise Refusal(_ODD)
    return data


def _size(lengths: Any) -> tuple[int, ...]:
    if not _are_lengths(lengths):
        raise Refusal(_ODD)
    return tuple(lengths)


def _ordered() -> Ordered:
    return Ordered()


def _counter(counts: Any) -> Counter[Any]:
    if type(counts) is not dict or not all(type(count) is int for count in counts.values()):
        raise Refusal("cannot be read safely: a counter does not hold counts")
    return Counter(counts)


def _bytes(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise Refusal("cannot be read safely: bytes are not as Python writes them")
    return text.encode("latin-1")


# what a file of plain values and tensors may call
PLAIN: Final[Mapping[str, Maker]] = {
    "_codecs.encode": _bytes,
    "collections.Counter": _counter,
    "collections.OrderedDict": _ordered,
    "torch.Size": _size,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch.serialization._get_layout": _layout,
}
