"""Private names of other libraries: few, in one file, and there in the installed releases."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest

import lis2_lightning
from lis2_lightning.base import private_names

PACKAGE = Path(lis2_lightning.__file__).parent
PUBLIC = {("os", "_exit")}  # documented, in spite of its name


def bare() -> pl.Trainer:
    return pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)


def signal_connector() -> None:
    trainer = bare()
    private_names.leave_signals_alone(trainer)
    assert trainer._signal_connector.register_signal_handlers() is None  # type: ignore[func-returns-value]
    assert trainer._signal_connector._original_handlers == {}
    assert trainer.received_sigterm is False


def broadcast_sigterm_tensor() -> None:
    trainer = bare()
    assert "_broadcast_sigterm_tensor()" in source_of(type(trainer.fit_loop.epoch_loop))
    private_names.never_broadcast_sigterm(trainer)
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor()


def source_of(kind: type) -> str:
    import inspect

    return inspect.getsource(kind)


# public: the underscore keeps them apart from the fields of a named tuple
OF_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
USES = [signal_connector, broadcast_sigterm_tensor]


@pytest.mark.parametrize("use", USES, ids=lambda use: f"_{use.__name__}")
def test_the_installed_releases_still_have_the_name(use: Callable[[], None]) -> None:
    use()


@pytest.mark.parametrize(
    "replace", [private_names.leave_signals_alone, private_names.never_broadcast_sigterm]
)
def test_a_renamed_method_is_an_error_and_no_assignment(replace: Callable[[Any], None]) -> None:
    renamed = SimpleNamespace(
        _signal_connector=SimpleNamespace(), fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace())
    )
    with pytest.raises(AttributeError, match=r"register_signal_handlers|_broadcast_sigterm_tensor"):
        replace(renamed)


def test_no_other_file_uses_a_private_name_of_another_library() -> None:
    assert [use for path in sorted(PACKAGE.rglob("*.py")) for use in private_uses(path)] == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("trainer._signal_connector.teardown()", "_signal_connector"),
        ("if TYPE_CHECKING:\n    from torch.nn.modules.batchnorm import _BatchNorm", "_BatchNorm"),
        ("from jsonargparse._common import parsing_settings", "jsonargparse._common"),
        ("import torch._C", "torch._C"),
        ("import_module('jsonargparse._common')", "jsonargparse._common"),
        ("getattr(trainer, '_launcher')", "_launcher"),
    ],
)
def test_a_private_name_is_found_in_any_spelling(code: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(code, encoding="utf-8")
    assert list(private_uses(path)) == [f"module.py:{code.count(chr(10)) + 1}: {name}"]


def private_uses(path: Path) -> Iterator[str]:
    """Where a file names what another library keeps to itself."""
    if path.samefile(private_names.__file__):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = own_names(tree)
    for node in ast.walk(tree):
        for name in names_in(node):
            last = name.rpartition(".")[2]
            if is_private(name) and not (isinstance(node, ast.Attribute) and last in own):
                yield f"{path.name}:{getattr(node, 'lineno', 0)}: {name}"


def own_names(tree: ast.AST) -> set[str]:
    """What a file itself keeps private: methods, and attributes of self and cls."""
    methods = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    attributes = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute))
    return methods | {n.attr for n in attributes if is_of_self(n)}


def is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}


def names_in(node: ast.AST) -> Iterator[str]:
    """The names that a node takes from elsewhere: attributes, imports, and those in strings."""
    match node:
        case ast.Attribute(value=ast.Name(id=owner), attr=attr) if (owner, attr) in PUBLIC:
            return
        case ast.Attribute(attr=attr) if not is_of_self(node) and attr not in OF_TUPLES:
            yield attr
        case ast.ImportFrom(module=str(module), names=aliases):
            if not module.startswith("lis2_lightning"):
                yield from [module, *(a.name for a in aliases)]
        case ast.Import(names=aliases):
            yield from (a.name for a in aliases)
        case ast.Call(func=ast.Name(id="getattr" | "setattr" | "import_module"), args=args):
            yield from strings(args)
        case ast.Call(func=ast.Attribute(attr="import_module"), args=args):
            yield from strings(args)


def strings(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_private(name: str) -> bool:
    return any(re.fullmatch(r"_(?!_).*", part) for part in name.split("."))
