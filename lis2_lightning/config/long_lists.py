"""Long lists of numbers, which jsonargparse takes a time for that grows with their length squared.

While it parses, a few numbers stand for such a list: one of each type that it holds, so that its
type is checked as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from jsonargparse import Namespace

_LONGEST: Final = 32
_DEEPEST: Final = 12  # a configuration may hold itself, which is refused elsewhere
_Result = TypeVar("_Result")
Place = tuple[Any, ...]  # the keys and indices that lead to a list


def shorten(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[Place, list[Any]]]:
    """The configuration with samples in the place of its long lists, and those lists.

    >>> short, lists = shorten({"data": {"folds": [*range(1000)], "size": 3}})
    >>> short
    {'data': {'folds': [999], 'size': 3}}
    >>> len(restored(short, lists)["data"]["folds"])
    1000
    """
    lists: dict[Place, list[Any]] = {}
    return {key: _short(value, (key,), lists) for key, value in config.items()}, lists


def restored(result: _Result, lists: Mapping[Place, list[Any]]) -> _Result:
    """What was made of the samples with the lists put back, in the types that the samples have."""
    for place, numbers in lists.items():
        owner = _inside(result)
        for key in place[:-1]:
            owner = _inside(owner[_named(owner, key)])
        name = _named(owner, place[-1])
        types = {type(b): type(a) for b, a in zip(_sample(numbers), owner[name], strict=True)}
        owner[name] = type(owner[name])(types[type(number)](number) for number in numbers)
    return result


def _is_long(value: Any) -> bool:
    is_long = isinstance(value, list) and len(value) > _LONGEST
    return is_long and {type(item) for item in value} <= {int, float}


def _short(value: Any, place: Place, lists: dict[Place, list[Any]]) -> Any:
    """The value with samples in the place of long lists, which are added to ``lists``."""
    if _is_long(value):
        lists[place] = value
        return _sample(value)
    if len(place) == _DEEPEST:
        return value
    if isinstance(value, Mapping):
        return {key: _short(item, (*place, key), lists) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item, (*place, index), lists) for index, item in enumerate(value)]
    return value


def _sample(numbers: list[Any]) -> list[Any]:
    return list({type(number): number for number in numbers}.values())


def _inside(value: Any) -> Any:
    return vars(value) if isinstance(value, Namespace) else value


def _named(owner: Any, key: Any) -> Any:
    """A key as it is called now: a number in YAML may have become a text, or the other way."""
    return key if isinstance(owner, list) else next(k for k in owner if str(k) == str(key))
