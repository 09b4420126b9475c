"""What is wrong with a configuration: everything at once, each mistake with its full dotted key.

jsonargparse stops at the first mistake, and names types and parsers. Where it has found one, this
module checks the configuration argument by argument, and finds the key of what cannot be built.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from jsonargparse import ArgumentError, ArgumentParser

from lis2_lightning.errors import ConfigError, DataError, Lis2Error, did_you_mean, one_line

# what the facade passes to the components that are built late, and their base classes
_LATE: Final = {
    "optimizer": ("params", "torch.optim.Optimizer"),
    "scheduler": ("optimizer", "torch.optim.lr_scheduler.LRScheduler"),
}
_MISSING_CLASS: Final = re.compile(r"class_path '([^']+)':\s+((?:No module|module '|cannot imp).+)")
_WRONG_CLASS: Final = re.compile(r"Import path (\S+) does not correspond to a subclass of (\w+)")
_NO_CLASS: Final = re.compile(r"Not a valid subclass of (\w+)")
_EXPECTED: Final = re.compile(r"Expected (?:an? )?(?:<class '([\w.]+)'>|typing\.Literal\[(.+)\])")
_FIRST_OF_SEVERAL: Final = re.compile(r"Errors:\s+- (.+)")
_PARSER_KEY: Final = re.compile(r'Parser key "([^"]+)":\s*')


def mistakes(
    component: Callable[..., Any],
    arguments: Mapping[Any, Any],
    *,
    path: str = "",
    skip: Set[str] = frozenset(),
) -> Iterator[str]:
    """A sentence for each argument of a component that is unknown, missing or wrong.

    Arguments are in jsonargparse's spelling; those in ``skip`` come from elsewhere.
    """
    skip = skip | ({_LATE[path][0]} if path in _LATE else set())
    parameters = inspect.signature(component).parameters
    try:
        defaults = _parser(component, skip).get_defaults(skip_validation=True)
    except (ValueError, TypeError):
        return  # its signature cannot be read
    known = list(vars(defaults))
    yield from unknown(arguments, known, path=path)
    for name in known:
        is_needed = name in parameters and parameters[name].default is inspect.Parameter.empty
        if name in arguments:
            parser = _parser(component, skip | set(known) - {name})
            yield from _of_value(parser, name, arguments[name], _join(path, name))
        elif is_needed:
            yield f"{_join(path, name)} is missing: give it a value"


def unknown(names: Iterable[Any], valid: Iterable[str], *, path: str = "") -> Iterator[str]:
    """A sentence for each name that is not valid under a key, with the nearest that are."""
    valid = [_join(path, name) for name in valid]
    for name in (_join(path, str(name)) for name in names):
        if name not in valid:
            yield f"unknown key {name!r}: {did_you_mean(name, valid)}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _parser(component: Callable[..., Any], skip: Set[str]) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(component, skip={*skip}, fail_untyped=False, sub_configs=False)
    return parser


def _of_value(parser: ArgumentParser, name: str, value: Any, path: str) -> Iterator[str]:
    try:
        parser.parse_object(deepcopy({name: value}))  # it writes into what it is given
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything on its import
        if isinstance(error, ArgumentError):
            message = _sentence(error, path, value)
        else:
            named = value.get("class_path") if isinstance(value, Mapping) else value
            message = f"{path}: {named} cannot be imported: {one_line(error)}"
        if not _is_wrong_class(error, value):
            inner = list(_of_components(path, value))
            message = "" if inner or _is_reported(value) else message
            yield from inner
        if message:
            yield message


def _is_wrong_class(error: Exception, value: Any) -> bool:
    match = _WRONG_CLASS.search(str(error))
    return match is not None and isinstance(value, Mapping) and match[1] == value.get("class_path")


def _is_reported(value: Any) -> bool:
    """Whether a component has no class, which its translation has reported."""
    if isinstance(value, Mapping):
        return value.get("class_path") == "" or any(map(_is_reported, value.values()))
    return isinstance(value, list | tuple) and any(map(_is_reported, value))


def _of_components(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _of_components(f"{path}[{i}]", item)
    elif isinstance(value, Mapping) and (component := imported(value)):
        base = imported({"class_path": _LATE[path][1]}) if path in _LATE else object
        arguments = value.get("init_args") or {}
        if not issubclass(component, base):
            yield f"{path} must be a {base.__name__}, got {value['class_path']}"
        elif isinstance(arguments, Mapping):
            yield from mistakes(component, arguments, path=path)


def imported(component: Mapping[str, Any]) -> Any:
    """The class that a mapping's ``class_path`` names, if its module is imported already."""
    module, _, name = str(component.get("class_path")).rpartition(".")
    named = getattr(sys.modules.get(module), name, None)
    return named if isinstance(named, type) else None


