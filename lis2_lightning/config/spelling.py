"""The two spellings of a component, translated: LIS2's ``type`` and jsonargparse's ``class_path``.

LIS2 writes ``{type: AdamW, lr: 0.01}``, jsonargparse ``{class_path: torch.optim.AdamW, init_args:
{lr: 0.01}}``; a component without arguments may be its bare name. Both mean the same here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lis2_lightning.config.files import load_config, long_names
from lis2_lightning.config.names import KINDS, class_path, lis2_name
from lis2_lightning.errors import ConfigError

# LIS2 labels components with a name of the user's choice and never reads it back.
_IGNORED: Final = frozenset({"name"})
_LISTS: Final = frozenset({"metrics", "trackers"})


def to_class_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a whole configuration, at any depth, into jsonargparse's spelling.

    Args:
        config: Documented keys in either spelling; it is not changed.

    Raises:
        ConfigError: A component's name is unknown, or it has neither ``type`` nor ``class_path``.

    >>> to_class_paths({"epoch": 3, "optimizer": {"type": "sgd", "lr": 0.1}, "metrics": ["dice"]})
    {'epochs': 3, 'optimizer': {'class_path': 'torch.optim.SGD', 'init_args': {'lr': 0.1}},
     'metrics': [{'class_path': 'lis2_lightning.metrics.Dice'}]}
    """
    translated: dict[str, Any] = {}
    for key, value in long_names(config).items():
        translated[key] = _value(key, value, path=str(key))
    return translated


def _value(key: str, value: Any, *, path: str) -> Any:
    kind = KINDS.get(key)
    if kind is None or value is None or isinstance(value, bool):
        return value
    if isinstance(value, list | tuple):
        return [_value(key, item, path=f"{path}[{i}]") for i, item in enumerate(value)]
    if key in _LISTS and path == key:
        # LIS2 allows a single one without the list, and an empty mapping for none
        return [_component(kind, value, path=path)] if value else []
    return _component(kind, value, path=path)


def _component(kind: str, value: Any, *, path: str) -> Any:
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        value = load_config(value)  # LIS2 keeps some components in files of their own
    if isinstance(value, str):
        return {"class_path": class_path(kind, value, key=path)}
    if not isinstance(value, Mapping) or set(value) <= {"init_args", "dict_kwargs"}:
        return value
    if "class_path" in value:
        rest = {key: item for key, item in value.items() if key not in {"class_path", "init_args"}}
        name, arguments = value["class_path"], value.get("init_args") or {}
    elif "type" in value:
        rest = {}
        name = value["type"]
        arguments = {k: v for k, v in value.items() if k != "type" and k not in _IGNORED}
    else:
        raise ConfigError(
            f"{path} names no class: add 'type: <name>' or 'class_path: <module.Class>' to it"
        )
    inner = {key: _value(key, item, path=f"{path}.{key}") for key, item in arguments.items()}
    found = {"class_path": class_path(kind, str(name), key=path), **rest}
    return {**found, "init_args": inner} if inner else found


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
