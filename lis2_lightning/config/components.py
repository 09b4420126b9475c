"""Decides which import paths name a component, without importing code that might act."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

_OURS: Final = "lis2_lightning"
# what a component can be, by the module that has it; losses and metrics are modules
_COMPONENTS: Final[Mapping[str, str]] = {
    "torch.nn": "Module",
    "torch.utils.data": "Dataset Sampler",
    "torch.optim": "Optimizer",
    "torch.optim.lr_scheduler": "LRScheduler",
    "lightning.pytorch": "Callback",
    "lightning.pytorch.plugins": "LayerSync",
    "lightning.pytorch.profilers": "Profiler",
    "lightning.pytorch.strategies": "Strategy",
    "lightning.fabric.accelerators": "Accelerator",
    "lightning.fabric.loggers": "Logger",
    "lightning.fabric.plugins": "CheckpointIO ClusterEnvironment Precision",
}
# the libraries that may be imported, and where in them the components are
_PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    _OURS: tuple(
        f"{_OURS}.{room}."
        for room in ("callbacks", "data", "losses", "metrics", "models", "parallel", "trackers")
    ),
    "torch": ("torch.nn.", "torch.optim.", "torch.utils.data.", "torch._C._nn."),
    "lightning": tuple(
        f"lightning.{half}.{room}."
        for half in ("fabric", "pytorch")
        for room in ("accelerators", "callbacks", "loggers", "plugins", "profilers", "strategies")
    ),
    "torchmetrics": ("torchmetrics.",),
    "monai": ("monai.losses.", "monai.networks.", "monai.optimizers."),
}
# these open files and connections, or call what they are given
_EXCEPT: Final = ("torch.utils.data.datapipes.", "torchmetrics.utilities.")
# activations and the like, which a network may take by name
_FUNCTIONS: Final = frozenset({"torch.nn.functional", "torch._C._nn"})
_METHODS: Final = frozenset({"__call__", "__getitem__"})
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
IMPORT_FIRST: Final = "in your program before"
PATH: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


class _Objection(Exception):  # noqa: N818 - never leaves this file
    """What is wrong with an import path."""


def objection(path: str, *, is_class: bool) -> str | None:
    """Why a snapshot's configuration may not name an import path; null where it may.

    Allowed are components and ``torch.nn.functional`` of torch, Lightning, torchmetrics, MONAI and
    this package, and components of modules that the program has imported already. Nothing else is
    imported to find out. A name that one module imports from another is judged by its origin.
    """
    try:
        named = _named(path)
        if inspect.isclass(named):
            _judge_class(named)
        else:
            _judge_function(named, is_class=is_class)
    except _Objection as error:
        return str(error)
    return None


def _named(path: str) -> Any:
    if not PATH.fullmatch(path):
        raise _Objection("is no import path")
    _check_place(path)
    place, _, name = path.rpartition(".")
    if _top(path) in _PLACES:
        try:
            named = getattr(importlib.import_module(place), name, None)
        except (ImportError, OSError, RuntimeError) as error:
            raise _Objection(f"cannot be imported: there is no {place[:80]}") from error
    elif place in sys.modules:
        named = vars(sys.modules[place]).get(name)  # what it has, not what it would make for us
    else:
        raise _Objection(f"is of a module that is not imported: import {place[:80]} {IMPORT_FIRST}")
    if named is None:
        raise _Objection(f"does not exist: {place[:80]} has none of that name")
    return named


def _check_place(path: str) -> None:
    """Refuse what lies outside of the parts of a library that hold its components."""
    top = _top(path)
    if top in sys.stdlib_module_names:
        raise _Objection("is of Python's standard library")
    if top in _PLACES and (not path.startswith(_PLACES[top]) or path.startswith(_EXCEPT)):
        raise _Objection(f"is no component of {top}")


def _judge_class(component: type) -> None:
    made_in = str(component.__module__)
    _check_place(f"{made_in}.{component.__qualname__}")
    is_ours = _top(made_in) == _OURS
    # data sets and augmentations of one's own need no base class
    acts = _is_own(made_in) and any(
        _METHODS & vars(base).keys() for base in inspect.getmro(component)
    )
    if not (is_ours or acts or issubclass(component, _bases())):
        raise _Objection("is no network, data set, optimizer or other component")


@cache
def _bases() -> tuple[type, ...]:
    """What a component can be, imported when the first is judged."""
    return tuple(
        getattr(importlib.import_module(module), name)
        for module, listed in _COMPONENTS.items()
        for name in listed.split()
    )


def _judge_function(function: Any, *, is_class: bool) -> None:
    made_in = str(getattr(function, "__module__", ""))
    if is_class or not inspect.isroutine(function):
        raise _Objection("is no class")
    if made_in not in _FUNCTIONS and not _is_own(made_in):
        raise _Objection("is no function of torch.nn.functional or of your own")


def _is_own(name: str) -> bool:
    """Whether a module is the user's own, and no part of Python or of an installed package."""
    if name == "__main__" or name not in sys.modules:
        return name == "__main__"
    file = getattr(sys.modules[name], "__file__", None)
    if file is None or _top(name) in sys.stdlib_module_names:
        return False
    is_pythons = Path(file).is_relative_to(sysconfig.get_path("stdlib"))
    return not is_pythons and not _INSTALLED & set(Path(file).parts)


def _top(path: str) -> str:
    return path.partition(".")[0]
