"""A pickle read without running it: what it would build, or why nobody should.

A pickle is a program. This one is walked through by a machine of our own, which knows the few
instructions that torch.save writes and the few names that a snapshot needs; for those it notes what
they would build. It calls nothing that the file names, and refuses a program that asks for more
memory or time than a snapshot needs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from lis2_lightning.snapshots.directory import Refusal
from lis2_lightning.snapshots.machine import Machine

_BEGIN: Final = b"\x80\x02"  # torch.save writes protocol 2
_END: Final = b"."


def walk(machine: Machine) -> Any:
    """Walk through a machine's program to its end.

    Args:
        machine: A fresh one.

    Returns:
        What the program would build, of plain values and the notes of ``notes.py``.

    Raises:
        Refusal: It asks for something no snapshot needs, or is damaged.
    """
    program, most = machine.program, machine.max_steps
    if len(program) > machine.max_bytes:
        raise Refusal("cannot be read safely: its pickle is longer than that of any snapshot")
    if not program.startswith(_BEGIN) or not program.endswith(_END):
        raise Refusal("is damaged: its pickle does not begin and end as torch writes it")
    machine.place, end = len(_BEGIN), len(program) - len(_END)
    for _ in range(most):
        place = machine.place
        if place == end:
            return machine.result()
        machine.place = place + 1
        try:
            _STEPS[program[place]](machine)
        except (LookupError, TypeError, ValueError) as error:
            raise Refusal(
                f"cannot be read safely: instruction {program[place : place + 1].hex() or 'none'} "
                f"at byte {place} of its pickle is none that torch writes there"
            ) from error
    raise Refusal(f"cannot be read safely: its pickle takes more than {most} steps")


def _mark(machine: Machine) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _byte(machine: Machine) -> int:
    place = machine.place
    machine.place = place + 1
    return machine.program[place]


def _small_number(machine: Machine) -> None:
    machine.stack.append(_byte(machine))


def _text(machine: Machine) -> None:
    content = machine.read(machine.number(4))
    machine.stack.append(content.decode("utf-8", "surrogatepass"))


def _tuple(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.stack.append(tuple(items))


def _put(machine: Machine) -> None:
    machine.memo[_byte(machine)] = machine.stack[-1]


def _put_far(machine: Machine) -> None:
    machine.memo[machine.number(4)] = machine.stack[-1]


def _get(machine: Machine) -> None:
    machine.stack.append(machine.memo[_byte(machine)])


def _pushes(value: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(value(machine))


# what torch.save writes, by the instructions' numbers
_STEPS: Final[Mapping[int, Callable[[Machine], None]]] = {
    ord("("): _mark,
    ord("N"): _pushes(lambda _: None),
    0x88: _pushes(lambda _: True),
    0x89: _pushes(lambda _: False),
    ord("J"): _pushes(lambda m: int.from_bytes(m.read(4), "little", signed=True)),
    ord("K"): _small_number,
    ord("M"): _pushes(lambda m: m.number(2)),
    0x8A: _pushes(lambda m: int.from_bytes(m.read(m.number(1)), "little", signed=True)),
    ord("G"): _pushes(lambda m: struct.unpack(">d", m.read(8))[0]),
    ord("X"): _text,
    ord(")"): _pushes(lambda _: ()),
    ord("t"): _tuple,
    0x85: _pushes(lambda m: (m.stack.pop(),)),
    0x86: _pushes(lambda m: tuple(m.pop(2))),
    0x87: _pushes(lambda m: tuple(m.pop(3))),
    ord("]"): _pushes(lambda _: []),
    ord("a"): lambda m: m.extend(m.pop(1)),
    ord("e"): lambda m: m.extend(m.pop_mark()),
    ord("}"): _pushes(lambda _: {}),
    ord("s"): lambda m: m.set_items(m.pop(2)),
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    ord("q"): _put,
    ord("r"): _put_far,
    ord("h"): _get,
    ord("j"): _pushes(lambda m: m.memo[m.number(4)]),
    ord("c"): lambda m: m.name(m.line(), m.line()),
    ord("Q"): lambda m: m.find_storage(),
    ord("R"): lambda m: m.call(),
    0x81: lambda m: m.call(new=True),
    ord("b"): lambda m: m.build(),
}
