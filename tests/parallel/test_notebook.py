"""Several devices in a notebook: real kernels, whose cells fork real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lis2_lightning import Trainer
from lis2_lightning.snapshots import read_snapshot

Make = Callable[..., dict[str, Any]]
TWO = {"accelerator": "cpu", "devices": 2, "enable_progress_bar": True}

# what a cell and a script do alike
WORK = """
import json, numpy
from lis2_lightning import Trainer
trainer = Trainer.from_config("tiny.yaml")
info = trainer.train()
maps = trainer.predict()
if trainer.lightning.is_global_zero:
    weights = {name: weight.numpy() for name, weight in trainer.model.state_dict().items()}
    numpy.savez("weights.npz", **weights)
    numpy.save("map.npy", maps[0])
    facts = [info, trainer.epochs_run, trainer.best_loss, trainer.test(), trainer.validate()]
    facts += [trainer.lightning.current_epoch, trainer.lightning.global_step]
else:
    trainer.test(), trainer.validate()
"""
TELL = 'open("facts.json", "w").write(json.dumps(facts))'

# a pool of threads that the workers do not inherit, and would wait for
THREADS = """
import os, torch
os.environ["OMP_NUM_THREADS"] = "4"
torch.set_num_threads(4)
torch.nn.Conv2d(3, 64, 3)(torch.rand(32, 3, 64, 64)).sum().backward()
"""

BROKEN = """
import os, signal, torch
from torch.utils.data import Dataset
from lis2_lightning import Trainer
from lis2_lightning.errors import DataError

class Noise(Dataset):
    def __init__(self, fail):
        self.fail, self.kernel = fail, os.getpid()

    def __len__(self):
        return 64

    def __getitem__(self, index):
        if os.getpid() != self.kernel and os.environ["LOCAL_RANK"] == "1":
            self.fail()
        return {"patch": torch.rand(1, 16, 16), "target": torch.ones(1, 16, 16)}

def refuse():
    raise DataError("tile 3 is broken: mend it")

def divide():
    1 / 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def train(fail):
    keys = {"run_name": fail.__name__, "train_dataset": Noise(fail)}
    Trainer.from_config("tiny.yaml", **keys).train()
"""

SLOW = """
import os, time
from torch import nn

class Slow(nn.Conv2d):
    def __init__(self):
        super().__init__(1, 1, 1)

    def forward(self, patch):
        time.sleep(0.05)
        return super().forward(patch).sigmoid()

class Stuck(Slow):
    def forward(self, patch):
        if "LOCAL_RANK" in os.environ:
            open("stuck", "w").close()
            time.sleep(300)
        return super().forward(patch)
"""


def configured(folder: Path, given: dict[str, Any]) -> None:
    """Leave a configuration and a user's network in a folder of their own."""
    folder.mkdir()
    (folder / "slow_network.py").write_text(SLOW, encoding="utf-8")
    text = yaml.safe_dump({**given, "output_dir": "runs"})
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")


def run_cells(folder: Path, *cells: str) -> list[list[Any]]:
    """What stands below each cell of a notebook that a clean kernel has run; errors stay there."""
    nbformat: Any = pytest.importorskip("nbformat")
    nbclient: Any = pytest.importorskip("nbclient")
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook = nbformat.v4.new_notebook(cells=made)
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", allow_errors=True, resources=where
    ).execute()
    return [cell.outputs for cell in notebook.cells]


def told(outputs: list[Any]) -> str:
    """The text below a cell, bars included."""
    texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]
    return "\n".join(texts)


def error(outputs: list[Any]) -> tuple[str, str]:
    """The class and the sentence of the error below a cell."""
    found = [(o.ename, o.evalue) for o in outputs if o.output_type == "error"]
    assert len(found) == 1, outputs
    return found[0]


