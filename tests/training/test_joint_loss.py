"""The gradient of accumulated batches is that of all of them joined."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lis2_lightning.losses import BceDiceLoss, DiceLoss, MaskedLoss
from lis2_lightning.parallel.exchange import Exchange
from lis2_lightning.training.joint_loss import JointLoss

LOSSES = [nn.BCELoss(), DiceLoss(), BceDiceLoss(alpha=0.2)]


def maps() -> tuple[Tensor, Tensor, Tensor]:
    """Six samples; the second has no label, the others ever more."""
    rng = torch.Generator().manual_seed(0)
    patch = torch.rand((6, 1, 4, 4), generator=rng, dtype=torch.float64)
    labelled = (
        torch.rand((6, 1, 4, 4), generator=rng) < torch.linspace(0.1, 0.9, 6)[:, None, None, None]
    )
    labelled[1] = False
    return patch, (patch > 0.6).double(), labelled


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReflectionPad2d(1), nn.Conv2d(2, 1, 1), nn.Sigmoid()
    ).double()


def gradients(loss: nn.Module, sizes: list[int], *, factor: float = 1.0) -> list[Tensor]:
    """Those of a network after batches of these sizes were accumulated, as Lightning does it."""
    net, masked = network(), MaskedLoss(loss)
    joint = JointLoss(masked, Exchange())
    begin = partial(joint.begin, num_batches=len(sizes))
    parts = [t.split(sizes) for t in maps()]
    for place, (patch, target, labelled) in enumerate(zip(*parts, strict=True)):
        begin(labelled.count_nonzero(), is_first=place == 0, is_last=place + 1 == len(sizes))
        value = joint.of(masked(net(patch), target, labelled), num_pixels=target.numel())
        joint.backward(factor * value / len(sizes), net.parameters())
    return [p.grad for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", [[6], [3, 3], [1, 1, 4], [5, 1], [1] * 6])
def test_accumulated_batches_have_the_gradient_of_the_joined_one(
    loss: Any, sizes: list[int]
) -> None:
    net = network()
    patch, target, labelled = maps()
    value = loss(net(patch)[labelled], target[labelled])
    expected = torch.autograd.grad(value, [*net.parameters()])
    for gradient, right in zip(gradients(loss, sizes), expected, strict=True):
        torch.testing.assert_close(gradient, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_factor_of_the_loss_is_one_of_the_gradient(loss: Any) -> None:
    """As the scaling of half precision needs it."""
    scaled = gradients(loss, [2, 4], factor=1024.0)
    for gradient, right in zip(scaled, gradients(loss, [2, 4]), strict=True):
        torch.testing.assert_close(gradient, 1024 * right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_value_is_that_of_the_batch_itself(loss: Any) -> None:
    net, masked = network(), MaskedLoss(loss)
    joint = JointLoss(masked, Exchange())
    for place, (patch, target, labelled) in enumerate(
        zip(*(t.split(3) for t in maps()), strict=True)
    ):
        joint.begin(
            labelled.count_nonzero(), is_first=place == 0, is_last=place == 1, num_batches=2
        )
        value = joint.of(masked(net(patch), target, labelled), num_pixels=48)
        right = loss(net(patch)[labelled], target[labelled])
        assert value.item() == pytest.approx(right.item(), rel=1e-6)
        joint.backward(value, net.parameters())
