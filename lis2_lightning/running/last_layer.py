"""What the end of a network, and the range of its output, say of whether the loss fits them."""

from __future__ import annotations

import logging
from typing import Any, Final

from torch import Tensor

from lis2_lightning.errors import ConfigError
from lis2_lightning.losses import FocalLoss, MaskedLoss, SumLoss
from lis2_lightning.training.module import SegmentationModule

_log = logging.getLogger("lis2_lightning")
# the last operations of a network, as autograd names them, after which it gives probabilities
_ACTIVATIONS: Final = {
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
    "Hardsigmoid": "hard sigmoid",
    "LogSigmoid": "log-sigmoid",
    "LogSoftmax": "log-softmax",
}
# and those that leave values as they are, or between others
_PASSIVE: Final = (
    *("Slice", "Select", "Index", "Narrow", "Split", "Chunk", "Unbind", "Cat", "Stack"),
    *("Squeeze", "Unsqueeze", "View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose"),
    *("Clone", "ToCopy", "Alias", "AsStrided", "Expand", "Clamp", "Mean", "AvgPool", "MaxPool"),
    *("Upsample", "ConstantPad", "ReflectionPad", "ReplicationPad"),
)
_TOLERANCE: Final = 1e-3  # of rounding, such as that of a sum of a softmax in half precision


def check_output(loss: MaskedLoss, network: str, output: Tensor) -> None:
    """Refuse a second sigmoid, or logits where probabilities are needed."""
    name = type(loss.loss).__name__
    activation = _ACTIVATIONS.get(_last_operation(output.grad_fn))
    if loss.expects_logits and activation:
        raise ConfigError(
            f"{network} ends in a {activation}, and {name} applies a sigmoid to it: use a model "
            f"without it, or {_of_probabilities(loss)}"
        )
    low, high = _range(output)
    if loss.needs_probabilities and not -_TOLERANCE <= low <= high <= 1 + _TOLERANCE:
        instead = (
            "from_logits: true"
            if isinstance(loss.loss, SumLoss | FocalLoss)
            else "BCEWithLogitsLoss"
        )
        raise ConfigError(
            f"the output of {network} ranges from {low:.3g} to {high:.3g}, and {name} needs "
            f"probabilities in [0, 1]: end the model with a sigmoid, or use a loss of logits "
            f"({instead})"
        )


def _of_probabilities(loss: MaskedLoss) -> str:
    """What to do so that a loss takes probabilities."""
    if not loss.is_declared:
        return "set the loss's attribute expects_logits = False if it takes probabilities"
    if isinstance(loss.loss, SumLoss | FocalLoss):
        return "leave out from_logits"
    if getattr(loss.loss, "pos_weight", None) is not None:
        return "bce_dice_loss with alpha: 1 and this pos_weight, which takes probabilities"
    return "a loss of probabilities such as bce or bce_dice_loss"


def tell_of_output(module: SegmentationModule, output: Tensor) -> None:
    """Say how an output is read, where that is not plain."""
    loss, name = module.loss, type(module.loss.loss).__name__
    low, high = _range(output)
    if loss.expects_logits and not loss.is_declared:
        _log.info(
            "%s behaves like a loss of logits, so metrics and maps apply a sigmoid: its attribute "
            "expects_logits = True (or False) says so",
            name,
        )
    elif not loss.expects_logits and not -_TOLERANCE <= low <= high <= 1 + _TOLERANCE:
        hint = "" if loss.is_declared else f"; if it is logits, set expects_logits = True on {name}"
        _log.warning(
            "the output of %s ranges from %.3g to %.3g: metrics and maps cut it to [0, 1]%s",
            *(type(module.model).__name__, low, high, hint),
        )


def _range(output: Tensor) -> tuple[float, float]:
    finite = output.detach()[output.isfinite()]
    return (finite.min().item(), finite.max().item()) if finite.numel() else (0.0, 0.0)


def _last_operation(node: Any) -> str:
    """The operation, as autograd names it, whose values an output is; empty where unknown."""
    if node is None or not (name := node.name()).startswith(_PASSIVE):
        return "" if node is None else name.partition("Backward")[0]
    parents = {_last_operation(parent) for parent, _ in node.next_functions if parent}
    return parents.pop() if len(parents) == 1 else ""
