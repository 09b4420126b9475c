"""The typed signature of a class as the schema of its configuration.

jsonargparse parses and builds; errors become one sentence, and results load back as they are.
Lightning, which takes seconds to import, is imported with the first :class:`Schema`.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import register_type

from lis2_lightning.config.common_data import once_for_all, separate, warn_of_differences
from lis2_lightning.config.loading import as_list, parse_yaml
from lis2_lightning.config.long_lists import restored, shorten
from lis2_lightning.config.mistakes import Builder, imported, mistakes, short, unknown
from lis2_lightning.config.names import KINDS
from lis2_lightning.config.pipeline_files import from_script
from lis2_lightning.config.spelling import to_class_paths
from lis2_lightning.config.trusted import judging
from lis2_lightning.errors import ConfigError, Lis2Error, one_line

_log = logging.getLogger("lis2_lightning")
_LIGHTNING: Final = "lightning"
_OBJECT: Final = "object"
_PLAIN: Final = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Parsed:
    """A configuration that has been checked, and of which nothing is built yet."""

    config: dict[str, Any]  # every key as plain values; it loads back as it is
    parser: ArgumentParser
    namespace: Namespace  # the parser's result
    objects: Mapping[str, Any]  # values that were objects already
    lightning: Mapping[str, Any]  # such values among the arguments of the Lightning trainer

    def build(self) -> dict[str, Any]:
        """Build every component; the result are the arguments of the schema's owner.

        Raises:
            ConfigError: A component cannot be built; the sentence names its key.
            DataError: A data set cannot be built.
        """
        builder = Builder(self.config)
        instantiators = [(builder, object, True)]
        try:
            built = vars(self.parser.instantiate(self.namespace, instantiators=instantiators))
        except Lis2Error:
            raise
        except Exception as error:  # where no component is to blame, jsonargparse's own
            unexplained = ConfigError(f"the configuration cannot be built: {short(error)}")
            raise [*builder.errors, unexplained][0] from error
        theirs = vars(built[_LIGHTNING])
        chosen = {key: theirs[key] for key in self.config[_LIGHTNING] if key in theirs}
        return {**built, **self.objects, _LIGHTNING: {**chosen, **self.lightning}}


class Schema:
    """The keys of ``owner.__init__``, and of the Lightning trainer under ``lightning``."""

    def __init__(self, owner: Callable[..., Any]) -> None:
        self.owner = owner
        self._parameters = inspect.signature(owner).parameters
        self.keys = list(self._parameters)
        self._theirs = import_module("lightning.pytorch").Trainer
        _register_tensors()
        self.lightning_defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(self._theirs).parameters.items()
        }

    def parser(self, *, skip: Iterable[str] = (), **options: Any) -> ArgumentParser:
        """A parser of the documented keys at its root, and Lightning's under ``lightning``."""
        parser = ArgumentParser(exit_on_error=False, **options)
        parser.add_class_arguments(
            self.owner, skip={_LIGHTNING, *skip}, fail_untyped=True, sub_configs=False
        )
        parser.add_class_arguments(
            self._theirs, _LIGHTNING, instantiate=False, fail_untyped=False, sub_configs=False
        )
        return parser

    def parse(self, config: Mapping[str, Any], *, partly: bool = False) -> Parsed:
        """Check a configuration, with components in either spelling or as objects.

        Where ``partly`` is true, required keys may be missing; they are null then.

        Raises:
            ConfigError: A key, name or value is wrong; all mistakes are in one sentence.
        """
        config = separate(from_script(config))
        _refuse_placeholders(config)
        objects, rest = _without_objects({k: v for k, v in config.items() if k != _LIGHTNING})
        wrong: list[str] = []
        lightning = config.get(_LIGHTNING) or {}
        if not isinstance(lightning, Mapping):
            wrong.append(f"{_LIGHTNING} must hold keys and values, got {lightning!r}")
            lightning = {}
        theirs, arguments = _without_objects(_without_placeholders(lightning))
        translated = to_class_paths({**rest, _LIGHTNING: arguments}, wrong=wrong)
        plain, long_lists = shorten(translated)
        missing = [key for key in self._required() if partly and key not in plain]
        wrong += unknown(objects, self.keys)
        wrong += unknown(theirs, self.lightning_defaults, path=_LIGHTNING)
        skip = {*objects, *missing}
        parser = _parser_of(self.owner, frozenset(skip), frozenset(plain) & frozenset(KINDS))
        namespace = self._namespace(parser, plain, wrong, skip)
        resolved = restored(self._resolved(parser, namespace), long_lists)
        resolved[_LIGHTNING] |= describe(theirs)
        described = {**resolved, **dict.fromkeys(missing), **describe(objects)}
        ordered = {key: described[key] for key in self.keys}
        warn_of_differences(ordered)
        return Parsed(ordered, parser, restored(namespace, long_lists), objects, theirs)

    def _namespace(
        self, parser: ArgumentParser, plain: Mapping[str, Any], wrong: list[str], skip: Set[str]
    ) -> Namespace:
        """What the parser makes of a configuration in its spelling."""
        nulls = [
            key
            for key in self.keys
            if key in KINDS and key in plain and plain[key] is None
            if "None" not in str(self._parameters[key].annotation)
        ]
        wrong += [f"{key} must not be null: leave it out, or give it a value" for key in nulls]
        with judging() as judge:
            try:
                namespace: Namespace = parser.parse_object(shorten(plain)[0])  # a copy
            except Exception as error:
                apart = {_LIGHTNING, *skip, *nulls}
                ours = {key: value for key, value in plain.items() if key not in apart}
                wrong += mistakes(self.owner, ours, skip=apart)
                wrong += mistakes(self._theirs, plain[_LIGHTNING], path=_LIGHTNING)
                raise _joined(wrong or [short(error)]) from error
            judge(namespace)
        if wrong:
            raise _joined(wrong)
        _leave_out_objects(namespace)
        return namespace

    def _required(self) -> list[str]:
        return [
            name
            for name, parameter in self._parameters.items()
            if parameter.default is parameter.empty
        ]

    def described(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments passed in Python as plain values; defaults are left out."""
        return {
            key: describe(value)
            for key, value in arguments.items()
            if value is not self._parameters[key].default
        }

    def defaults(self) -> dict[str, Any]:
        """Every key's default, as plain values."""
        parser = self.parser(skip=self._required())
        return self._resolved(parser, parser.get_defaults())

    def _resolved(self, parser: ArgumentParser, namespace: Namespace) -> dict[str, Any]:
        """Every documented key as plain values; of Lightning's own only those that were set."""
        try:
            text = parser.dump(namespace, skip_unset=False)
        except Exception as error:  # the defaults of a user's class may be anything
            raise ConfigError(
                "a component's default cannot be written as YAML "
                f"({one_line(error.__cause__ or error)}): give the argument a plain value, or pass "
                "the component as an object"
            ) from error
        dumped: dict[str, Any] = parse_yaml(text, "the configuration")
        lightning = dumped.pop(_LIGHTNING, None) or {}
        changed = {k: v for k, v in lightning.items() if v != self.lightning_defaults[k]}
        return {**{key: dumped[key] for key in self.keys if key in dumped}, _LIGHTNING: changed}


@lru_cache(maxsize=32)  # making a parser takes longer than parsing with it
def _parser_of(
    owner: Callable[..., Any], skip: frozenset[str], components: frozenset[str]
) -> ArgumentParser:
    """The parser for configurations that name these components, which nobody may change."""
    parser = Schema(owner).parser(skip=skip)
    # or a component would keep arguments of the default one: AdamW the weight decay of Adam
    parser.set_defaults(dict.fromkeys(components))
    return parser


def _leave_out_objects(parsed: Any) -> None:
    """Remove arguments that hold an object, such as a device, by default: the class has them."""
    items = vars(parsed) if isinstance(parsed, Namespace) else parsed
    if isinstance(items, Mapping):
        component, arguments = imported(items), items.get("init_args")
        if component and isinstance(arguments, Namespace):
            for name, value in list(vars(arguments).items()):
                if _is_object_by_default(component, name, value):
                    del arguments[name]
        items = list(items.values())
    for item in items if isinstance(items, list | tuple) else ():
        _leave_out_objects(item)


def _is_object_by_default(component: type, name: str, value: Any) -> bool:
    if type(value) in {*_PLAIN, list, dict, Namespace}:
        return False
    for base in inspect.getmro(component):  # a class may pass on what it does not name
        with suppress(ValueError, TypeError):  # some classes in C have no signature
            parameter = inspect.signature(base).parameters.get(name)
            if parameter and type(parameter.default) is type(value):
                return bool(parameter.default == value)
    return False


def _joined(sentences: Iterable[str]) -> ConfigError:
    return ConfigError("; ".join(once_for_all(sentences)))


def describe(value: Any) -> Any:
    """Objects as a configuration has them: plain values unchanged, classes by path.

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


@cache
def _register_tensors() -> None:
    """Let numbers and lists of them stand for tensors, such as the ``pos_weight`` of a loss."""
    torch = import_module("torch")

    def read(value: Any) -> Any:
        if isinstance(value, str | bool):
            raise TypeError(f"{value!r} is no number")
        return torch.tensor(value, dtype=torch.float32)

    def written(tensor: Any) -> Any:  # 0.1, and not 0.10000000149
        return tensor.numpy().astype(str).astype(float).tolist()

    register_type(torch.Tensor, written, read, type_check=isinstance, fail_already_registered=False)


def _path_of(named: Any) -> str:
    module: str = named.__module__
    public = module.rpartition(".")[0]
    # torch.optim.adamw.AdamW is known to its users as torch.optim.AdamW
    is_public = getattr(sys.modules.get(public), named.__qualname__, None) is named
    return f"{public if public == 'torch.optim' and is_public else module}.{named.__qualname__}"


def _without_objects(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values that are or hold objects, which stay as they are, and the rest to be parsed."""
    ready = {key: value for key, value in config.items() if _is_object(value)}
    return ready, {key: value for key, value in config.items() if key not in ready}


def _is_object(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_object, value))
    return not isinstance(value, Mapping | str | Path | bool | int | float | type(None))


