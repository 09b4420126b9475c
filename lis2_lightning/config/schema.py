"""One schema: the typed signature of a class, read as keys, checked, and made into objects.

jsonargparse does the work. This module adds what its users see: which keys there are, one sentence
for each mistake, and the resolved configuration as plain values that load back as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
from jsonargparse import ArgumentParser, Namespace

from lis2_lightning.config.building import build
from lis2_lightning.config.diagnosis import complaints, reason
from lis2_lightning.config.loading import COMMAND_KEYS
from lis2_lightning.config.messages import sentence
from lis2_lightning.config.names import KINDS
from lis2_lightning.config.plain_yaml import parse_yaml
from lis2_lightning.config.spelling import to_class_paths
from lis2_lightning.errors import ConfigError, did_you_mean

_LIGHTNING: Final = "lightning"
_OBJECT: Final = "object"


class Schema:
    """The keys of ``owner.__init__``, and of the Lightning trainer under ``lightning``.

    Args:
        owner: The class whose typed signature and docstring are the schema.
    """

    def __init__(self, owner: Callable[..., Any]) -> None:
        self.owner = owner
        self.keys = list(inspect.signature(owner).parameters)
        self.lightning_defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(pl.Trainer).parameters.items()
        }

    def add_arguments(self, parser: ArgumentParser, *, skip: Iterable[str] = ()) -> None:
        """Add every key to a parser: the documented ones at its root, Lightning's under its own."""
        parser.add_class_arguments(
            self.owner, skip={_LIGHTNING, *skip}, fail_untyped=True, sub_configs=False
        )
        parser.add_class_arguments(
            pl.Trainer, _LIGHTNING, instantiate=False, fail_untyped=False, sub_configs=False
        )

    def objects(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Turn a configuration into arguments of ``owner``.

        Args:
            given: Documented keys, with components in either spelling; a value may also be an
                object, which is taken as it is.

        Returns:
            The resolved configuration (plain values; it loads back), and the objects.

        Raises:
            ConfigError: A key, name or value is wrong, or a component cannot be built.
        """
        _refuse_placeholders(given)
        ready, rest = _without_objects({k: v for k, v in given.items() if k != _LIGHTNING})
        wrong: list[str] = []
        theirs, arguments = _without_objects(_lightning_of(given, wrong))
        plain = {**to_class_paths(rest, wrong=wrong), _LIGHTNING: arguments}
        wrong += self._unknown([*plain, *ready], {**arguments, **theirs})
        parser = ArgumentParser(exit_on_error=False)
        self.add_arguments(parser, skip=ready)
        namespace = self._parse(parser, plain, wrong)
        resolved = self.resolved(parser, namespace)
        built = {**build(parser, namespace, resolved), **ready}
        built[_LIGHTNING] = {key: built[_LIGHTNING][key] for key in resolved[_LIGHTNING]} | theirs
        resolved[_LIGHTNING] |= describe(theirs)
        return {**resolved, **describe(ready)}, built

    def expanded(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration with its components' own defaults written out, and no key added.

        Args:
            config: Documented keys, and perhaps the command's own, such as ``ckpt_path``.

        Raises:
            ConfigError: A key, name or value is wrong.
        """
        command = {key: config[key] for key in config if key in COMMAND_KEYS}
        config = {key: config[key] for key in config if key not in COMMAND_KEYS}
        wrong: list[str] = []
        config = to_class_paths(config, wrong=wrong)
        wrong += self._unknown(config, _lightning_of(config, wrong))
        parser = ArgumentParser(exit_on_error=False)
        self.add_arguments(parser, skip=[key for key in self.keys if key not in config])
        full = self.resolved(parser, self._parse(parser, config, wrong))
        return {**{key: full[key] for key in config}, **command}

    def _unknown(self, given: Iterable[str], lightning: Mapping[str, Any]) -> list[str]:
        """A sentence for each unknown key, with the nearest valid ones."""
        wrong = [(str(key), self.keys) for key in given if key not in self.keys]
        wrong += [
            (f"{_LIGHTNING}.{key}", [f"{_LIGHTNING}.{name}" for name in self.lightning_defaults])
            for key in lightning
            if key not in self.lightning_defaults
        ]
        return [f"unknown key {key!r}: {did_you_mean(key, valid)}" for key, valid in wrong]

    def _parse(
        self, parser: ArgumentParser, config: Mapping[str, Any], wrong: Sequence[str]
    ) -> Namespace:
        """Parse a configuration, or tell all that is wrong with it."""
        # or a component would keep arguments of the default one: AdamW the weight decay of Adam
        parser.set_defaults(dict.fromkeys(set(config) & set(KINDS)))
        known = {key: config[key] for key in config if key in self.keys}
        if _LIGHTNING in known:
            inner = _lightning_of(known, []).items()
            known[_LIGHTNING] = {k: v for k, v in inner if k in self.lightning_defaults}
        try:
            parsed: Namespace = parser.parse_object(deepcopy(known))  # it writes into it
        except Exception as error:
            found = complaints(known, self._required(parser), self._single)
            told = [*wrong, *found] or [sentence(str(error))]
            raise ConfigError("; ".join(dict.fromkeys(told))) from error
        if wrong:
            raise ConfigError("; ".join(dict.fromkeys(wrong)))
        return parsed

    def _required(self, parser: ArgumentParser) -> list[str]:
        known = parser.get_defaults(skip_validation=True)
        parameters = inspect.signature(self.owner).parameters.values()
        return [p.name for p in parameters if p.default is p.empty and p.name in known]

    def _single(self, key: str) -> ArgumentParser:
        parser = ArgumentParser(exit_on_error=False)
        if key == _LIGHTNING:
            self.add_arguments(parser, skip=self.keys)
        else:
            others = {*self.keys} - {key}
            parser.add_class_arguments(
                self.owner, skip=others, fail_untyped=True, sub_configs=False
            )
        return parser

    def described(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given in Python, as far as plain values can say it; defaults are left out."""
        parameters = inspect.signature(self.owner).parameters
        return {
            key: describe(value)
            for key, value in given.items()
            if value is not parameters[key].default
        }

    def defaults(self) -> dict[str, Any]:
        """Every key's default, as plain values."""
        parser = ArgumentParser(exit_on_error=False)
        parameters = inspect.signature(self.owner).parameters.values()
        self.add_arguments(parser, skip=[p.name for p in parameters if p.default is p.empty])
        return self.resolved(parser, parser.get_defaults())

    def resolved(self, parser: ArgumentParser, namespace: Namespace) -> dict[str, Any]:
        """Every documented key as plain values; of Lightning's own only those that were set."""
        try:
            dumped: dict[str, Any] = parse_yaml(parser.dump(namespace, skip_unset=False))
        except Exception as error:  # the defaults of a user's class may be anything
            told = reason(error.__cause__ or error)
            raise ConfigError(
                f"a component's default cannot be written as YAML ({told}): give the argument a "
                "plain value, or pass the component as an object"
            ) from error
        lightning = dumped.pop(_LIGHTNING, None) or {}
        dumped = {key: dumped[key] for key in self.keys if key in dumped}
        set_keys = {k: v for k, v in lightning.items() if v != self.lightning_defaults[k]}
        return {**dumped, _LIGHTNING: set_keys}


def describe(value: Any) -> Any:
    """What a configuration can say of an object: plain values as they are, classes by path.

    >>> describe(Path("runs"))
    'runs'
    >>> from torch.optim import AdamW
    >>> describe(partial(AdamW, lr=0.1))
    {'class_path': 'torch.optim.AdamW', 'init_args': {'lr': 0.1}}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    return str(value) if isinstance(value, Path) else _described_object(value)


def _described_object(value: Any) -> dict[str, Any]:
    if isinstance(value, partial) and inspect.isclass(value.func) and not value.args:
        return {"class_path": _path_of(value.func), "init_args": describe(value.keywords)}
    return {_OBJECT: _path_of(value if inspect.isroutine(value) else type(value))}


def _path_of(named: Any) -> str:
    module: str = named.__module__
    public = module.rsplit(".", 1)[0]
    # torch.optim.adamw.AdamW is known to its users as torch.optim.AdamW
    return f"{public if public == 'torch.optim' else module}.{named.__qualname__}"


def _without_objects(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What holds objects, which are taken as they are, and the rest, which is parsed."""
    ready = {key: value for key, value in given.items() if _is_object(value)}
    return ready, {key: value for key, value in given.items() if key not in ready}


def _is_object(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_object, value))
    return not isinstance(value, Mapping | str | Path | bool | int | float | type(None))


def _refuse_placeholders(config: Mapping[str, Any]) -> None:
    missing = {
        key: value[_OBJECT]
        for key, value in config.items()
        if isinstance(value, Mapping) and set(value) == {_OBJECT}
    }
    if missing:
        told = ", ".join(f"{key} ({path})" for key, path in missing.items())
        raise ConfigError(
            f"{told}: passed as objects when this configuration was written: pass them again, as "
            f"in from_config(..., {next(iter(missing))}=...)"
        )


def _lightning_of(config: Mapping[str, Any], wrong: list[str]) -> Mapping[str, Any]:
    """What stands under ``lightning``; a sentence is added where that is no mapping."""
    given = config.get(_LIGHTNING)
    if given is not None and not isinstance(given, Mapping):
        wrong.append(f"{_LIGHTNING} must hold keys and values, got {given!r}")
    return given if isinstance(given, Mapping) else {}
