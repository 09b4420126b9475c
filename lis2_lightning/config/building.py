"""Objects of what was parsed; what cannot be built is told with its key."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any, Final

import torch
from jsonargparse import ArgumentParser, Namespace
from torch.utils.data import Dataset

from lis2_lightning.config.diagnosis import culprit, parser_of, reason
from lis2_lightning.errors import ConfigError, Lis2Error

_LIGHTNING: Final = "lightning"
_TORCH: Final = "torch.optim."
_FACTORIES: Final = ("optimizer", "scheduler")


def build(
    parser: ArgumentParser, namespace: Namespace, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Build every component.

    Args:
        parser: The parser of the keys.
        namespace: What it has parsed.
        config: The same as plain values.

    Returns:
        The objects, by key.

    Raises:
        Lis2Error: A component cannot be built; the sentence names its key.
    """
    try:
        built = vars(parser.instantiate(namespace))
    except Exception as error:  # whatever a component's own code raises, its user can mend
        told = _blamed("", config) or f"the configuration cannot be built: {reason(error)}"
        kind = type(error) if isinstance(error, Lis2Error) else ConfigError
        raise kind(told) from error
    _try_optimizer(built, config)
    return {**built, _LIGHTNING: vars(built[_LIGHTNING])}


def _blamed(path: str, value: Any) -> str | None:
    """A sentence about the innermost component that cannot be built."""
    inner = _parts(path, value)
    told = next(filter(None, (_blamed(key, item) for key, item in inner.items())), None)
    if told or path in _FACTORIES or not _is_component(value):
        return told
    component, arguments = class_of(value), value.get("init_args") or {}
    error = _failure(component, arguments, path)
    if error is None:
        return None
    # a data set may look through a large image each time
    trial = None if issubclass(component, Dataset) else partial(_builds, component, path=path)
    return culprit(path, error, arguments, trial)


def _parts(path: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list | tuple):
        return {f"{path}[{i}]": item for i, item in enumerate(value)}
    inner = value.get("init_args") if _is_component(value) else value
    if not isinstance(inner, Mapping):
        return {}
    return {f"{path}.{key}".lstrip("."): item for key, item in inner.items()}


def _is_component(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("class_path"), str)


def class_of(component: Mapping[str, Any]) -> Any:
    """The class that a component names.

    Args:
        component: With ``class_path``, which can be imported.
    """
    module, _, name = component["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def _failure(component: Any, arguments: Mapping[str, Any], path: str) -> Exception | None:
    parser = parser_of(component, path)
    if parser is None:
        return None
    try:
        component(**vars(parser.instantiate(parser.parse_object(deepcopy(dict(arguments))))))
    except Exception as error:  # noqa: BLE001 - as above
        return error
    return None


def _builds(component: Any, arguments: Mapping[str, Any], *, path: str) -> bool:
    return _failure(component, arguments, path) is None


def _try_optimizer(built: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Build torch's own optimizers and schedulers once, for the key of a value they refuse.

    Others may need the parameters of the network itself.
    """
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    made: Any = [weight]
    for key in _FACTORIES:
        given: Any = config.get(key)
        if not _is_component(given) or not given["class_path"].startswith(_TORCH):
            return
        try:
            made = built[key](made)
        except Exception as error:
            arguments = given.get("init_args") or {}
            trial = partial(_makes, class_of(given), made)
            raise ConfigError(culprit(key, error, arguments, trial)) from error


def _makes(factory: Any, first: Any, arguments: Mapping[str, Any]) -> bool:
    try:
        factory(first, **arguments)
    except Exception:  # noqa: BLE001 - as above
        return False
    return True
