"""What a split comes to: sums over its labelled pixels, divided once, over all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lis2_lightning.losses import MaskedLoss, Sums
from lis2_lightning.metrics import PixelMetrics

_UPDATES: Final = "_update_count"


class LossSums(Metric):
    """The loss of all labelled pixels, from its sums over them, of all processes.

    NaN where no pixel is labelled. The sums are in float64, for one of float32 stops growing at
    about 10⁷ pixels.

    Args:
        loss: Gives the sums of a batch, and their value.
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
        self.sums += torch.stack([each.detach() for each in sums])

    def compute(self) -> Tensor:
        """The loss so far, a float64 scalar."""
        return mean_loss(self._value, self.sums)


def mean_loss(value: Callable[[Tensor], Tensor], sums: Tensor) -> Tensor:
    """The loss of labelled pixels; NaN, not 0, where there is none: nothing was measured."""
    return torch.where(sums[0] > 0, value(sums), torch.nan)


class Scores(nn.Module):
    """The loss and the metrics of one split, each with its own sums.

    Args:
        loss: Gives the sums of a batch, and their value.
        metrics: What is measured.
    """

    def __init__(self, loss: MaskedLoss, metrics: Sequence[Metric]) -> None:
        super().__init__()
        self.loss = LossSums(loss)
        self.metrics = PixelMetrics(metrics).clone()

    def update(
        self,
        sums: Sums,
        probabilities: Tensor,
        target: Tensor,
        labelled: Tensor | None,
    ) -> None:
        """Add a batch."""
        self.loss.update(sums)
        self.metrics.update(probabilities, target, labelled)

    def compute(self) -> dict[str, Tensor]:
        """``loss`` and every metric, scalars, over all processes."""
        return {"loss": self.loss.compute(), **self.metrics.compute()}

    def reset(self) -> None:
        """Forget everything."""
        self.loss.reset()
        self.metrics.reset()

    def sums(self) -> dict[str, dict[str, Any]]:
        """What this process has counted so far: each metric's state, by the metric's place."""
        return {
            name: {**deepcopy(metric.metric_state), _UPDATES: metric.update_count}
            for name, metric in self._all()
        }

    def load_sums(self, sums: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on counting from :meth:`sums`."""
        for name, metric in self._all():
            # with the number of updates: torchmetrics warns where it thinks there was none
            for state, value in sums[name].items():
                setattr(metric, state, deepcopy(value))

    def _all(self) -> Iterator[tuple[str, Metric]]:
        modules = self.named_modules()
        return ((name, module) for name, module in modules if isinstance(module, Metric))
