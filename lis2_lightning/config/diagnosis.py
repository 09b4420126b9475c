"""What is wrong with a configuration: all of it at once, each with its full dotted key.

jsonargparse stops at the first mistake. Only where it has found one is the configuration looked
through here, key by key and argument by argument.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

from jsonargparse import ArgumentError, ArgumentParser
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lis2_lightning.config.messages import is_of_another_kind, sentence
from lis2_lightning.errors import Lis2Error, did_you_mean

# what the facade hands to an optimizer and to a scheduler
_HANDED_OVER: Final = {"optimizer": {"params"}, "scheduler": {"optimizer"}}


def complaints(
    config: Mapping[str, Any], required: Iterable[str], single: Callable[[str], ArgumentParser]
) -> list[str]:
    """Say what is wrong with each key.

    Args:
        config: The keys with jsonargparse's spelling of components.
        required: The keys that must be there.
        single: Makes a parser of one key, which is quicker than one of all keys.

    Returns:
        A sentence for each mistake; empty where the keys are right.
    """
    told = [f"{key} is missing: give it a value" for key in required if key not in config]
    for key, value in config.items():
        parser = single(key)
        if isinstance(value, Mapping) and key == "lightning":
            for name, inner in value.items():
                told += _of_value(parser, (key, str(name)), inner)
        else:
            told += _of_value(parser, (key,), value)
    return told


def _of_value(parser: ArgumentParser, path: Sequence[str], value: Any) -> list[str]:
    whole: Any = value
    for key in reversed(path):
        whole = {key: whole}
    error = _objection(parser, whole)
    if error is None:
        return []
    key = ".".join(path)
    told = _told(error) if isinstance(error, ArgumentError) else _told(error, within=key)
    if path[0] not in told:  # an error of the component's own module, taken for the parser's
        name = value.get("class_path") if isinstance(value, Mapping) else value
        told = f"{key}: {name} cannot be used: {told}"
    return _explained(key, value, error, told)


def _explained(path: str, value: Any, error: Exception, told: str) -> list[str]:
    """What is wrong inside a value, or else with the value as a whole."""
    if isinstance(value, Mapping) and is_of_another_kind(str(error), value.get("class_path")):
        return [told]
    return list(_of_components(path, value)) or ([] if _has_unknown_name(value) else [told])


def _has_unknown_name(value: Any) -> bool:
    """Whether a component has no class: its translation has told of it."""
    if isinstance(value, Mapping):
        return value.get("class_path") == "" or any(map(_has_unknown_name, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_unknown_name, value))


def _objection(parser: ArgumentParser, given: Mapping[str, Any]) -> Exception | None:
    """What a parser has against these values; not that others are missing."""
    try:
        parser.parse_object(deepcopy(dict(given)))  # it writes into what it is given
    except ArgumentError as error:
        absent = missing(error)
        return None if absent and set(absent) <= _keys_of(parser) - set(given) else error
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything on its import
        return error
    return None


def _keys_of(parser: ArgumentParser) -> set[str]:
    return set(parser.get_defaults(skip_validation=True).keys())


def missing(error: ArgumentError) -> list[str]:
    """The arguments that a parser misses, where that is all it says."""
    found = re.match(r"the following arguments are required: ([\w., ]+)", str(error))
    return [name.strip() for name in found[1].split(",")] if found else []


def _missing_of(parser: ArgumentParser, given: Iterable[Any]) -> list[str]:
    try:
        parser.parse_object({})
    except ArgumentError as error:
        return [name for name in missing(error) if name not in given]
    return []


def _told(error: Exception, within: str = "") -> str:
    if isinstance(error, ArgumentError):
        return sentence(str(error), within=within)
    return f"{within or 'a component'} cannot be imported: {reason(error)}"


def reason(error: BaseException) -> str:
    """An exception as one line: its text, after its name where that tells more.

    >>> reason(ValueError("no  good")), reason(KeyError("x"))
    ('no good', "KeyError: 'x'")
    """
    text = " ".join(str(error).split())
    plain = isinstance(error, Lis2Error | ValueError | TypeError | OSError | RuntimeError) and text
    return text if plain else f"{type(error).__name__}: {text}".removesuffix(": ")


def _of_components(path: str, value: Any) -> Iterator[str]:
    """What is wrong inside components, wherever in a value they are."""
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _of_components(f"{path}[{i}]", item)
    elif isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
        yield from _of_component(path, value["class_path"], value.get("init_args") or {})


def _of_component(path: str, name: str, arguments: Any) -> Iterator[str]:
    module, _, attribute = name.rpartition(".")
    if not module:
        return  # an unknown short name, of which its translation has told
    # never imported here: the parser has, where a snapshot's configuration may name the class
    found = getattr(sys.modules.get(module), attribute, None)
    base = {"optimizer": Optimizer, "scheduler": LRScheduler}.get(path, object)
    if isinstance(found, type) and not issubclass(found, base):
        yield f"{path} must be a {base.__name__}, got {name}"
    elif isinstance(found, type) and isinstance(arguments, Mapping):
        yield from _of_arguments(path, found, arguments)


def _of_arguments(path: str, component: type, arguments: Mapping[Any, Any]) -> Iterator[str]:
    parser = parser_of(component, path)
    if parser is None:
        return
    known = _keys_of(parser)
    for name in arguments:
        if str(name) not in known:
            valid = [f"{path}.{each}" for each in known]
            yield f"unknown key '{path}.{name}': {did_you_mean(f'{path}.{name}', valid)}"
    for name in _missing_of(parser, arguments):
        yield f"{path}.{name} is missing: give it a value"
    for name in (name for name in arguments if name in known):
        error = _objection(parser, {name: arguments[name]})
        if error is not None:
            told = _told(error, within=path)
            yield from _explained(f"{path}.{name}", arguments[name], error, told)


def parser_of(component: type, path: str) -> ArgumentParser | None:
    """A parser of a component's arguments, or null where they cannot be told.

    Args:
        component: The class.
        path: Where it stands; what the facade hands over there is left out.
    """
    parser = ArgumentParser(exit_on_error=False)
    skipped = _HANDED_OVER.get(path, set())
    try:
        parser.add_class_arguments(component, skip=skipped, fail_untyped=False, sub_configs=False)
    except (ValueError, TypeError):
        return None
    return parser


def culprit(
    path: str,
    error: BaseException,
    arguments: Mapping[str, Any],
    builds: Callable[[Mapping[str, Any]], bool] | None = None,
) -> str:
    """A sentence about a component that cannot be built, which names the argument at fault.

    Args:
        path: The component's key.
        error: What building it raised.
        arguments: What it was built with.
        builds: Whether it can be built from other arguments; null where trying takes long.

    >>> culprit("data", ValueError("size must be at least 1, not 0"), {"size": 0, "stride": 2})
    'data.size must be at least 1, not 0'
    """
    text = reason(error)
    for name in sorted(arguments, key=len, reverse=True):
        if found := re.search(rf"(?<![\w.'\"/]){re.escape(name)}(?![\w.'\"/])", text):
            return f"{text[: found.start()]}{path}.{text[found.start() :]}"
    for name in arguments if builds else ():
        if builds and builds({key: arguments[key] for key in arguments if key != name}):
            return f"{path}.{name} must not be {arguments[name]!r}: {text}"
    return f"{path} cannot be built: {text}"
