"""Translates between LIS2's spelling of a component (``type``) and jsonargparse's (``class_path``).

LIS2 writes ``{type: AdamW, lr: 0.01}``, jsonargparse ``{class_path: torch.optim.AdamW, init_args:
{lr: 0.01}}``; a component without arguments may be its bare name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from lis2_lightning.config.loading import load_config, long_names
from lis2_lightning.config.names import KINDS, LIGHTNING_KINDS, USUAL, class_path, names
from lis2_lightning.errors import ConfigError

# LIS2 labels components with a name of the user's choice, and takes these without using them.
_IGNORED: Final = frozenset({"name", "split_ratio"})
_LISTS: Final = frozenset({"metrics", "trackers"})
_DEEPEST: Final = 20
_log = logging.getLogger("lis2_lightning")


def to_class_paths(config: Mapping[str, Any], *, wrong: list[str] | None = None) -> dict[str, Any]:
    """Translate a whole configuration, at any depth, into jsonargparse's spelling.

    With ``wrong``, a sentence for each mistake is added to it in place of raising them, and a
    component with a mistake has an empty ``class_path``.

    Raises:
        ConfigError: A component's name is unknown, or it has neither ``type`` nor ``class_path``.

    >>> to_class_paths({"epoch": 3, "optimizer": {"type": "sgd", "lr": 0.1}, "metrics": ["dice"]})
    {'epochs': 3, 'optimizer': {'class_path': 'torch.optim.SGD', 'init_args': {'lr': 0.1}},
     'metrics': [{'class_path': 'lis2_lightning.metrics.Dice'}]}
    """
    spelling = _Spelling()
    kept = spelling.without_ignored(config, "")
    named = spelling.attempt(lambda: long_names(kept), instead=kept)
    translated = {key: spelling.value(key, value, str(key)) for key, value in named.items()}
    if isinstance(theirs := named.get("lightning"), Mapping):
        translated["lightning"] = {k: spelling.of_lightning(k, v) for k, v in theirs.items()}
    if spelling.ignored:
        _log.info("without effect, as in LIS2: %s", ", ".join(spelling.ignored))
    if wrong is None and spelling.wrong:
        raise ConfigError("; ".join(spelling.wrong))
    if wrong is not None:
        wrong += spelling.wrong
    return translated


class _Spelling:
    """Translates components, and collects their mistakes and ignored arguments."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.ignored: list[str] = []

    def attempt(self, read: Callable[[], Any], *, instead: Any, path: str = "") -> Any:
        """A function's result, or ``instead`` where it raises a mistake, which is collected."""
        try:
            return read()
        except ConfigError as error:
            self.wrong.append(f"{path}: {error}" if path else str(error))
            return instead

    def without_ignored(self, mapping: Mapping[Any, Any], path: str) -> dict[Any, Any]:
        """Leave out what LIS2 takes without using it."""
        self.ignored += [f"{path}{key}" for key in mapping if key in _IGNORED]
        return {key: value for key, value in mapping.items() if key not in _IGNORED}

    def value(self, key: str, value: Any, path: str) -> Any:
        """Translate what stands under a key."""
        kind = KINDS.get(key)
        if kind is None or value is None or isinstance(value, bool):
            return value
        if isinstance(value, list | tuple):
            return [self.value(key, item, f"{path}[{i}]") for i, item in enumerate(value)]
        if path.count(".") > _DEEPEST:
            self.wrong.append(f"{key} is nested too deeply: does a file name itself?")
            return value
        if key in _LISTS and path == key:
            # LIS2 allows a single one without the list, and an empty mapping for none
            return [self._component(kind, value, path)] if value else []
        return self._component(kind, value, path)

    def of_lightning(self, key: str, value: Any) -> Any:
        """Translate an argument of the Lightning trainer, whose texts are mostly its own words."""
        kind, path = LIGHTNING_KINDS.get(key), f"lightning.{key}"
        if kind is None or (isinstance(value, str) and kind != "callback"):
            return value
        if isinstance(value, list | tuple):
            return [self._component(kind, item, f"{path}[{i}]") for i, item in enumerate(value)]
        return value if value is None else self._component(kind, value, path)

    def _component(self, kind: str, value: Any, path: str) -> Any:
        component = {"class_path": ""}
        if isinstance(value, str) and value.endswith((".yaml", ".yml")):
            # LIS2 keeps some components in files of their own
            file = value
            value = self.attempt(lambda: load_config(file), instead=None, path=path)
            return component if value is None else self._component(kind, value, path)
        if isinstance(value, str):
            value = {"class_path": value}
        if not isinstance(value, Mapping) or set(value) <= {"init_args", "dict_kwargs"}:
            return value
        if "class_path" in value:
            arguments = value.get("init_args") or {}
            component = {k: v for k, v in value.items() if k != "init_args"}
        else:
            arguments = self.without_ignored(value, f"{path}.")
            component["class_path"] = arguments.pop("type", "") or _usual(kind, path, arguments)
        if not isinstance(arguments, Mapping):
            self.wrong.append(f"{path}.init_args must hold keys and values, got {arguments!r}")
            arguments = {}
        component["class_path"] = self._class_path(kind, str(component["class_path"]), path)
        inner = {str(k): self.value(str(k), v, f"{path}.{k}") for k, v in arguments.items()}
        return {**component, "init_args": inner} if inner else component

    def _class_path(self, kind: str, name: str, path: str) -> str:
        if not name:
            self.wrong.append(
                f"{path} names no class: add 'type: <name>' or 'class_path: <module.Class>' to it"
            )
            return ""
        return str(self.attempt(lambda: class_path(kind, name, key=path), instead=""))


def _usual(kind: str, path: str, arguments: Mapping[Any, Any]) -> str:
    """The class that is meant where none is named, unless it is as in ``{Adam: {lr: 0.1}}``."""
    is_name = USUAL.get(path) and any(str(key) in names(kind) for key in arguments)
    return "" if is_name else USUAL.get(path, "")


def to_lis2(kind: str, component: Any) -> Any:
    """Write a component as LIS2 spells it, without nulls, which LIS2 takes for values."""
    if not isinstance(component, Mapping) or "class_path" not in component:
        return component
    arguments = {
        key: to_lis2(KINDS[key], value) if key in KINDS else value
        for key, value in (component.get("init_args") or {}).items()
        if value is not None
    }
    path = component["class_path"]
    name = next((short for short, target in names(kind).items() if target == path), path)
    return {"type": name, **arguments}