@pytest.mark.slow
def test_a_notebook_gives_what_separate_processes_give(tiny: Make, tmp_path: Path) -> None:
    cells, script = tmp_path / "cells", tmp_path / "script"
    configured(cells, tiny(lightning=TWO, save_last=True, resume="auto"))
    configured(script, tiny(lightning={**TWO, "strategy": "ddp"}, save_last=True, resume="auto"))
    (script / "run.py").write_text(
        f"{WORK}\nif trainer.lightning.is_global_zero: {TELL}\n", encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=script, timeout=240, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()

    shown = run_cells(cells, THREADS, WORK, TELL, "trainer.train() == info")
    assert [o for below in shown for o in below if o.output_type == "error"] == []
    assert told(shown[-1]) == "True"
    for name in ("facts.json", "runs/tiny/logs_train.csv", "runs/tiny/test_results.csv", "map.npy"):
        assert (cells / name).read_bytes() == (script / name).read_bytes(), name
    ours, theirs = (read_snapshot(each / "runs/tiny/best.pt") for each in (cells, script))
    assert_same(ours["MODEL"]["MODEL_STATE"], theirs["MODEL"]["MODEL_STATE"])
    assert_same(*(loaded(each / "weights.npz") for each in (cells, script)))
    assert sorted(names(cells / "runs")) == sorted(names(script / "runs"))
    assert_shown_once(told(shown[1]))
    assert_agrees_with_one_process(tiny, cells)


def names(folder: Path) -> list[str]:
    """Every file below a folder."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def loaded(path: Path) -> dict[str, torch.Tensor]:
    """Weights that a notebook or a script has left."""
    return {name: torch.from_numpy(weight) for name, weight in np.load(path).items()}


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Two networks have the same weights, bit for bit."""
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def assert_shown_once(text: str) -> None:
    """One finished line for each loop, and each message once; nothing of Lightning's."""
    loops = re.findall(r"^(\w+): 100%\|.*\| (\d+)/(\d+) \[", text, flags=re.MULTILINE)
    assert [name for name, *_ in loops] == [
        "epochs",
        "test",
        "prediction",
        "prediction",
        "test",
        "validation",
    ]
    assert all(done == total for _, done, total in loops)
    assert text.count("starting a new run in runs/tiny") == 1
    assert text.count("best train_loss") == 1
    assert "Initializing" not in text


def assert_agrees_with_one_process(tiny: Make, folder: Path) -> None:
    """The scores of the best snapshot are those that one process measures."""
    (info, *_), test, validation = facts(folder)
    one = Trainer.from_config(tiny(output_dir=str(folder / "one")))
    best = folder / info["final_model_path"]
    assert one.test(best) == pytest.approx(test, rel=1e-6)
    assert one.validate(best) == pytest.approx(validation, rel=1e-6)


def facts(folder: Path) -> tuple[list[Any], dict[str, float], dict[str, float]]:
    """What a trainer said of itself."""
    every = yaml.safe_load((folder / "facts.json").read_text(encoding="utf-8"))
    return every, every[3], every[4]


@pytest.mark.slow
def test_an_error_in_a_process_is_one_sentence_in_the_cell_and_the_kernel_lives(
    tiny: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "cells"
    configured(folder, tiny(lightning=TWO))
    children = "import multiprocessing; multiprocessing.active_children()"
    failing = ["train(refuse)", "train(divide)", "train(die)"]
    _, *shown, left = run_cells(folder, BROKEN, *failing, children)
    assert error(shown[0]) == ("DataError", "tile 3 is broken: mend it")
    assert error(shown[1]) == ("ZeroDivisionError", "division by zero")
    assert "in divide" in "".join(shown[1][-1].traceback)  # where it happened over there
    kind, sentence = error(shown[2])
    assert kind == "ProcessLost"
    assert sentence.startswith("process 1 of 2 has died (SIGKILL;")
    assert told(left) == "[]"


@pytest.mark.slow
def test_a_tracker_gets_each_row_once_and_the_runs_end(tiny: Make, tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "cells"
    configured(folder, tiny(lightning=TWO, trackers=["tensorboard"], num_workers=1))
    shown = run_cells(folder, WORK)
    assert [o for o in shown[0] if o.output_type == "error"] == []
    runs = folder / "runs" / "tiny"
    assert len((runs / "logs_train.csv").read_text(encoding="utf-8").splitlines()) == 3
    journal = (runs / "trackers/tensorboard.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = [yaml.safe_load(line)["kind"] for line in journal]
    assert [kinds.count(kind) for kind in ("start", "row", "summary", "close")] == [1, 2, 1, 1]
    assert '"status": "finished"' in journal[-1]
    events = accumulators.EventAccumulator(str(next(runs.rglob("events.out.tfevents*")).parent))
    events.Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [0, 1]


class Kernel:
    """A kernel that is told to run cells, and may be interrupted while it does."""

    def __init__(self, folder: Path) -> None:
        manager: Any = pytest.importorskip("jupyter_client.manager")
        self.manager, self.client = manager.start_new_kernel(kernel_name="python3", cwd=str(folder))

    def start(self, cell: str) -> None:
        """Begin a cell."""
        self.client.execute(textwrap.dedent(cell))

    def reply(self) -> dict[str, Any]:
        """How the cell has ended."""
        content: dict[str, Any] = self.client.get_shell_msg(timeout=90)["content"]
        return content

    def interrupt(self) -> None:
        """As the button does it."""
        self.manager.interrupt_kernel()

    def close(self) -> None:
        """End it."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def wait_for_rows(folder: Path, num: int) -> None:
    """Wait until a run has finished some epochs."""
    log = folder / "logs_train.csv"
    for _ in range(600):
        if log.is_file() and len(log.read_text(encoding="utf-8").splitlines()) > num:
            return
        time.sleep(0.1)
    pytest.fail("the run has not come so far within a minute")


@pytest.mark.slow
def test_an_interrupted_cell_goes_on_where_it_was(tiny: Make, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    network = {"class_path": "slow_network.Slow"}
    configured(folder, tiny(model=network, epochs=7, resume="auto", lightning=TWO))
    run, kernel = folder / "runs" / "tiny", Kernel(folder)
    try:
        kernel.start(
            "from lis2_lightning import Trainer\n"
            "trainer = Trainer.from_config('tiny.yaml')\n"
            "trainer.train()"
        )
        wait_for_rows(run, 1)
        kernel.interrupt()
        assert kernel.reply()["ename"] == "KeyboardInterrupt"
        done = read_snapshot(run / "last.pt")["LIGHTNING"]["next_epoch"]
        kernel.start(f"assert trainer.epochs_run == {done}, trainer.epochs_run")
        assert kernel.reply()["status"] == "ok"

        kernel.start("assert trainer.train()['epochs_run'] == 7")
        assert kernel.reply()["status"] == "ok"
    finally:
        kernel.close()
    rows = (run / "logs_train.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", *map(str, range(7))]


@pytest.mark.slow
def test_a_second_interrupt_ends_a_cell_that_is_stuck(tiny: Make, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    configured(folder, tiny(model={"class_path": "slow_network.Stuck"}, lightning=TWO))
    kernel = Kernel(folder)
    try:
        kernel.start("from lis2_lightning import Trainer\nTrainer.from_config('tiny.yaml').train()")
        for _ in range(600):
            if (folder / "stuck").exists():
                break
            time.sleep(0.1)
        kernel.interrupt()
        time.sleep(1)
        kernel.interrupt()
        assert kernel.reply()["ename"] == "KeyboardInterrupt"
        kernel.start("import multiprocessing; assert not multiprocessing.active_children()")
        assert kernel.reply()["status"] == "ok"
    finally:
        kernel.close()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="asks Linux for the children")
def test_processes_whose_kernel_is_killed_write_what_they_have_and_end(
    tiny: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "script"
    lightning = {**TWO, "strategy": "ddp_notebook", "enable_progress_bar": False}
    network = {"class_path": "slow_network.Slow"}
    configured(folder, tiny(model=network, epochs=500, resume="auto", lightning=lightning))
    code = "from lis2_lightning import Trainer; Trainer.from_config('tiny.yaml').train()"
    with (folder / "log.txt").open("wb") as log:
        script = subprocess.Popen(
            [sys.executable, "-c", code], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for_rows(folder / "runs/tiny", 1)
        children = Path(f"/proc/{script.pid}/task/{script.pid}/children").read_text().split()
        assert len(children) == 2
        script.kill()
        script.wait()
        until = time.monotonic() + 30
        while any(map(lives, children)) and time.monotonic() < until:
            time.sleep(0.2)
        assert not any(map(lives, children))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)
    assert read_snapshot(folder / "runs/tiny/last.pt")["LIGHTNING"]["next_epoch"] >= 1


def lives(number: str) -> bool:
    """Whether a process runs; one that nobody has asked for its end does not."""
    status = Path(f"/proc/{number}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
