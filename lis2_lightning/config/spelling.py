"""The two spellings of a component, translated: LIS2's ``type`` and jsonargparse's ``class_path``.

LIS2 writes ``{type: AdamW, lr: 0.01}``, jsonargparse ``{class_path: torch.optim.AdamW, init_args:
{lr: 0.01}}``; a component without arguments may be its bare name. Both mean the same here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from lis2_lightning.config.loading import load_config, long_names
from lis2_lightning.config.names import KINDS, class_path, lis2_name
from lis2_lightning.errors import ConfigError

# LIS2 labels components with a name of the user's choice, and takes these without using them.
_IGNORED: Final = frozenset({"name", "split_ratio"})
_LISTS: Final = frozenset({"metrics", "trackers"})
_DEEPEST: Final = 20
_log = logging.getLogger("lis2_lightning")


def to_class_paths(config: Mapping[str, Any], *, wrong: list[str] | None = None) -> dict[str, Any]:
    """Translate a whole configuration, at any depth, into jsonargparse's spelling.

    Args:
        config: Documented keys in either spelling; it is not changed.
        wrong: Where to put a sentence for each mistake, in place of raising all of them; a
            component with a mistake keeps its name as it is.

    Raises:
        ConfigError: A component's name is unknown, or it has neither ``type`` nor ``class_path``.

    >>> to_class_paths({"epoch": 3, "optimizer": {"type": "sgd", "lr": 0.1}, "metrics": ["dice"]})
    {'epochs': 3, 'optimizer': {'class_path': 'torch.optim.SGD', 'init_args': {'lr': 0.1}},
     'metrics': [{'class_path': 'lis2_lightning.metrics.Dice'}]}
    """
    told: list[str] = [] if wrong is None else wrong
    spelling = _Spelling(told)
    given = {key: config[key] for key in config if key not in _IGNORED}
    spelling.ignored += [key for key in config if key in _IGNORED]
    translated = {key: spelling.value(key, value, str(key)) for key, value in given.items()}
    if wrong is None and told:
        raise ConfigError("; ".join(told))
    if spelling.ignored:
        _log.info("without effect, as in LIS2: %s", ", ".join(spelling.ignored))
    try:
        return long_names(translated)
    except ConfigError as error:
        if wrong is None:
            raise
        told.append(str(error))
        return translated


class _Spelling:
    """Translates components, and gathers what is wrong with them and what is ignored."""

    def __init__(self, wrong: list[str]) -> None:
        self.wrong = wrong
        self.ignored: list[str] = []

    def value(self, key: str, value: Any, path: str) -> Any:
        """Translate what stands under a key."""
        kind = KINDS.get(key)
        if kind is None or value is None or isinstance(value, bool):
            return value
        if path.count(".") > _DEEPEST:
            self.wrong.append(f"{key} is nested too deeply: does a file name itself?")
            return value
        if isinstance(value, list | tuple):
            return [self.value(key, item, f"{path}[{i}]") for i, item in enumerate(value)]
        if key in _LISTS and path == key:
            # LIS2 allows a single one without the list, and an empty mapping for none
            return [self._component(kind, value, path)] if value else []
        return self._component(kind, value, path)

    def _component(self, kind: str, value: Any, path: str) -> Any:
        if isinstance(value, str) and value.endswith((".yaml", ".yml")):
            value = self._read(value, path)  # LIS2 keeps some components in files of their own
        if isinstance(value, str):
            return {"class_path": self._class_path(kind, value, path)}
        if not isinstance(value, Mapping) or set(value) <= {"init_args", "dict_kwargs"}:
            return value
        if "class_path" not in value and "type" not in value:
            self.wrong.append(
                f"{path} names no class: add 'type: <name>' or 'class_path: <module.Class>' to it"
            )
            return {"class_path": ""}
        name, arguments, rest = self._parts(value, path)
        inner = {
            str(key): self.value(str(key), item, f"{path}.{key}") for key, item in arguments.items()
        }
        found = {"class_path": self._class_path(kind, str(name), path), **rest}
        return {**found, "init_args": inner} if inner else found

    def _parts(
        self, value: Mapping[str, Any], path: str
    ) -> tuple[Any, Mapping[Any, Any], dict[str, Any]]:
        """The name of a component, its arguments, and what else stands there."""
        if "class_path" in value:
            rest = {k: item for k, item in value.items() if k not in {"class_path", "init_args"}}
            arguments = value.get("init_args") or {}
            if not isinstance(arguments, Mapping):
                self.wrong.append(f"{path}.init_args must hold keys and values, got {arguments!r}")
                arguments = {}
            return value["class_path"], arguments, rest
        self.ignored += [f"{path}.{key}" for key in value if key in _IGNORED]
        given = {k: v for k, v in value.items() if k != "type" and k not in _IGNORED}
        return value["type"], given, {}

    def _class_path(self, kind: str, name: str, path: str) -> str:
        try:
            return class_path(kind, name, key=path)
        except ConfigError as error:
            self.wrong.append(str(error))
            return ""

    def _read(self, name: str, path: str) -> Any:
        try:
            return load_config(name)
        except ConfigError as error:
            self.wrong.append(f"{path}: {error}")
            return {"class_path": ""}


def to_lis2(kind: str, component: Any) -> Any:
    """Write a component as LIS2 spells it; what is no component is returned as it is.

    Arguments that are null are left out: LIS2 takes a null for a value.

    >>> to_lis2("model", {"class_path": "lis2_lightning.models.UNet", "init_args": {"dim": 2}})
    {'type': 'unet', 'dim': 2}
    """
    if not isinstance(component, Mapping) or "class_path" not in component:
        return component
    arguments = {
        key: to_lis2(KINDS[key], value) if key in KINDS else value
        for key, value in (component.get("init_args") or {}).items()
        if value is not None
    }
    return {"type": lis2_name(kind, component["class_path"]), **arguments}