def _refuse_placeholders(config: Mapping[str, Any]) -> None:
    placeholders = {key: ", ".join(_placeholders(value)) for key, value in config.items()}
    if missing := [key for key, paths in placeholders.items() if paths]:
        listed = ", ".join(f"{key} ({placeholders[key]})" for key in missing)
        raise ConfigError(
            f"{listed}: passed as objects when this configuration was written: pass them again, as "
            f"in from_config(..., {missing[0]}=...)"
        )


def _without_placeholders(lightning: Mapping[str, Any]) -> dict[str, Any]:
    """Lightning's arguments without what was an object, of which a line tells: runs go on."""
    kept = dict(lightning)
    for key, value in lightning.items():
        if paths := _placeholders(value):
            _log.warning(
                "lightning.%s: left out, as passed as objects when this configuration was written: "
                "%s; pass them again, as in from_config(..., lightning={%r: ...})",
                *(key, ", ".join(paths), key),
            )
            del kept[key]
            if rest := [item for item in as_list(value) if not _placeholders(item)]:
                kept[key] = rest
    return kept


def _placeholders(value: Any) -> list[str]:
    """The paths of the classes of what was an object when a configuration was written."""
    return [
        item[_OBJECT]
        for item in as_list(value)
        if isinstance(item, Mapping) and set(item) == {_OBJECT}
    ]
