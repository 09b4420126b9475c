"""All metrics of a run together: each state is updated once, however many metrics read it."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lis2_lightning.base.labelled import labelled_pixels, on_cpu
from lis2_lightning.errors import ConfigError
from lis2_lightning.metrics.counts import Dice
from lis2_lightning.metrics.histogram import AveragePrecision, RocAuc
from lis2_lightning.metrics.pixel_metric import PixelMetric, check_shapes


def default_metrics() -> list[Metric]:
    """What is measured where nothing is asked for: average precision, Dice and ROC AUC.

    >>> [metric_name(metric) for metric in default_metrics()]
    ['average_precision', 'dice', 'roc_auc']
    """
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
    """Metrics over all labelled pixels, updated together and named.

    Of the metrics of this package those that count alike share one state: average precision and
    ROC AUC one histogram; Dice, IoU, precision and recall one count of four. Any other class of
    torchmetrics gets the labelled pixels only, flat, the truth as integers. Nothing of this enters
    a ``state_dict``.

    Args:
        metrics: The metrics; they are copied, so one list may serve training and validation.

    Raises:
        ConfigError: Two metrics have one name, or something else than a metric is given.

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
        # only the first of a family is ever updated; the others read its sums
        self._families = _by_family(own)
        self._states = nn.ModuleList(family[0] for family in self._families)
        self._foreign = nn.ModuleList(foreign)
        self._scratch = nn.ModuleList(_unsynced(metric) for metric in foreign)

    def update(self, probs: Tensor, target: Tensor, labelled: Tensor | None = None) -> None:
        """Add one batch.

        Args:
            probs: Probabilities in [0, 1], ``(B, C, H, W)``, of any float type.
            target: The truth in {0, 1}, same shape.
            labelled: Same shape, ``bool``, true = counts; everywhere if it is not given.

        Raises:
            DataError: The shapes differ.
        """
        batch = _Batch(probs, target, labelled)
        for family in self._families:
            family[0].update(*batch.of(family[0]))
        for metric in _metrics(self._foreign):
            _update_foreign(metric, batch)

    def compute(self) -> dict[str, Tensor]:
        """Each metric's value over all pixels seen since the last reset, over all processes.

        Every process must call this, also one that saw no batch.

        Returns:
            Scalars by name, in the order in which the metrics were given. Those of this package
            are ``float64`` on the CPU.

        Raises:
            ConfigError: A metric that is not of this package gives more than one number.
        """
        values: dict[str, Tensor] = {}
        for family in self._families:
            with family[0].sync_context():
                values |= _evaluate(family, family[0].sums)
        for metric in _metrics(self._foreign):
            values[metric_name(metric)] = _value_of_foreign(metric)
        return {name: values[name] for name in self.names}

    def of_batch(
        self, probs: Tensor, target: Tensor, labelled: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Each metric's value on this batch alone, on this process alone; no state changes.

        Args:
            probs: As for :meth:`update`.
            target: As for :meth:`update`.
            labelled: As for :meth:`update`.

        Returns:
            As :meth:`compute`; without any labelled pixel, NaN for a metric that is not of this
            package.

        Raises:
            DataError: The shapes differ.
            ConfigError: A metric that is not of this package gives more than one number.
        """
        batch = _Batch(probs, target, labelled)
        values: dict[str, Tensor] = {}
        for family in self._families:
            values |= _evaluate(family, family[0].count(*batch.of(family[0])))
        for metric in _metrics(self._scratch):
            metric.reset()
            _update_foreign(metric, batch)
            seen = metric.update_called
            values[metric_name(metric)] = (
                _value_of_foreign(metric) if seen else torch.tensor(float("nan"))
            )
        return {name: values[name] for name in self.names}

    def reset(self) -> None:
        """Forget all pixels, as at the start of an epoch."""
        for metric in _metrics([*self._states, *self._foreign]):
            metric.reset()

    def clone(self) -> PixelMetrics:
        """An independent copy, with what it has seen so far."""
        return copy.deepcopy(self)


class _Batch:
    """A batch in the two forms that metrics ask for; the pixels are gathered once."""

    def __init__(self, probs: Tensor, target: Tensor, labelled: Tensor | None) -> None:
        check_shapes(probs, target, labelled)
        self._maps = probs.detach(), target, labelled
        self._pixels: tuple[Tensor, Tensor] | None = None

    def of(self, metric: PixelMetric) -> tuple[Tensor, Tensor, Tensor | None]:
        """The arguments for a metric of ours: maps, or on a CPU the pixels where those do."""
        probs, target, labelled = self._maps
        # on a GPU gathering would wait for the device, and masks cost next to nothing
        if metric.needs_maps or not on_cpu(target):
            return probs, target, labelled
        return (*self.pixels(), None)

    def pixels(self) -> tuple[Tensor, Tensor]:
        """The labelled pixels, flat."""
        if self._pixels is None:
            self._pixels = labelled_pixels(*self._maps)
        return self._pixels


def _metrics(modules: Iterable[nn.Module]) -> list[Metric]:
    return [cast(Metric, module) for module in modules]


def _unique_names(metrics: Sequence[Metric]) -> list[str]:
    names: list[str] = []
    for metric in metrics:
        if not isinstance(metric, Metric):
            raise ConfigError(
                f"a metric must be a torchmetrics.Metric, got {type(metric).__name__}: "
                f"wrap it in a subclass with update and compute"
            )
        name = metric_name(metric)
        if name in names:
            raise ConfigError(f"two metrics are named {name!r}: keep one of them")
        names.append(name)
    return names


def _by_family(metrics: Iterable[PixelMetric]) -> list[list[PixelMetric]]:
    families: dict[Hashable, list[PixelMetric]] = {}
    for metric in metrics:
        families.setdefault(metric.family, []).append(metric)
    return list(families.values())


def _evaluate(family: Iterable[PixelMetric], sums: Tensor) -> dict[str, Tensor]:
    sums = sums.cpu()  # one copy from the device serves the whole family
    return {metric.name: metric.evaluate(sums) for metric in family}


def _nowhere() -> bool:
    return False


def _unsynced(metric: Metric) -> Metric:
    """A copy that never meets the other processes."""
    copied = metric.clone()
    copied.distributed_available_fn = _nowhere
    return copied


def _update_foreign(metric: Metric, batch: _Batch) -> None:
    probs, target = batch.pixels()
    if probs.numel():  # torchmetrics' own classes do not take an empty batch
        metric.update(probs, (target >= 0.5).long())


def _value_of_foreign(metric: Metric) -> Tensor:
    with warnings.catch_warnings():
        # a process may have had no labelled pixel; its part in the reduction is needed all the same
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
        value: Any = metric.compute()
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ConfigError(
            f"metric {metric_name(metric)!r} must give one number, got {_describe(value)}: "
            f"take a metric that averages"
        )
    return value.reshape(())


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
