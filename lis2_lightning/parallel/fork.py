"""Lightning's loops in processes forked from a notebook's, and what comes back from them.

Lightning's own launcher brings back the logged values and the last weights, and writes these with
the checkpoint plugin, which in this package takes whole checkpoints only. What callbacks have
counted would stay behind in processes that are gone.
"""

from __future__ import annotations

import inspect
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning.pytorch.strategies.parallel import ParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus

from lis2_lightning.base.signals import Signals
from lis2_lightning.errors import ConfigError
from lis2_lightning.parallel.failures import RESTART
from lis2_lightning.parallel.workers import Tell, Workers, note_each_once

_log = logging.getLogger("lis2_lightning")
_LOG: Final = "log"


class Handover(Protocol):
    """What the parts of a run do in a worker, and in the notebook's process with what they left."""

    def begin(self) -> None:
        """Get ready in the notebook's process: workers are about to start."""

    def in_worker(self, rank: int, tell: Tell) -> None:
        """Turn to the notebook's process for what only it can do."""

    def told(self, kind: str, value: Any) -> None:
        """Do in the notebook's process what a worker asks for."""

    def leave(self) -> Mapping[str, Any]:
        """What the main worker leaves at its end: plain values and tensors."""

    def take(self, trainer: pl.Trainer, left: Mapping[str, Any]) -> None:
        """Take it up in the notebook's process."""


class ForkLauncher(_MultiProcessingLauncher):
    """Runs each loop in forked processes, of which none is left when it returns.

    Args:
        strategy: The strategy, which starts its processes by forks.
        signals: Notes the signals in each process.
        handover: Knows what comes back besides weights, logged values and callbacks' states.
    """

    def __init__(self, strategy: ParallelStrategy, signals: Signals, handover: Handover) -> None:
        super().__init__(strategy, start_method="fork")
        self._signals = signals
        self._handover = handover

    def launch(
        self,
        function: Callable[..., Any],
        *args: Any,
        trainer: pl.Trainer | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run one of the trainer's loops.

        Raises:
            ConfigError: CUDA is in use already, or a trainer trains a second time from nothing.
            Exception: What a worker has raised.
        """
        trainer = cast("pl.Trainer", trainer)  # Lightning's trainer always names itself
        self._check(trainer, inspect.signature(function).bind(*args, **kwargs).arguments)
        with self._port(), tempfile.TemporaryDirectory(prefix="lis2-") as folder:
            path = Path(folder) / "left.pt"

            def work(rank: int, tell: Tell) -> None:
                self._begin_worker(rank, tell)
                ended: dict[str, Any] = {"is_done": False, "results": None}
                try:
                    ended = {"is_done": True, "results": function(*args, **kwargs)}
                finally:
                    if rank == 0:
                        _leave(path, trainer, {**ended, **self._handover.leave()})

            self._handover.begin()
            num: int = cast("Any", self._strategy).num_processes
            workers = Workers(num, work)
            self.procs = cast("Any", workers.processes)
            try:
                workers.join(self._signals, self._told)
            finally:
                # also of a run that was interrupted: how many epochs are done, and the weights
                left = self._take(path, trainer)
        trainer.state.status, trainer.state.stage = TrainerStatus.FINISHED, None
        return left.get("results")

    def _check(self, trainer: pl.Trainer, arguments: Mapping[str, Any]) -> None:
        # Lightning asks torch whether this is a bad fork, which is true in the workers only
        is_in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's
        if self._strategy.root_device.type == "cuda" and is_in_use:
            raise ConfigError(
                "this kernel has used a GPU already, and forked processes cannot use one then: "
                f"{RESTART}"
            )
        fits = trainer.state.fn == TrainerFn.FITTING
        if fits and self._already_fit and arguments.get("ckpt_path") is None:
            raise ConfigError(
                "this trainer has trained already, and its optimizer ended with its processes: "
                "build another one, from a snapshot to go on (Trainer.from_snapshot)"
            )

    @contextmanager
    def _port(self) -> Iterator[None]:
        """Name the port where the workers meet; what the notebook starts later has its own."""
        former = os.environ.get("MASTER_PORT")
        environment = self._strategy.cluster_environment
        os.environ["MASTER_PORT"] = str(cast("Any", environment).main_port)
        try:
            yield
        finally:
            del os.environ["MASTER_PORT"]
            if former is not None:
                os.environ["MASTER_PORT"] = former

    def _begin_worker(self, rank: int, tell: Tell) -> None:
        # the parent's threads are not forked with it: OpenMP would wait for them for ever
        torch.set_num_threads(1)
        os.environ["LOCAL_RANK"] = str(rank)
        note_each_once(self._signals)
        _log.handlers = [_Told(tell)] if rank == 0 else [logging.NullHandler()]
        _log.propagate = False
        if rank > 0:
            warnings.simplefilter("ignore")  # the main worker has the same to say
        self._handover.in_worker(rank, tell)

    def _told(self, kind: str, value: Any) -> None:
        if kind == _LOG:
            _log.handle(logging.makeLogRecord(value))
        else:
            self._handover.told(kind, value)

    def _take(self, path: Path, trainer: pl.Trainer) -> dict[str, Any]:
        if not path.is_file():
            return {}
        left: dict[str, Any] = torch.load(  # noqa: TID251 - a worker of ours has just written it
            path,
            weights_only=True,
            map_location="cpu",  # the kernel must not touch a GPU: later workers are forked from it
        )
        # as Lightning does it: a callback may have added layers in the workers
        trainer.lightning_module.load_state_dict(left["weights"], strict=False)
        for callback in cast("Any", trainer).callbacks:
            if state := left["callbacks"].get(callback.state_key):
                callback.load_state_dict(state)
        trainer.callback_metrics.clear()
        trainer.callback_metrics.update(left["metrics"])
        if trainer.state.fn == TrainerFn.FITTING and left["step"] > 0:
            trainer.fit_loop.load_state_dict(left["loop"])
            self._already_fit = True
        self._handover.take(trainer, left)
        return left


class _Told(logging.Handler):
    """Lets the notebook's process say what a worker logs: only that can be sure to be shown."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        plain = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        self._tell(_LOG, {**plain, "msg": record.getMessage()})


def _leave(path: Path, trainer: pl.Trainer, more: Mapping[str, Any]) -> None:
    """Write what comes back: in a file, for shared memory would end with this process."""
    states = {each.state_key: each.state_dict() for each in cast("Any", trainer).callbacks}
    left = {
        **more,
        "weights": {k: v.cpu() for k, v in trainer.lightning_module.state_dict().items()},
        "callbacks": {key: state for key, state in states.items() if state},
        "step": trainer.global_step,
        "loop": trainer.fit_loop.state_dict(),
        "metrics": {key: value.cpu() for key, value in trainer.callback_metrics.items()},
    }
    temporary = path.with_suffix(".tmp")
    torch.save(left, temporary)
    temporary.replace(path)  # a worker that is killed leaves nothing rather than a part
