"""Loss and metrics of a split, from sums over the labelled pixels of all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lis2_lightning.losses import MaskedLoss, Sums
from lis2_lightning.metrics import PixelMetrics
from lis2_lightning.metrics.pixel_metric import PixelMetric
from lis2_lightning.training.map_scores import MapScores

_UPDATES: Final = "_update_count"


class LossSums(Metric):
    """The loss of all labelled pixels of all processes; NaN without any.

    The sums are in float64, because float32 stops growing at about 10⁷ pixels.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, loss: MaskedLoss) -> None:
        super().__init__()
        self._value = loss.value
        start = torch.zeros(loss.num_sums, dtype=torch.float64)
        self.add_state("sums", start, dist_reduce_fx="sum")

    def update(self, sums: Sums) -> None:
        """Add a batch."""
        self.sums += torch.stack([number.detach() for number in sums])

    def compute(self) -> Tensor:
        """The loss so far, a float64 scalar."""
        return self.so_far()

    def so_far(self) -> Tensor:
        """The loss of this process alone: no other needs to ask for it at the same time."""
        return mean_loss(self._value, self.sums)


def mean_loss(value: Callable[[Tensor], Tensor], sums: Tensor) -> Tensor:
    """The loss of labelled pixels; NaN, not 0, if there are none."""
    return torch.where(sums[0] > 0, value(sums), torch.nan)


class Scores(nn.Module):
    """The loss and the metrics of one split, each with its own sums."""

    def __init__(self, loss: MaskedLoss, metrics: Sequence[Metric]) -> None:
        super().__init__()
        self.loss = LossSums(loss)
        self.metrics = PixelMetrics(metrics)
        self.map: MapScores | None = None
        """What is measured on the stitched map, too; set before the loop."""

    @property
    def names(self) -> list[str]:
        """The keys of :meth:`compute`."""
        return ["loss", *self.metrics.names, *(self.map.names if self.map else ())]

    def update(self, sums: Sums, probabilities: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch."""
        self.loss.update(sums)
        self.metrics.update(probabilities, batch["target"], batch.get("labelled"))
        if self.map is not None:
            self.map.update(batch, probabilities)

    def compute(self) -> dict[str, Tensor]:
        """``loss`` and every metric, scalars, over all processes."""
        of_map = {} if self.map is None else self.map.compute()
        return {"loss": self.loss.compute(), **self.metrics.compute(), **of_map}

    def reset(self) -> None:
        """Reset all sums."""
        self.loss.reset()
        self.metrics.reset()
        if self.map is not None:
            self.map.reset()

    def sums(self) -> dict[str, dict[str, Any]]:
        """This process's state of each metric, by the metric's name in the module."""
        self.metrics.count_waiting()
        return {
            name: {**deepcopy(metric.metric_state), _UPDATES: metric.update_count}
            for name, metric in self._all()
        }

    def fits(self, sums: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether they have the sizes of these: other versions count scores in other bins."""
        own = ((name, metric) for name, metric in self._all() if isinstance(metric, PixelMetric))
        return all(sums[name]["sums"].shape == metric.sums.shape for name, metric in own)

    def load_sums(self, sums: Mapping[str, Mapping[str, Any]]) -> None:
        """Restore :meth:`sums`."""
        for name, metric in self._all():
            # includes the update count, without which torchmetrics would warn
            for state, value in sums[name].items():
                setattr(metric, state, deepcopy(value))

    def _all(self) -> Iterator[tuple[str, Metric]]:
        modules = self.named_modules()
        return ((name, module) for name, module in modules if isinstance(module, Metric))
