"""What a tuning varies: dotted keys, each with its values or its range."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lis2_lightning.config import merge
from lis2_lightning.errors import ConfigError, did_you_mean, one_line

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_RANGE: Final = ("low", "high", "log", "step")
# of a trial these are what the study sets, or what its trials are compared by
_FIXED: Final = ("output_dir", "run_name", "resume", "monitor", "mode", "seed", "trackers")
_FORMS: Final = "a list of values, or a range as in {low: 1e-4, high: 0.1, log: true}"


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones where both ends are."""

    low: float
    high: float
    log: bool = False
    """Whether the logarithm is uniform."""
    step: float | None = None


Values = list[Any] | Range


@dataclass(frozen=True)
class Space:
    """The keys that vary; shorter keys come first: a component before what lies inside it."""

    keys: Mapping[str, Values]

    @classmethod
    def parse(cls, described: Any) -> Space:
        """Read a space as it stands in YAML.

        Args:
            described: Dotted or nested keys, each with a list of values or a range.

        Raises:
            ConfigError: A key must not vary, or its values are none of the two.

        >>> Space.parse({"optimizer": {"lr": {"low": 0.001, "high": 0.1}}, "epochs": [2, 4]}).keys
        {'epochs': [2, 4], 'optimizer.lr': Range(low=0.001, high=0.1, log=False, step=None)}
        """
        if not isinstance(described, Mapping) or not described:
            raise ConfigError(f"space must hold keys, each with {_FORMS}, got {described!r}")
        flat = dict(_flat(described))
        for key in flat:
            if key.partition(".")[0] in _FIXED:
                raise ConfigError(f"space must not vary {key}: it is the same for all trials")
        parsed = {key: _values(key, flat[key]) for key in sorted(flat, key=len)}
        space = cls(parsed)
        space.distributions()
        return space

    def distributions(self) -> dict[str, BaseDistribution]:
        """Each key's values as Optuna has them.

        Raises:
            ConfigError: A range is empty, or Optuna is not installed.
        """
        return {key: _distribution(key, values) for key, values in self.keys.items()}

    def values_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a trial's parameters, in the order of the keys.

        >>> Space({"optimizer": [{"type": "SGD"}]}).values_of({"optimizer": '{"type": "SGD"}'})
        {'optimizer': {'type': 'SGD'}}
        """
        chosen = {}
        for key, values in self.keys.items():
            known = {_label(v): v for v in values} if isinstance(values, list) else {}
            chosen[key] = known.get(params[key], params[key])
        return chosen

    def apply(self, config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration with the values of a trial."""
        for key in self.keys:
            config = merge(config, {key: values[key]})
        return dict(config)

    def examples(self) -> Iterator[dict[str, Any]]:
        """Values with each item and each end of a range once: what fits these fits all."""
        ends = {
            key: [values.low, values.high] if isinstance(values, Range) else values
            for key, values in self.keys.items()
        }
        first = {key: items[0] for key, items in ends.items()}
        yield first
        yield from ({**first, key: item} for key, items in ends.items() for item in items[1:])

    def grid(self) -> list[dict[str, Any]]:
        """The parameters of every combination, the last key changing fastest.

        Raises:
            ConfigError: There is a range.

        >>> Space({"epochs": [1, 2], "batch_size": [8]}).grid()
        [{'epochs': 1, 'batch_size': 8}, {'epochs': 2, 'batch_size': 8}]
        """
        for key, values in self.keys.items():
            if isinstance(values, Range):
                raise ConfigError(f"a grid has no ranges, and {key} is one: list its values")
        lists = [[_label(item) for item in values] for values in self.keys.values()]  # type: ignore[union-attr]  # checked above
        return [dict(zip(self.keys, items, strict=True)) for items in itertools.product(*lists)]

    def data(self) -> dict[str, Any]:
        """The space as YAML has it; it is read back as it is."""
        return {
            key: values
            if isinstance(values, list)
            else {
                name: value
                for name in _RANGE
                if (value := getattr(values, name)) is not None and value is not False
            }
            for key, values in self.keys.items()
        }


def from_gridsearch(section: Any) -> dict[str, Any]:
    """LIS2's section ``gridsearch`` as a space: what it has under ``trainer`` are keys of ours.

    Raises:
        ConfigError: It is no mapping.

    >>> from_gridsearch({"trainer": {"optimizer": {"lr": [0.1, 0.01]}, "batch_size": [2]}})
    {'optimizer': {'lr': [0.1, 0.01]}, 'batch_size': [2]}
    """
    if not isinstance(section, Mapping):
        raise ConfigError(f"gridsearch must hold keys and lists of values, got {section!r}")
    rest = {key: value for key, value in section.items() if key != "trainer"}
    return {**(section.get("trainer") or {}), **rest}


def _flat(described: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in described.items():
        key = f"{path}{name}"
        is_range = isinstance(value, Mapping) and bool({"low", "high"} & set(value))
        if isinstance(value, Mapping) and value and not is_range:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value


def _values(key: str, value: Any) -> Values:
    if isinstance(value, Mapping):
        return _range(key, value)
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"space: {key} must be {_FORMS}, got {value!r}")
    labels = [repr(_label(item)) for item in value]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"space: {key} has a value twice: {', '.join(labels)}")
    return list(value)


def _range(key: str, value: Mapping[str, Any]) -> Range:
    for name, item in value.items():
        if name not in _RANGE:
            raise ConfigError(f"space: unknown key '{key}.{name}': {did_you_mean(name, _RANGE)}")
        is_number = isinstance(item, int | float) and not isinstance(item, bool)
        if is_number if name == "log" else not is_number:
            kind = "true or false" if name == "log" else "a number"
            raise ConfigError(f"space: {key}.{name} must be {kind}, got {item!r}")
    if missing := [name for name in ("low", "high") if name not in value]:
        raise ConfigError(f"space: {key}.{missing[0]} is missing: a range has low and high")
    return Range(**value)


def _distribution(key: str, values: Values) -> BaseDistribution:
    try:
        from optuna import distributions
    except ImportError as error:
        raise ConfigError('tune needs optuna: pip install "lis2-lightning[tune]"') from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a step that does not reach the end
            if isinstance(values, list):
                return distributions.CategoricalDistribution([_label(item) for item in values])
            ends = (values.low, values.high)
            if all(isinstance(number, int) for number in (*ends, values.step or 1)):
                low, high, step = int(values.low), int(values.high), int(values.step or 1)
                return distributions.IntDistribution(low, high, log=values.log, step=step)
            return distributions.FloatDistribution(*ends, log=values.log, step=values.step)
    except (ValueError, UserWarning) as error:
        raise ConfigError(f"space: {key} is no range: {one_line(error)}") from error


def _label(value: Any) -> Any:
    """A value as a study can hold it: text where it is no plain value."""
    return value if isinstance(value, bool | int | float | str | None) else json.dumps(value)
