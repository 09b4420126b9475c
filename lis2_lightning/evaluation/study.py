"""A study in a file, from which processes take trials, and what a run reports to its trial."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from lis2_lightning.base.lock import acquire
from lis2_lightning.base.position import epoch_is_whole
from lis2_lightning.evaluation.space import Space
from lis2_lightning.evaluation.trials import ERROR, NUMBER

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

_TURN_S: Final = 0.05
_BUSY_S: Final = 60.0  # how long a process waits while another one writes into the study


class StudyFile:
    """The study in ``study.db`` of a folder, whose trials have the numbers of their folders.

    Args:
        folder: The folder, which exists.
        space: What varies.
        mode: Whether the best value is the smallest or the largest.
        warmup: Epochs after which trials may be pruned.
        seed: Seeds what is chosen, by the number of the trial: a study that was killed goes on
            alike.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        *,
        mode: Literal["min", "max"],
        warmup: int,
        seed: int | None,
    ) -> None:
        self.folder, self.space, self.mode = folder, space, mode
        self._warmup, self._seed = warmup, seed

    @cached_property
    def _study(self) -> Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # an address would not take every folder: not all releases of SQLAlchemy unquote it
        path = self.folder.absolute() / "study.db"
        connect = partial(sqlite3.connect, path, timeout=_BUSY_S)
        storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": connect})
        return optuna.create_study(
            study_name="study",
            storage=storage,
            direction="maximize" if self.mode == "max" else "minimize",
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=self._warmup),
            load_if_exists=True,
        )

    @cached_property
    def _states(self) -> Any:
        from optuna.trial import TrialState

        return TrialState

    def take(self, number: int, params: Mapping[str, Any] | None = None) -> Trial | None:
        """The trial of a number: a new one, or that of a killed process anew; null if it is over.

        What a dead process had reported is kept, so that pruning goes on where it was.

        Args:
            number: The number.
            params: What a new trial is to have; otherwise that is chosen.
        """
        from optuna.samplers import TPESampler
        from optuna.trial import create_trial

        with _turn(self.folder):
            study, states = self._study, self._states
            mine = [t for t in study.trials if t.user_attrs.get(NUMBER) == number]
            if any(trial.state in {states.COMPLETE, states.PRUNED} for trial in mine):
                return None
            for dead in (trial for trial in mine if trial.state == states.RUNNING):
                study.tell(dead.number, state=states.FAIL)
                again = create_trial(
                    state=states.WAITING,
                    params=dead.params,
                    distributions=dead.distributions,
                    user_attrs=dead.user_attrs,
                    intermediate_values=dead.intermediate_values,
                )
                study.add_trial(again)
                return study.ask()
            if params is not None:
                # Optuna's own grid goes by its numbers of trials, of which a killed one has two
                study.enqueue_trial(dict(params))
            seed = None if self._seed is None else (self._seed + number) % 2**32
            study.sampler = TPESampler(seed=seed)
            trial = study.ask(self.space.distributions())
            trial.set_user_attr(NUMBER, number)
            return trial

    def tell(self, trial: Trial, value: float | None, error: str = "") -> None:
        """End a trial: with its value, or pruned where that is null."""
        if error:
            trial.set_user_attr(ERROR, error)
        self._study.tell(
            trial, value, self._states.PRUNED if value is None else self._states.COMPLETE
        )

    def over(self) -> list[FrozenTrial]:
        """The trials that are over; one that was killed and begun anew is there once."""
        states = (self._states.COMPLETE, self._states.PRUNED)
        return self._study.get_trials(deepcopy=False, states=states)

    @property
    def has_value(self) -> bool:
        """Whether a trial has come to its end."""
        return any(trial.state == self._states.COMPLETE for trial in self.over())


class Reports(pl.Callback):
    """Reports the monitored value of each epoch to a trial, and ends the run that is pruned."""

    def __init__(self, trial: Trial, monitor: str, first: int, *, prunes: bool) -> None:
        self.has_pruned = False
        self._trial, self._monitor, self._first = trial, monitor, first
        self._prunes = prunes
        # of a run that was killed, the study may know an epoch that is trained again
        self._known = set(trial.study.trials[trial.number].intermediate_values)

    def watch(self, trainer: pl.Trainer) -> None:
        """Join a trainer's callbacks, before the snapshots, which note whether the run ends."""
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        first = next(i for i, own in enumerate(callbacks) if isinstance(own, ModelCheckpoint))
        callbacks.insert(first, self)

    def on_train_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002 - Lightning's hook
    ) -> None:
        """Report."""
        value = float(trainer.callback_metrics.get(self._monitor, math.nan))
        step = self._first + trainer.current_epoch
        if step in self._known or not math.isfinite(value) or not epoch_is_whole(trainer):
            return
        self._trial.report(value, step)
        if self._prunes and self._trial.should_prune():
            self.has_pruned = trainer.should_stop = True


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Let one process at a time change a study: two could take the same trial in SQLite."""
    with (folder / ".turn").open("a+b") as file:
        while not acquire(file):
            time.sleep(_TURN_S)
        yield
