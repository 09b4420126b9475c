"""Which settings make a training faster on this machine, tried on the user's own data."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, Final

import lightning.pytorch as pl
import torch
from tqdm import tqdm

from lis2_lightning.data.datamodule import usable_cores, usual_workers
from lis2_lightning.errors import ConfigError, Lis2Error, one_line
from lis2_lightning.evaluation.learning_rate import UNUSED
from lis2_lightning.parallel.devices import has_bfloat16
from lis2_lightning.running import around_loop
from lis2_lightning.trainer import Trainer

AS_CONFIGURED: Final = "as configured"
TOLERANCE: Final = 0.02  # of the mean loss of the compared batches, against that of the first trial
COMPARED: Final = 20  # batches whose losses are compared
LEAST_GAIN: Final = 1.03  # less is within what a machine varies by
_WARM_UP: Final = 3  # batches that build what later ones use


class _Stopwatch(pl.Callback):
    """Times batches, keeps the first losses, and ends the training when the seconds are over.

    It ends it, too, where the first batches have taken longer than the limit.
    """

    def __init__(self, seconds: float, limit: float) -> None:
        self.durations: list[float] = []
        self.losses: list[float] = []
        self._seconds, self._left = seconds, _WARM_UP
        self._begun = self._last = math.inf
        self.limit = limit
        self._latest = time.perf_counter() + limit
        self.device = torch.device("cpu")

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """What lies between two epochs is no part of a batch, unless each has one batch only."""
        self.device = trainer.strategy.root_device
        if trainer.num_training_batches > 1:
            self._last = math.inf

    def on_train_batch_end(self, trainer: pl.Trainer, _: Any, outputs: Any, *__: Any) -> None:
        """Look at the clock, once the device has done its work."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        value, now = float(loss), time.perf_counter()
        if len(self.losses) < COMPARED:
            self.losses.append(value)
        if self._left:
            self._left, self._begun = self._left - 1, now
        elif self._last < now:
            self.durations.append(now - self._last)
        self._last = now
        if self.has_started and len(self.losses) == COMPARED:
            trainer.should_stop |= now - self._begun > self._seconds
        else:
            trainer.should_stop |= now > self._latest

    @property
    def has_started(self) -> bool:
        """Whether enough batches were timed."""
        return len(self.durations) >= _WARM_UP


@dataclass(frozen=True)
class Trial:
    """How fast a setting trains, and how far its losses lie from those as configured."""

    setting: str
    tiles_per_s: float = math.nan
    gain: float = math.nan
    """Over the configuration as it is."""
    loss_off: float = math.nan
    """Relative difference of the mean loss of the first batches."""
    failure: str = ""
    least_gain: float = LEAST_GAIN
    """What is more than chance: at least the difference between two trials as configured."""

    @property
    def pays(self) -> bool:
        """Whether it is faster by more than chance, and learns the same."""
        return self.gain >= self.least_gain and self.loss_off <= TOLERANCE


def candidates(
    config: Mapping[str, Any], device: torch.device, *, try_compile: bool = False
) -> dict[str, dict[str, Any]]:
    """Settings that may be faster here and that the configuration does not have, by name."""
    settings: dict[str, dict[str, Any]] = {}
    theirs = config["lightning"]
    if has_bfloat16(device) and theirs.get("precision") in {None, "32", "32-true", 32}:
        settings["lightning.precision: bf16-mixed"] = {"lightning.precision": "bf16-mixed"}
    if try_compile and not config["compile"]:
        settings["compile: true"] = {"compile": True}
    if not config["channels_last"]:
        last = {"channels_last": True}
        both = {f"channels_last: true, {key}": last | value for key, value in settings.items()}
        settings = {"channels_last: true": last, **settings, **both}
    if device.type == "cuda" and not theirs.get("benchmark"):
        settings["lightning.benchmark: true"] = {"lightning.benchmark": True}
    own = usual_workers() if config["num_workers"] == "auto" else config["num_workers"]
    for workers in sorted({0, 1, min(usable_cores() - 1, 8)} - {own}):
        settings[f"num_workers: {workers}"] = {"num_workers": workers}
    return settings


