"""Weights of pixels in the loss: a pixel of weight 2 is a pixel counted twice."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.losses import BceDiceLoss, DiceLoss, FocalLoss, MaskedLoss, TverskyLoss

LOSSES = [
    nn.BCELoss(),
    nn.MSELoss(),
    nn.BCELoss(weight=torch.tensor([3.0])),
    DiceLoss(),
    BceDiceLoss(pos_weight=2.0),
    FocalLoss(),
    TverskyLoss(),
]


def draws(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    output, truth, known = (torch.rand(2, 1, 6, 6, generator=generator) for _ in range(3))
    return output, (truth > 0.5).float(), known > 0.4


@pytest.mark.parametrize("loss", LOSSES)
def test_a_weight_of_2_is_the_pixel_counted_twice(loss):
    output, target, labelled = draws(1)
    weight = torch.randint(0, 4, output.shape, generator=torch.Generator().manual_seed(2)).float()
    weight[~labelled] = torch.nan  # which counts nowhere
    counts = torch.where(labelled, weight, 0).long().reshape(-1)

    masked = MaskedLoss(loss)
    output.requires_grad_()
    sums = torch.stack(masked(output, target, labelled, weight))
    (gradient,) = torch.autograd.grad(masked.value(sums), output)
    repeated = [
        m.reshape(-1).repeat_interleave(counts).reshape(1, 1, 1, -1) for m in (output, target)
    ]
    expected = torch.stack(masked(*repeated))
    (slow,) = torch.autograd.grad(masked.value(expected), output)
    torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, slow)
    assert not gradient[~labelled].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_of_1_are_no_weights_bit_for_bit(loss):
    output, target, labelled = draws(3)
    masked = MaskedLoss(loss)
    for known in (labelled, None):
        plain, ones = (
            masked(output, target, known),
            masked(output, target, known, torch.ones_like(output)),
        )
        assert [number.item() for number in ones] == [number.item() for number in plain]


def test_small_weights_are_a_mean_too():
    output, target, labelled = draws(4)
    masked = MaskedLoss(nn.BCELoss())
    values = [
        masked.value(torch.stack(masked(output, target, labelled, torch.full_like(output, w))))
        for w in (1.0, 1e-4)
    ]
    torch.testing.assert_close(*values, rtol=1e-5, atol=0)


def test_losses_and_shapes_that_do_not_fit_weights_are_refused():
    class Own(nn.Module):
        def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return (output - target).abs().mean()

    output, target, labelled = draws(5)
    with pytest.raises(ConfigError, match="Own takes no weights of pixels: leave weight out"):
        MaskedLoss(Own())(output, target, labelled, torch.ones_like(output))
    with pytest.raises(DataError, match="weight must have the shape of the target"):
        MaskedLoss(nn.BCELoss())(output, target, labelled, torch.ones(2))
