"""All metrics of a run; metrics that need the same counts share them."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric

from lis2_lightning.base.labelled import checked_mask, labelled_pixels, on_cpu
from lis2_lightning.errors import ConfigError, one_line
from lis2_lightning.metrics.counts import Dice
from lis2_lightning.metrics.histogram import AveragePrecision, RocAuc, ScoreMetric
from lis2_lightning.metrics.pixel_metric import PixelMetric

_MOST_WAITING: Final = 2**20  # pixels: 8 MB on a CPU, twice the histogram that they are added to


def default_metrics() -> list[Metric]:
    """The metrics of a run that names none: average precision, Dice and ROC AUC."""
    return [AveragePrecision(), Dice(), RocAuc()]


def metric_name(metric: Metric) -> str:
    """The key of a metric's value: its ``name``, or its class name in snake case.

    >>> from torchmetrics.classification import BinaryF1Score
    >>> metric_name(BinaryF1Score())
    'binary_f1_score'
    """
    if isinstance(metric, PixelMetric):
        return metric.name
    class_name = type(metric).__name__
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()


class PixelMetrics(nn.Module):
    """Named metrics over all labelled pixels, updated together.

    Metrics of this package share their states: average precision and ROC AUC one histogram; Dice,
    IoU, precision and recall one confusion matrix. Other torchmetrics classes receive the labelled
    pixels only, flat, the truth as integers. Nothing enters the ``state_dict``. The metrics are
    copied, so that training and validation can use one list; their names must differ.

    >>> from lis2_lightning.metrics import Dice, RocAuc
    >>> metrics = PixelMetrics([RocAuc(), Dice()])
    >>> metrics.update(torch.tensor([0.1, 0.7, 0.9]), torch.tensor([0.0, 0.0, 1.0]))
    >>> {name: round(value.item(), 3) for name, value in metrics.compute().items()}
    {'roc_auc': 1.0, 'dice': 0.667}
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        super().__init__()
        self.names = _unique_names(metrics)
        own = [copy.deepcopy(metric) for metric in metrics if isinstance(metric, PixelMetric)]
        foreign = [metric.clone() for metric in metrics if not isinstance(metric, PixelMetric)]
        # only the first of a family is updated; the others read its sums
        self._families = _by_family(own)
        self._states = nn.ModuleList(family[0] for family in self._families)
        self._foreign = nn.ModuleList(foreign)
        self._scratch = nn.ModuleList(_unsynced(metric) for metric in foreign)
        self._of_maps = [family[0] for family in self._families if family[0].needs_maps]
        self._of_pixels = [family[0] for family in self._families if not family[0].needs_maps]
        self._waiting: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self._num_waiting = 0
        self.histogram: NDArray[np.int64] | None = None
        """The scores that :meth:`compute` saw last; null where no metric counts them."""

    def update(self, probs: Tensor, target: Tensor, labelled: Tensor | None = None) -> None:
        """Add one batch; arguments and errors as for :meth:`PixelMetric.update`."""
        batch = _Batch(probs, target, labelled)
        for metric in self._of_maps:
            metric.update(*batch.maps)
        if self._of_pixels:
            self._wait(batch.flat)
        for foreign in _metrics(self._foreign):
            _update_foreign(foreign, batch)

    def _wait(self, pixels: tuple[Tensor, Tensor, Tensor | None]) -> None:
        num_pixels = pixels[0].numel()
        if num_pixels:
            self._waiting.append(pixels)
            self._num_waiting += num_pixels
        if self._num_waiting >= _MOST_WAITING:
            self.count_waiting()

    def count_waiting(self) -> None:
        """Count the pixels of the last batches, together: counting few costs as much as many."""
        if not self._waiting:
            return
        probs, target, labelled = zip(*self._waiting, strict=True)
        self._forget_waiting()
        mask = None
        if any(part is not None for part in labelled):
            # a batch without a mask is labelled everywhere
            parts = [
                torch.ones_like(t, dtype=torch.bool) if m is None else m
                for m, t in zip(labelled, target, strict=True)
            ]
            mask = torch.cat(parts)
        pixels = torch.cat(probs), torch.cat(target), mask
        for metric in self._of_pixels:
            metric.update(*pixels)

    def _forget_waiting(self) -> None:
        self._waiting, self._num_waiting = [], 0

    def compute(self) -> dict[str, Tensor]:
        """Each metric's value over all pixels since the last reset, over all processes, by name.

        Every process must call this, even if it saw no batch. The metrics of this package are
        ``float64`` scalars on the CPU; a foreign metric must return one number.
        """
        self.count_waiting()
        values: dict[str, Tensor] = {}
        for family in self._families:
            with family[0].sync_context():
                sums = family[0].sums.cpu()
            values |= _evaluate(family, sums)
            if isinstance(family[0], ScoreMetric):
                self.histogram = sums.numpy()
        for metric in _metrics(self._foreign):
            values[metric_name(metric)] = _value_of_foreign(metric)
        return {name: values[name] for name in self.names}

    def of_batch(
        self, probs: Tensor, target: Tensor, labelled: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Each metric's value on this batch and process alone; no state changes.

        A foreign metric is NaN without labelled pixels.
        """
        batch = _Batch(probs, target, labelled)
        values: dict[str, Tensor] = {}
        for family in self._families:
            values |= _evaluate(family, family[0].count_alone(*batch.of(family[0])))
        for metric in _metrics(self._scratch):
            metric.reset()
            _update_foreign(metric, batch)
            value = _value_of_foreign(metric) if metric.update_called else torch.tensor(torch.nan)
            values[metric_name(metric)] = value
        return {name: values[name] for name in self.names}

    def check(self) -> None:
        """Try foreign metrics on a few pixels of both kinds; no state changes.

        Raises:
            ConfigError: One of them does not take flat pixels, or does not return one number.
        """
        probs = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
        pixels = _Batch(probs, (probs * 10 % 2).floor(), None)
        for metric in _metrics(self._scratch):
            metric.reset()
            try:
                _update_foreign(metric, pixels)
                _value_of_foreign(metric)
            except ConfigError:
                raise
            except Exception as error:  # metrics raise whatever they like
                raise ConfigError(
                    f"metric {metric_name(metric)!r} fails on the labelled pixels, which it gets "
                    f"as two lists of numbers, not as maps ({one_line(error)}): use a metric of "
                    "single pixels, or mssim for structural similarity"
                ) from error
            finally:
                metric.reset()

    def reset(self) -> None:
        """Reset all states."""
        self._forget_waiting()
        for metric in _metrics([*self._states, *self._foreign]):
            metric.reset()


class _Batch:
    """A batch as maps and as labelled pixels, which are selected once."""

    def __init__(self, probs: Tensor, target: Tensor, labelled: Tensor | None) -> None:
        self.maps = probs.detach(), target, checked_mask(probs, target, labelled)

    def of(self, metric: PixelMetric) -> tuple[Tensor, Tensor, Tensor | None]:
        """The arguments for a metric of this package."""
        return self.maps if metric.needs_maps else self.flat

    @cached_property
    def flat(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Flat pixels: on a CPU the labelled ones, on a GPU all of them with a mask."""
        probs, target, labelled = self.maps
        if on_cpu(target):
            return (*self.pixels, None)
        # selecting would wait for a GPU, where masking costs next to nothing
        mask = None if labelled is None else labelled.reshape(-1)
        return probs.reshape(-1), target.reshape(-1), mask

    @cached_property
    def pixels(self) -> tuple[Tensor, Tensor]:
        """The labelled pixels, flat."""
        return labelled_pixels(*self.maps)


def _metrics(modules: Iterable[nn.Module]) -> list[Metric]:
    return [cast(Metric, module) for module in modules]


def _unique_names(metrics: Sequence[Metric]) -> list[str]:
    names: list[str] = []
    for metric in metrics:
        if not isinstance(metric, Metric):
            raise ConfigError(
                f"a metric must be a torchmetrics.Metric, got {type(metric).__name__}: "
                f"write a subclass with update and compute"
            )
        name = metric_name(metric)
        if name in names:
            raise ConfigError(f"two metrics are named {name!r}: remove one of them")
        names.append(name)
    return names


def _by_family(metrics: Iterable[PixelMetric]) -> list[list[PixelMetric]]:
    families: dict[Hashable, list[PixelMetric]] = {}
    for metric in metrics:
        families.setdefault(metric.family, []).append(metric)
    return list(families.values())


def _evaluate(family: Iterable[PixelMetric], sums: Tensor) -> dict[str, Tensor]:
    sums = sums.cpu()  # one copy from the device for the whole family
    return {metric.name: metric.evaluate(sums) for metric in family}


def _nowhere() -> bool:
    return False


def _unsynced(metric: Metric) -> Metric:
    """A copy that never syncs with other processes."""
    copied = metric.clone()
    copied.distributed_available_fn = _nowhere
    return copied


def _update_foreign(metric: Metric, batch: _Batch) -> None:
    probs, target = batch.pixels
    if probs.numel():  # torchmetrics refuses empty batches
        metric.update(probs, (target >= 0.5).long())


def _value_of_foreign(metric: Metric) -> Tensor:
    with warnings.catch_warnings():
        # a process without labelled pixels must take part in the reduction all the same
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
        value: Any = metric.compute()
    if not isinstance(value, Tensor) or value.numel() != 1:
        is_tensor = isinstance(value, Tensor)
        got = f"tensor of shape {tuple(value.shape)}" if is_tensor else type(value).__name__
        raise ConfigError(
            f"metric {metric_name(metric)!r} must return one number, got a {got}: use a metric "
            "that averages"
        )
    return value.reshape(())