def measure(
    config: Mapping[str, Any],
    *,
    seconds: float = 6.0,
    limit: float = 120.0,
    try_compile: bool = False,
) -> list[Trial]:
    """Train for some seconds with each setting, the configuration itself first and last.

    Everything happens in a temporary folder, without validation, scheduler and trackers; the order
    of the tiles and the first weights are the same for all.

    Args:
        config: A complete configuration, as of :meth:`Schema.parse`.
        seconds: How long each setting trains after its first batches.
        limit: How many seconds it may take to start, and to train what is compared. A batch that
            runs is not interrupted.
        try_compile: Whether ``compile: true`` is tried.

    Raises:
        ConfigError: The seconds or the limit are not above 0, or the configuration itself does not
            train within the limit.
    """
    for name, value in (("seconds", seconds), ("limit", limit)):
        if not value > 0:
            raise ConfigError(f"{name} must be more than 0, got {value:g}")
    stopwatch = partial(_Stopwatch, seconds, limit)
    with TemporaryDirectory(prefix="lis2-speed-") as folder:
        short = _short(config, folder)
        first, watches, last = _try_all(short, stopwatch, try_compile=try_compile)
    base = statistics.median(first.durations + last.durations)
    ends = statistics.median(first.durations), statistics.median(last.durations)
    least_gain = max(LEAST_GAIN, max(ends) / min(ends))
    trials = [Trial(AS_CONFIGURED, config["batch_size"] / base, 1.0, 0.0)]
    for name, watch in watches.items():
        if isinstance(watch, str):
            trials.append(Trial(name, failure=watch))
            continue
        taken = statistics.median(watch.durations)
        off = _difference(watch.losses, first.losses)
        speed, gain = config["batch_size"] / taken, base / taken
        trials.append(Trial(name, speed, gain, off, least_gain=least_gain))
    return trials


def _try_all(
    config: Mapping[str, Any], stopwatch: Callable[[], _Stopwatch], *, try_compile: bool
) -> tuple[_Stopwatch, dict[str, _Stopwatch | str], _Stopwatch]:
    """The configuration itself, each setting or why it fails, and the configuration again."""
    watches: dict[str, _Stopwatch | str] = {}
    with tqdm(unit="setting", leave=False, desc=AS_CONFIGURED) as bar:
        first = _run(config, {}, stopwatch())
        settings = candidates(config, first.device, try_compile=try_compile)
        bar.reset(total=len(settings) + 2)
        for name, overrides in settings.items():
            bar.update()
            bar.set_description(name)
            try:
                watches[name] = _run(config, overrides, stopwatch())
            except (Lis2Error, RuntimeError) as error:
                watches[name] = one_line(error)
        bar.update()
        bar.set_description(AS_CONFIGURED)
        return first, watches, _run(config, {}, stopwatch())


def _run(config: Mapping[str, Any], overrides: Mapping[str, Any], watch: _Stopwatch) -> _Stopwatch:
    # a folder for each, as each is a new run
    trainer = Trainer.from_config(config, **overrides, run_name=f"run_{time.monotonic_ns()}")
    trainer.lightning.callbacks.append(watch)  # type: ignore[attr-defined]  # set by a connector
    with around_loop.muted():
        trainer.check()
        trainer.fit()
    if not watch.has_started:
        raise ConfigError(f"took longer than {watch.limit:g} s to start: set a longer limit")
    return watch


def _difference(losses: Sequence[float], reference: Sequence[float]) -> float:
    num = min(len(losses), len(reference))
    mean, expected = statistics.fmean(losses[:num]), statistics.fmean(reference[:num])
    return abs(mean - expected) / max(abs(expected), 1e-12)


def _short(config: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Training and nothing else, for as long as it takes."""
    return {
        **config,
        "output_dir": folder,
        "epochs": 10**6,
        "seed": 0 if config["seed"] is None else config["seed"],
        "resume": False,
        "monitor": "train_loss",
        "mode": None,
        "metrics": [],
        "scheduler": None,
        "early_stopper": None,
        "val_dataset": None,
        "test_dataset": None,
        "validate_on": "tiles",
        "save_interval": 0,
        "save_last": False,
        "save_every_n_steps": None,
        "save_every_minutes": None,
        "trackers": [],
        "report": False,
        "lightning": {k: v for k, v in config["lightning"].items() if k not in UNUSED}
        | {"enable_progress_bar": False},
    }


def table(trials: Sequence[Trial]) -> str:
    """The trials as lines, and what to set."""
    width = max(len(trial.setting) for trial in trials) + 2
    lines = [f"{'setting':<{width}}{'tiles/s':>10}{'gain':>8}{'loss off':>10}"]
    for trial in trials:
        if trial.failure:
            lines.append(f"{trial.setting:<{width}}does not run here: {trial.failure}")
            continue
        values = f"{trial.tiles_per_s:>10.0f}{trial.gain:>7.2f}x{trial.loss_off:>10.1e}"
        note = "" if trial.loss_off <= TOLERANCE else f"  more than {TOLERANCE:g}"
        lines.append(f"{trial.setting:<{width}}{values}{note}")
    if paying := [trial for trial in trials if trial.pays]:
        best = max(paying, key=lambda trial: trial.gain)
        return "\n".join([*lines, f"set {best.setting}: {best.gain:.2f} times as fast"])
    least = max(trial.least_gain for trial in trials) - 1
    return "\n".join([*lines, f"nothing here gains {least:.0%}: leave it as it is"])


def plain(trials: Sequence[Trial]) -> dict[str, Any]:
    """The trials for programs."""
    return {"tolerance": TOLERANCE, "trials": [asdict(trial) for trial in trials]}