def _sentence(error: Exception, path: str, value: Any) -> str:
    message = str(error)
    if match := _MISSING_CLASS.search(message):
        return f"{path}: there is no class {match[1]} ({match[2].strip()}): check its path"
    if match := _WRONG_CLASS.search(message):
        return f"{path} must be a {match[2]}, got {match[1]}"
    if match := _NO_CLASS.search(message):
        return f"{path} must name a {match[1]}, by its 'type' or 'class_path', got {value}"
    if kinds := [literal or _plain(kind) for kind, literal in _EXPECTED.findall(message)]:
        allowed = " or ".join(", ".join(dict.fromkeys(kinds)).rsplit(", ", 1))
        return f"{path} must be {allowed}, got {value or repr(value)}"
    match = _FIRST_OF_SEVERAL.search(message)
    reason = match[1].strip() if match else short(error)
    named = value.get("class_path") if isinstance(value, Mapping) else None
    return f"{path}: {named} cannot be used: {reason}" if named else f"{path}: {reason}"


def _plain(name: str) -> str:
    plain = name.rpartition(".")[2]
    return {"NoneType": "null", "Sequence": "a list", "list": "a list"}.get(plain, plain)


def short(error: Exception) -> str:
    """A parser's error as one line, without its words for programmers."""
    return _PARSER_KEY.sub("", one_line(error))


@dataclass(frozen=True)
class Builder:
    """Builds a component for jsonargparse, now or (optimizers, schedulers) later."""

    config: Mapping[str, Any]  # resolved; the component's key is looked up in it
    errors: list[Lis2Error] = field(default_factory=list)  # that it has raised

    def __call__(self, component: type, /, *args: Any, **arguments: Any) -> Any:
        """Build a component; what its code raises becomes a DataError or ConfigError."""
        try:
            return component(*args, **arguments)
        except Exception as error:
            kind = DataError if isinstance(error, DataError) else ConfigError
            message = _blame(self._key(component, arguments), error, arguments)
            self.errors.append(kind(message))  # jsonargparse tries other types after an error
            raise self.errors[-1] from error

    def _key(self, component: type, arguments: Mapping[str, Any]) -> str:
        candidates = [
            (path, written)
            for path, named, written in _components("", self.config)
            if named is component
        ]
        # several data sets may be of one class
        exact = [path for path, written in candidates if _agree(written, arguments)]
        return [*exact, *(path for path, _ in candidates), component.__name__][0]


def _components(path: str, value: Any) -> Iterator[tuple[str, type, Mapping[str, Any]]]:
    """Key, class and arguments of every component."""
    inner = value
    if isinstance(value, list):
        inner = {f"[{i}]": item for i, item in enumerate(value)}
    elif isinstance(value, Mapping) and (component := imported(value)):
        inner = value.get("init_args") or {}
        yield path, component, inner
    if isinstance(inner, Mapping):
        for key, item in inner.items():
            joined = f"{path}{key}" if str(key).startswith("[") else f"{path}.{key}".lstrip(".")
            yield from _components(joined, item)


def _agree(written: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    plain = {key: value for key, value in written.items() if not isinstance(value, list | Mapping)}
    return all(str(arguments.get(key)) == str(value) for key, value in plain.items())


def _blame(path: str, error: BaseException, arguments: Mapping[str, Any]) -> str:
    """Name the argument at fault: the one the error begins with, or whose value it mentions.

    >>> _blame("data", ValueError("size must be at least 1, not 0"), {"size": 0, "stride": 2})
    'data.size must be at least 1, not 0'
    >>> _blame("optimizer", ValueError("Invalid learning rate: -1.0"), {"lr": -1.0})
    'optimizer.lr must not be -1.0: Invalid learning rate: -1.0'
    """
    text = one_line(error)
    if isinstance(error, DataError):
        return text  # it names the file, and a path must stay as it was written
    about = {} if isinstance(error, OSError) else arguments  # a file may be named like an argument
    first = re.match(r"(\w+)[ :,]", text)
    if first and first[1] in about:
        return f"{path}.{text}"
    for name, value in about.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        for number in (n for n in numbers if isinstance(n, int | float) and n is not True):
            if re.search(rf"(?<![\w.-]){re.escape(repr(number))}(?![\w.])", text):
                return f"{path}.{name} must not be {value!r}: {text}"
    return f"{path} cannot be built: {text}"
