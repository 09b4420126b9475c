"""A run that resumes with other values than its snapshot was written with: the new ones win."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from lis2_lightning.config import to_class_paths
from lis2_lightning.errors import ConfigError
from lis2_lightning.snapshots.compare import printable
from lis2_lightning.snapshots.loops import INSIDE_EPOCH, rewind

# what decides which samples a batch holds: its number means nothing where one of these differs
_ORDER: Final = ("batch_size", "seed", "train_dataset")
# what else decides what a run's figures mean
_OTHERS: Final = ("val_dataset", "test_dataset", "model", "loss")
_LONGEST: Final = 60  # of a value that is shown


def differences(written: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a resumed run does otherwise than the run that wrote its snapshot, a phrase for each.

    >>> differences({"batch_size": 4}, {"batch_size": 8, "epochs": 3})
    ['batch_size is 8, was 4']
    """
    written, now = _comparable(written, now)
    changed = _changed_arguments(written, now)
    phrases = [f"optimizer.{name} is {new}, was {old}" for name, (old, new) in changed.items()]
    if _class_of(written) != _class_of(now):
        phrases = ["another optimizer: it starts anew, and the scheduler with it"]
    if _differs(written, now, "scheduler"):
        phrases.append("another scheduler: it starts anew")
    for key in (*_ORDER, *_OTHERS):
        if _differs(written, now, key):
            phrases += _changes(written[key], now[key], key)
    return phrases


def _changes(written: Any, now: Any, path: str) -> Iterator[str]:
    """A phrase for each value that differs, without the defaults that were not written out."""
    if "object" in _keys(written) | _keys(now):
        yield f"{path} differs"
        return
    if not isinstance(written, Mapping) or not isinstance(now, Mapping):
        yield f"{path} is {_brief(now)}, was {_brief(written)}"
        return
    is_other = written.get("class_path") != now.get("class_path")
    for key in ["class_path"] if is_other else written:
        if not _within(written[key], now.get(key)):
            inside = path if key in {"class_path", "init_args"} else f"{path}.{key}"
            yield from _changes(written[key], now.get(key), inside)


def _keys(value: Any) -> set[Any]:
    return set(value) if isinstance(value, Mapping) else set()


def _brief(value: Any) -> str:
    value = value.get("class_path", value) if isinstance(value, Mapping) else value
    text = printable("none" if value is None else str(value) or "unknown")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def reconcile(
    checkpoint: dict[str, Any], written: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Change Lightning's checkpoint so that a run which resumes from it has the values of now.

    Either configuration may be in either spelling.
    """
    _drop_states(checkpoint.get("callbacks") or {}, written, now)
    written, now = _comparable(written, now)
    is_other = _class_of(written) != _class_of(now)
    if is_other:
        checkpoint["optimizer_states"] = []
    if is_other or _differs(written, now, "scheduler"):
        checkpoint["lr_schedulers"] = []
        _begin_rates_again(checkpoint)
    for name, (old, new) in _changed_arguments(written, now).items():
        _set_argument(checkpoint, name, old, new)
    if INSIDE_EPOCH in checkpoint and any(_differs(written, now, key) for key in _ORDER):
        rewind(checkpoint)


def _drop_states(
    callbacks: dict[str, Any], written: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Drop the time that was used, for a limit counts per start, and a stopper that is gone."""
    if any((config.get("lightning") or {}).get("max_time") for config in (written, now)):
        callbacks.pop("Timer", None)
    if not now.get("early_stopper"):
        callbacks.pop("LossEarlyStopping", None)


def _comparable(
    written: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What is compared of both configurations, in one spelling."""
    keys = ("optimizer", "scheduler", *_ORDER, *_OTHERS)
    old, new = (
        {key: _in_one_spelling(key, config[key]) for key in keys if key in config}
        for config in (written, now)
    )
    for key in ("optimizer", "scheduler"):
        name, path = _class_of(old, key), _class_of(new, key)
        # a class that only its own program knows by a short name, passed as an object
        if isinstance(path, str) and name == path.rpartition(".")[2]:
            old[key] = {**old[key], "class_path": path}
    return old, new


def _in_one_spelling(key: str, value: Any) -> Any:
    """A component in jsonargparse's spelling, or as it is where it has none.

    Objects that were passed in Python are known by their class alone.
    """
    if not isinstance(value, Mapping | str) or (isinstance(value, Mapping) and "object" in value):
        return value
    try:
        return to_class_paths({key: value})[key]
    except ConfigError:  # the file may be of a program with classes of its own
        if not isinstance(value, Mapping):
            return value
        arguments = {name: item for name, item in value.items() if name not in {"type", "name"}}
        return {"class_path": value.get("type"), "init_args": arguments}


def _differs(written: Mapping[str, Any], now: Mapping[str, Any], key: str) -> bool:
    return key in written and key in now and not _within(written[key], now[key])


def _within(written: Any, now: Any) -> bool:
    """Whether a value is what was written; defaults that were not written out may be added."""
    if isinstance(written, Mapping) and isinstance(now, Mapping):
        return all(key in now and _within(value, now[key]) for key, value in written.items())
    return bool(written == now)


def _class_of(config: Mapping[str, Any], key: str = "optimizer") -> Any:
    """The class of a component."""
    component = config.get(key)
    return component.get("class_path", component) if isinstance(component, Mapping) else component


def _changed_arguments(
    written: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """The optimizer's arguments that differ, each with its old and its new value."""
    if _class_of(written) != _class_of(now) or not isinstance(now.get("optimizer"), Mapping):
        return {}
    old, new = (config["optimizer"].get("init_args") or {} for config in (written, now))
    return {name: (old[name], new[name]) for name in old if name in new and old[name] != new[name]}


def _begin_rates_again(checkpoint: Mapping[str, Any]) -> None:
    """Undo what the former scheduler did, which may have ended at 0."""
    for state in filter(None, checkpoint["optimizer_states"]):
        for group in state["param_groups"]:
            group["lr"] = group.get("initial_lr", group["lr"])  # which stays for another time


def _set_argument(checkpoint: Mapping[str, Any], name: str, old: Any, new: Any) -> None:
    states = [state for state in checkpoint["optimizer_states"] if state]
    groups = [group for state in states for group in state["param_groups"] if name in group]
    if name != "lr" or not old:
        for group in groups:
            group[name] = new
        return
    # a schedule has moved the rate: it keeps its course from the new start
    for group in groups:
        group.update(
            {key: _scaled(group[key], old, new) for key in ("lr", "initial_lr") if key in group}
        )
    for state in checkpoint["lr_schedulers"]:
        for key in ("base_lrs", "_last_lr"):
            if key in state:
                state[key] = [_scaled(rate, old, new) for rate in state[key]]


def _scaled(rate: float, old: float, new: float) -> float:
    return new if rate == old else rate * (new / old)
