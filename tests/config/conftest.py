"""Modules that do something when they are imported or called, and a canary that tells."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CODE = {
    # does something when it is imported
    "evil_when_imported": """
open(CANARY, 'w').close()
from torch import nn
class Net(nn.Module): ...
""",
    # the user's own module, which the program has imported, with what it has from elsewhere
    "own_code": """
from os import system
from subprocess import Popen
from collections import OrderedDict, Counter
from collections.abc import Callable
from functools import partial
import os, subprocess, torch, numpy
from torch import nn, load, hub
from torch.utils.data import Dataset
class Net(nn.Conv2d):
    def __init__(self, activation: Callable | None = None):
        super().__init__(1, 1, 1)
        self.activation = activation
    def forward(self, patch):
        return super().forward(patch).sigmoid()
class Augment:
    def __call__(self, sample): return sample
class Settings:
    def __init__(self, command=""): open(CANARY, 'w').close()
def rate(epoch): return 0.5 ** epoch
run = partial(system, "touch")
net = Net()
""",
    "own_package.evil": "open(CANARY, 'w').close()\nclass Net: ...",
}


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The modules, of which the program has imported its own; gives the canary's place."""
    folder = tmp_path_factory.mktemp("code")
    canary = folder / "canary"
    for name, text in CODE.items():
        file = folder / (name.replace(".", "/") + ".py")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text.replace("CANARY", repr(str(canary))), encoding="utf-8")
    (folder / "own_package/__init__.py").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        for name in ("own_code", "own_package"):
            importlib.import_module(name)
        yield canary


@pytest.fixture
def canary(code: Path) -> Iterator[None]:
    """Nothing of the modules has run, and none has been imported, when a test is over."""
    before = set(sys.modules)
    yield
    assert not code.exists(), "something has run"
    assert not {"evil_when_imported", "own_package.evil", "antigravity", "this"} & (
        set(sys.modules) - before
    )
