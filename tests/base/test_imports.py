"""Imports: nothing is collected meanwhile, and afterwards the collector is as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

COUNT = """
import gc, json, sys
collected = []
gc.callbacks.append(lambda phase, info: collected.append(info["generation"]))
"""
TELL = """
full = sum(generation == 2 for generation in collected)
json.dump({"full": full, "on": gc.isenabled(), "frozen": gc.get_freeze_count()}, sys.stdout)
"""


def run(code: str) -> Any:
    """What a fresh process tells at its end."""
    words = [sys.executable, "-c", f"{COUNT}{code}{TELL}"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_trainer_waits_for_no_collection_and_freezes_nothing_of_the_program():
    assert run("from lis2_lightning import Trainer") == {"full": 0, "on": True, "frozen": 0}


def test_a_command_leaves_out_its_imports_when_the_process_ends():
    code = """
from lis2_lightning.__main__ import main
main(["plan", "--config", "configs/quickstart.yaml"])
print()
"""
    told = run(code)
    assert told["on"]
    assert told["frozen"] > 100_000


@pytest.mark.parametrize("state", ["enable", "disable"])
def test_a_failed_import_leaves_the_collector_as_it_was(state):
    code = f"""
gc.{state}()
from lis2_lightning.base.imports import collecting_later
try:
    with collecting_later():
        import no_such_module
except ImportError:
    pass
"""
    assert run(code)["on"] == (state == "enable")
