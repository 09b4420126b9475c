"""The gradient of the whole effective batch: of all processes and of all accumulated batches.

With ``s`` the sums over labelled pixels of one batch in one process and ``S`` their total, the loss
is ``f(S)`` and its gradient the sum over k of ``df/dS_k`` times the gradient of ``S_k``. The
gradients of sums add up over processes and batches as the sums do, so each process needs no more
than the derivatives at the total. For a mean of pixels that is ``1 / count``, and the count is
known before the network has run. The mean of the processes' means, which is the usual way, weights
a labelled pixel by how few others its process has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from lis2_lightning.losses import MaskedLoss
from lis2_lightning.parallel.exchange import Exchange, num_processes, summed


class JointLoss:
    """Turns the sums of one batch into a loss with the gradient of the whole effective batch.

    For each batch :meth:`begin`, :meth:`of` and :meth:`backward` are called, in this order.

    Where batches are accumulated, the derivatives are known with the last of them only. Until then
    the gradients of the sums are kept: for a mean of pixels in the parameters' own ``grad``; for
    another loss a set for each sum, from as many backward passes.
    """

    def __init__(self, loss: MaskedLoss, exchange: Exchange) -> None:
        self._loss = loss
        self._exchange = exchange
        self._is_first = self._is_last = True
        self._scale = 1
        self._unit = 1.0
        self._count = self._sums = self._derivatives = torch.zeros(())
        self._places: list[int] = []
        self._waiting: list[Tensor] = []
        self._kept: list[list[Tensor | None]] = []

    def begin(self, count: Tensor, *, is_first: bool, is_last: bool, num_batches: int) -> None:
        """Register a batch with `count` labelled pixels in this process, before the network runs.

        It may be the first or the last that is accumulated for an optimizer step; Lightning divides
        the loss by `num_batches`.
        """
        self._is_first, self._is_last = is_first, is_last
        self._count = count if is_first else self._count + count
        self._exchange.start(self._count)
        # DDP divides by the number of processes, Lightning by that of the batches
        self._scale = num_processes() * num_batches

    def __getstate__(self) -> dict[str, Any]:
        """A copy, such as that which Lightning's weight averaging makes, holds no graph."""
        return {**vars(self), "_waiting": []}

    def of(self, sums: Sequence[Tensor], *, num_pixels: int) -> Tensor:
        """The loss of a batch; its value is the batch's own, its gradient the joint one's part.

        Gradients that wait are in units of `num_pixels`, the batch's pixels, labelled or not, so
        that half precision can hold them.
        """
        if self._is_first and self._is_last and self._scale == 1:  # nobody else has a part
            return self._loss.value(sums if self._loss.is_mean else torch.stack(list(sums)))
        stacked = torch.stack(list(sums))
        own = stacked.detach()
        self._sums = own if self._is_first else self._sums + own
        if self._is_last:
            total = self._total()
            if not self._is_first:
                with torch.enable_grad():
                    point = total.detach().requires_grad_()
                    (derivatives,) = torch.autograd.grad(self._loss.value(point), point)
                self._derivatives = derivatives * (self._scale / self._unit)
            joint = self._loss.value(total + self._scale * (stacked - own))
        else:
            self._unit = self._scale / num_pixels if self._is_first else self._unit
            self._places = [place for place, part in enumerate(sums) if part.requires_grad]
            self._waiting = [sums[place] for place in self._places]
            joint = self._unit * torch.stack(self._waiting).sum()
        return self._loss.value(own) + (joint - joint.detach())

    def backward(self, loss: Tensor, parameters: Iterable[Parameter]) -> None:
        """Differentiate a batch's loss (:meth:`of` times any factor); join the waiting ones."""
        if self._is_last and not self._is_first:
            self._join([p for p in parameters if p.requires_grad])
        if self._loss.is_mean or self._is_last:
            torch.autograd.backward(loss)
        else:
            self._keep(loss, [p for p in parameters if p.requires_grad])

    def _total(self) -> Tensor:
        """The sums of the whole effective batch; of a mean only the count is needed."""
        if not self._loss.is_mean:
            return summed(self._sums)
        return torch.stack([self._exchange.count().double(), self._sums[1]])

    def _keep(self, loss: Tensor, trained: Sequence[Parameter]) -> None:
        """Add to the gradients of each sum, instead of to that of the loss."""
        factors = torch.autograd.grad(loss, self._waiting)
        if self._is_first:
            self._kept = [[None] * len(trained) for _ in self._waiting]
        for place, (part, factor) in enumerate(zip(self._waiting, factors, strict=True)):
            _set_gradients(trained, self._kept[place])
            torch.autograd.backward(part, factor, retain_graph=place + 1 < len(factors))
            self._kept[place] = [p.grad for p in trained]
        _set_gradients(trained, [None] * len(trained))

    def _join(self, trained: Sequence[Parameter]) -> None:
        """Turn the gradients of the sums into that of the loss, once its derivatives are known."""
        factors = [self._derivatives[place] for place in self._places]
        if self._loss.is_mean:
            kept = [[p.grad for p in trained]]
        else:
            kept, self._kept = self._kept, []
        for parameter, gradients in zip(trained, zip(*kept, strict=True), strict=True):
            pairs = zip(gradients, factors, strict=True)
            parts = [gradient.mul_(factor) for gradient, factor in pairs if gradient is not None]
            for part in parts[1:]:
                parts[0].add_(part)
            parameter.grad = parts[0] if parts else None


def _set_gradients(trained: Sequence[Parameter], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(trained, gradients, strict=True):
        parameter.grad = gradient
