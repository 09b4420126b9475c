"""Which strategy a notebook gets, what it is refused, and that no GPU is touched before forks."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.fabric.utilities import imports
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.connectors import accelerator_connector
from torch import Tensor
from torch.utils.data import Dataset

from lis2_lightning import Trainer
from lis2_lightning.base.signals import Signals
from lis2_lightning.errors import ConfigError, DataError, Interrupted, Lis2Error, TrainingError
from lis2_lightning.parallel.failures import death, described, rebuilt
from lis2_lightning.parallel.fork import ForkLauncher
from lis2_lightning.parallel.notebook import strategy_here
from lis2_lightning.parallel.workers import Tell, Workers

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Lightning take this process for a notebook's."""
    monkeypatch.setattr(imports, "_IS_INTERACTIVE", True)
    monkeypatch.setattr(accelerator_connector, "_IS_INTERACTIVE", True)


def lightning(**arguments: Any) -> dict[str, Any]:
    """Arguments of Lightning's for two processes."""
    return {"accelerator": "cpu", "devices": 2, "enable_progress_bar": False, **arguments}


@pytest.mark.usefixtures("notebook")
@pytest.mark.parametrize("strategy", ["auto", "ddp", "DDP_find_unused_parameters_true"])
def test_a_notebook_forks_its_processes(tiny: Make, strategy: str) -> None:
    trainer = Trainer.from_config(tiny(lightning=lightning(strategy=strategy)))
    assert type(trainer.lightning.strategy.launcher) is ForkLauncher
    assert trainer.lightning.world_size == 2


@pytest.mark.usefixtures("notebook")
def test_another_strategy_in_the_place_of_ddp_is_said_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "lis2_lightning"):
        assert strategy_here("ddp") == "ddp_notebook"
    assert [record.getMessage() for record in caplog.records] == [
        "strategy 'ddp' starts scripts: in a notebook 'ddp_notebook' takes its place"
    ]


def test_outside_a_notebook_a_strategy_is_what_was_asked_for() -> None:
    assert [strategy_here(each) for each in ("ddp", "fsdp", "auto")] == ["ddp", "fsdp", "auto"]


@pytest.mark.usefixtures("notebook")
@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2", "ddp_spawn", DDPStrategy()])
def test_what_only_a_script_can_start_is_one_sentence_in_a_notebook(
    tiny: Make, strategy: Any
) -> None:
    trainer = Trainer.from_config(tiny(lightning=lightning(strategy=strategy)))
    with pytest.raises(ConfigError, match="cannot start its processes from a notebook: set") as got:
        _ = trainer.lightning
    assert "or use lis2 fit" in str(got.value)


def test_spawned_processes_are_refused_anywhere(tiny: Make) -> None:
    trainer = Trainer.from_config(tiny(lightning=lightning(strategy="ddp_spawn")))
    with pytest.raises(ConfigError, match="brings no results back from them: set"):
        _ = trainer.lightning


