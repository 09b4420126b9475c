"""Which losses fit, and what they say or show of the output that they expect."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lis2_lightning.errors import ConfigError
from lis2_lightning.losses import MaskedLoss, SumLoss

NAN = float("nan")


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(), nn.NLLLoss(), nn.SoftMarginLoss(), nn.PoissonNLLLoss()]
)
def test_torchs_losses_of_class_numbers_or_signs_are_refused(loss):
    name = type(loss).__name__
    with pytest.raises(ConfigError, match=f"^{name} does not fit a target that is 0 or 1 in each"):
        MaskedLoss(loss)


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_a_list_of_weights_is_one_for_each_channel(name: str):
    output, target = torch.rand(3, 2, 4, 5), (torch.rand(3, 2, 4, 5) < 0.5).float()
    labelled = torch.rand(3, 2, 4, 5) < 0.4
    listed, spread = nn.BCEWithLogitsLoss(), nn.BCEWithLogitsLoss()
    listed.register_buffer(name, torch.tensor([2.0, 5.0]))
    spread.register_buffer(name, torch.tensor([[[2.0]], [[5.0]]]))

    sums = MaskedLoss(listed)(output, target, labelled)

    assert sums == MaskedLoss(spread)(output, target, labelled)
    MaskedLoss(listed).check_weights(target)
    with pytest.raises(
        ConfigError,
        match=rf"^{name} of BCEWithLogitsLoss has 2 values, the target has 3 channel\(s\): give "
        "one value, or one for each channel$",
    ):
        MaskedLoss(listed).check_weights(torch.zeros(1, 3, 4, 5))


def test_a_buffer_of_a_loss_of_ones_own_is_no_weight():
    class Kernel(nn.MSELoss):
        kernel: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kernel", torch.arange(7.0))

    loss = MaskedLoss(Kernel())
    loss.check_weights(torch.zeros(1, 2, 4, 5))
    assert loss.loss.kernel.shape == (7,)


class Function(nn.Module):
    """A loss of a user's own that says nothing about itself."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.function(output, target)


def focal(output: Tensor, target: Tensor) -> Tensor:
    certainty = torch.where(target > 0, output, -output).sigmoid()
    return ((1 - certainty) ** 2 * -certainty.clamp(min=1e-12).log()).mean()


def dice(probs: Tensor, target: Tensor) -> Tensor:
    return 1 - (2 * (probs * target).sum() + 1) / (probs.sum() + target.sum() + 1)


def cut_entropy(probs: Tensor, target: Tensor) -> Tensor:
    probs = probs.clamp(1e-7, 1 - 1e-7)
    return -(target * probs.log() + (1 - target) * (1 - probs).log()).mean()


def padded_entropy(probs: Tensor, target: Tensor) -> Tensor:
    return -(target * (probs + 1e-7).log() + (1 - target) * (1 - probs + 1e-7).log()).mean()


def cosine(probs: Tensor, target: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(probs.flatten(), target.flatten(), dim=0)


class TakesLabelled(nn.Module):
    """Masks by itself, and must have something to mask by."""

    def forward(self, output: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output[labelled], target[labelled])


class OwnSum(SumLoss):
    """The user's own sums."""

    num_sums = 1

    def sums(self, output: Tensor, target: Tensor, labelled: Tensor | None) -> list[Tensor]:
        weight = None if labelled is None else labelled.float()
        return [F.binary_cross_entropy_with_logits(output, target, weight, reduction="sum")]

    def value(self, count: Tensor, sums: Tensor) -> Tensor:
        return sums[0] / count


@pytest.mark.parametrize(
    "loss",
    [
        Function(F.binary_cross_entropy_with_logits),
        Function(focal),
        Function(lambda output, target: dice(output.sigmoid(), target)),
        Function(lambda output, target: -(1 - dice(output.sigmoid(), target))),
        OwnSum(),
        TakesLabelled(),
    ],
)
def test_a_loss_of_ones_own_on_logits_is_recognised_by_what_it_does(loss):
    masked = MaskedLoss(loss)
    assert masked.expects_logits
    assert not masked.is_declared


@pytest.mark.parametrize(
    "function",
    [
        F.binary_cross_entropy,
        F.mse_loss,
        F.l1_loss,
        dice,
        cut_entropy,
        padded_entropy,
        cosine,
        lambda probs, target: F.binary_cross_entropy(probs, 0.9 * target + 0.05),
        lambda probs, target: F.mse_loss(probs.clamp(0, 1), target),
        lambda *_: torch.tensor(NAN),
        lambda *_: 1 / 0,
    ],
)
def test_a_loss_of_ones_own_on_anything_else_is_not_taken_for_one_on_logits(function):
    assert not MaskedLoss(Function(function)).expects_logits


def test_what_a_loss_of_ones_own_says_is_not_tried():
    said = Function(F.binary_cross_entropy_with_logits)
    said.expects_logits = False  # type: ignore[assignment]

    masked = MaskedLoss(said)

    assert masked.is_declared
    assert not masked.expects_logits


def test_trying_a_loss_leaves_it_and_the_random_generator_as_they_were():
    draws = []

    def noisy(output: Tensor, target: Tensor) -> Tensor:
        draws.append(torch.rand(1))
        return F.mse_loss(output, target)

    before = torch.get_rng_state()

    MaskedLoss(Function(noisy))

    assert draws
    assert torch.equal(torch.get_rng_state(), before)
