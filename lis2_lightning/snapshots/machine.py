"""The machine that walks through a pickle: its stack, its memory, and what it refuses to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lis2_lightning.snapshots.directory import Refusal
from lis2_lightning.snapshots.notes import DTYPES, STORAGES, Maker, Named, Ordered, Stub, stored

# how long a pickle may be, how many steps it may take and how much it may copy: so much for plain
# values, and more for each storage, which is an entry in the file that somebody has to write
_NUM_BYTES: Final = 4_000_000, 1_000
_NUM_STEPS: Final = 200_000, 100
_NUM_COPIED: Final = 16_000_000, 1_000
_ITEM: Final = 64  # bytes that an item of a container takes at least
_MAX_ITEM: Final = 16
_MAX_TUPLE_KEYS: Final = 1_000
# two numbers may share a hash, and so make a mapping slow, only where one of them is larger
_MAX_KEY: Final = 1 << 60
_KEYS: Final = frozenset({str, int, float, bool, bytes, type(None)})
_TEXT: Final = frozenset({str, bytes})
_SIZED: Final = frozenset({str, bytes, tuple, list, dict})
# names that are written as Python 2 had them
_MODULES: Final[Mapping[str, str]] = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Machine:
    """Walks through one pickle.

    Args:
        program: The pickle.
        makers: What each name that may be called would build.
        sizes: The sizes in bytes of the storages in the same file.
    """

    def __init__(
        self, program: bytes, makers: Mapping[str, Maker], sizes: Mapping[str, int]
    ) -> None:
        self.program = program
        self.place = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.names: dict[str, Named] = {}
        self.max_bytes = _limit(_NUM_BYTES, sizes)
        self.max_steps = _limit(_NUM_STEPS, sizes)
        self._left = _limit(_NUM_COPIED, sizes)
        self._tuple_keys = 0
        self._makers = makers
        self._sizes = sizes

    def result(self) -> Any:
        """What is left at the end of the program.

        Raises:
            Refusal: More or less than one value is left.
        """
        if len(self.stack) != 1 or self.below:
            raise Refusal("is damaged: its pickle ends too early")
        return self.stack[0]

    def read(self, size: int) -> bytes:
        """The next bytes of the program; the last one, its end, is never among them."""
        start = self.place
        self.place = end = start + size
        if end >= len(self.program):
            raise Refusal("is damaged: its pickle ends too early")
        return self.program[start:end]

    def number(self, size: int) -> int:
        """The next bytes as a number."""
        return int.from_bytes(self.read(size), "little")

    def line(self) -> str:
        """The program up to the next line break."""
        start = self.place
        end = self.program.index(b"\n", start)
        self.place = end + 1
        return self.program[start:end].decode()

    def pop_mark(self) -> list[Any]:
        """End the stack that the last mark began, and give it."""
        items = self.stack
        self.stack = self.below.pop()
        return items

    def pop(self, count: int) -> list[Any]:
        """Take the last values from the stack."""
        taken = self.stack[-count:]
        if len(taken) < count:
            raise IndexError
        del self.stack[-count:]
        return taken

    def extend(self, items: list[Any]) -> None:
        """Append to the list that is last on the stack."""
        target = self.stack[-1]
        if type(target) is not list:
            raise Refusal(f"cannot be read safely: its pickle appends to {_kind(target)}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Set keys and values, in turn, of the mapping that is last on the stack."""
        target = self.stack[-1]
        if type(target) not in {dict, Ordered, Stub}:
            raise Refusal(f"cannot be read safely: its pickle sets items of {_kind(target)}")
        for place in range(0, len(items), 2):
            key = items[place]
            if type(key) is not str:
                self._check_key(key)
            target[key] = items[place + 1]

    def _check_key(self, key: Any) -> None:
        if type(key) is tuple:
            # their hashes can be made alike, which would make a large mapping slow
            self._tuple_keys += 1
            parts = key if self._tuple_keys <= _MAX_TUPLE_KEYS and len(key) <= _MAX_ITEM else (key,)
        else:
            parts = (key,)
        for part in parts:
            if type(part) not in _KEYS or (type(part) is int and abs(part) > _MAX_KEY):
                raise Refusal(f"cannot be read safely: a mapping has {_kind(part)} for a key")

    def name(self, module: str, name: str) -> None:
        """Note a name."""
        path = f"{_MODULES.get(module, module)}.{name}"
        if path not in self._makers and path not in STORAGES and path not in DTYPES:
            raise Refusal(
                f"cannot be read safely: it names {_shown(path)}, which no snapshot needs"
            )
        self.stack.append(self.names.setdefault(path, Named(path)))

    def find_storage(self) -> None:
        """Note a storage."""
        self.stack[-1] = stored(self.stack[-1], self._sizes)

    def call(self, *, new: bool = False) -> None:
        """Note what a call would build."""
        called, given = self.pop(2)
        maker = self._makers.get(called.path) if type(called) is Named else None
        if maker is None or type(given) is not tuple:
            raise Refusal(f"cannot be read safely: its pickle calls {_kind(called)}")
        self._spend(given)
        made = maker(*given)
        if new and type(made) is not Stub:
            raise Refusal(f"cannot be read safely: its pickle makes an object of {_kind(called)}")
        self.stack.append(made)

    def build(self) -> None:
        """Give an object its attributes."""
        target, state = self.pop(2)
        self.stack.append(target)
        if type(target) is Ordered and type(state) is dict and state.keys() <= {"_metadata"}:
            return  # torch keeps versions of layers there, which nobody reads here
        parts = state if type(state) is tuple else (state,)
        if type(target) is not Stub or not all(type(part) in {dict, type(None)} for part in parts):
            raise Refusal(f"cannot be read safely: its pickle changes {_kind(target)}")
        for part in parts:
            self._spend((part,))
            target.update(part or {})

    def _spend(self, given: tuple[Any, ...]) -> None:
        """Count what is copied: a few bytes can ask for the same large thing again and again."""
        for value in given:
            self._left -= _ITEM
            if type(value) in _SIZED:
                self._left -= len(value) * (1 if type(value) in _TEXT else _ITEM)
        if self._left < 0:
            raise Refusal("cannot be read safely: its pickle asks for too much")


def _limit(numbers: tuple[int, int], sizes: Mapping[str, int]) -> int:
    return numbers[0] + numbers[1] * len(sizes)


def _kind(value: Any) -> str:
    return _shown(value.path) if type(value) is Named else f"a value of type {type(value).__name__}"


def _shown(path: str) -> str:
    return repr(path[:80])