@pytest.mark.usefixtures("notebook")
@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_a_platform_without_forks_is_one_sentence(
    tiny: Make, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    monkeypatch.setattr(torch.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    trainer = Trainer.from_config(tiny(lightning=lightning(strategy=strategy)))
    with pytest.raises(
        ConfigError, match=r"need forked processes, which .* has not: set lightning"
    ):
        _ = trainer.lightning


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs that nobody may touch."""

    def touched(*_: Any, **__: Any) -> None:
        pytest.fail("CUDA was touched before the processes had started")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("_lazy_init", "init", "current_device", "set_device", "get_device_properties"):
        monkeypatch.setattr(torch.cuda, name, touched)


@pytest.mark.usefixtures("notebook", "gpus")
def test_no_gpu_is_touched_before_the_processes_start(
    tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StartedError(Exception):
        """The processes would start here."""

    def start(*_: Any) -> None:
        raise StartedError

    monkeypatch.setattr("lis2_lightning.parallel.fork.Workers", start)
    trainer = Trainer.from_config(tiny(lightning=lightning(accelerator="gpu")))
    with pytest.raises(StartedError):
        trainer.train()
    assert trainer.lightning.strategy.root_device == torch.device("cuda", 0)


@pytest.mark.usefixtures("notebook", "gpus")
def test_a_gpu_that_is_in_use_is_one_sentence(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    trainer = Trainer.from_config(tiny(lightning=lightning(accelerator="gpu")))
    with pytest.raises(ConfigError, match=r"used a GPU already, .* restart the kernel and train"):
        trainer.train()


def test_training_again_from_nothing_is_refused(tiny: Make) -> None:
    trainer = Trainer.from_config(tiny(lightning=lightning(strategy="ddp_notebook")))
    trainer.fit()
    assert trainer.epochs_run == 2
    with pytest.raises(ConfigError, match="has trained already, and its optimizer ended"):
        trainer.fit()


@pytest.mark.parametrize(
    "error", [ConfigError("a: b"), Interrupted("c", 15), TrainingError("d"), ValueError("e")]
)
def test_an_error_comes_out_of_another_process_as_what_it_was(error: Exception) -> None:
    again = rebuilt(described(error), 1, 2)
    assert (type(again), str(again)) == (type(error), str(error))
    assert getattr(again, "exit_code", None) == getattr(error, "exit_code", None)


def test_an_error_of_another_package_is_named_in_a_sentence() -> None:
    class TheirsError(Exception):
        """Nothing of ours, and nothing of Python's."""

    again = rebuilt(described(TheirsError("two\nlines")), 1, 2)
    assert type(again) is TrainingError
    assert str(again) == "process 1 of 2 failed: TheirsError: two lines"
    assert "TheirsError: two" in str(again.__cause__)


@pytest.mark.parametrize(
    "words", ["in combination with fork, see Autograd-and-Fork", "Cannot re-initialize CUDA in "]
)
def test_what_a_process_may_not_inherit_is_said_to_whom_can_change_it(words: str) -> None:
    error = RuntimeError(f"{words}forked subprocess")
    assert "restart the kernel" in str(rebuilt(described(error), 0, 2))


def test_a_death_names_the_signal_or_the_code() -> None:
    assert "process 1 of 2 has died (SIGKILL;" in str(death(1, -9, 2))
    assert "process 0 of 3 has died (exit code 7;" in str(death(0, 7, 3))


def test_what_workers_tell_arrives_in_order_and_none_is_left() -> None:
    heard: list[tuple[str, Any]] = []

    def work(rank: int, tell: Tell) -> None:
        for each in range(300):
            tell("row", rank + each)

    workers = Workers(1, work)
    workers.join(Signals(), lambda kind, value: heard.append((kind, value)))
    assert heard == [("row", each) for each in range(300)]
    assert [process.exitcode for process in workers.processes] == [0]


def test_the_cause_is_told_and_not_what_followed_from_it() -> None:
    def work(rank: int, _: Tell) -> None:
        raise (RuntimeError("Connection closed by peer"), Lis2Error("the tile is broken"))[rank]

    with pytest.raises(Lis2Error, match="the tile is broken"):
        Workers(2, work).join(Signals(), lambda *_: None)


def test_a_process_that_does_not_notice_a_failure_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lis2_lightning.parallel.workers.GRACE_S", 0.3)

    def work(rank: int, _: Tell) -> None:
        if rank == 1:
            raise Lis2Error("the tile is broken")
        time.sleep(300)

    workers = Workers(2, work)
    with pytest.raises(Lis2Error, match="the tile is broken"):
        workers.join(Signals(), lambda *_: None)
    assert [process.exitcode for process in workers.processes] == [-signal.SIGKILL, 1]


def test_a_training_that_failed_before_its_first_step_may_begin_again(tiny: Make) -> None:
    class Mended(Dataset[dict[str, Tensor]]):
        is_mended = False

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            if not self.is_mended:
                raise DataError("the tile is broken")
            return {"patch": torch.full((1, 16, 16), index / 8), "target": torch.ones(1, 16, 16)}

    data = Mended()
    keys = {"train_dataset": data, "val_dataset": None, "test_dataset": None}
    trainer = Trainer.from_config(tiny(lightning=lightning(strategy="ddp_notebook")), **keys)
    with pytest.raises(DataError, match="the tile is broken"):
        trainer.fit()
    data.is_mended = True
    trainer.fit()
    assert (trainer.epochs_run, trainer.lightning.current_epoch) == (2, 2)
