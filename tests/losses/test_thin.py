"""Losses of rare and thin objects against slow references, and MONAI's where all is labelled."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from lis2_lightning.errors import ConfigError
from lis2_lightning.losses import ClDiceLoss, FocalLoss, MaskedLoss, TverskyLoss
from lis2_lightning.losses.centreline import skeleton
from lis2_lightning.parallel.exchange import Exchange
from lis2_lightning.training.joint_loss import JointLoss


def maps(num: int = 2, side: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    output, target, labelled = (
        torch.rand((num, 1, side, side + 2), generator=rng, dtype=torch.float64) for _ in range(3)
    )
    return output, (target > 0.6).double(), labelled > 0.3


def slow_skeleton(values: Tensor, known: Tensor, num_erosions: int) -> dict[tuple[int, int], float]:
    """By loops over the known pixels of one map ``(H, W)`` and their known neighbours."""
    pixels = [(r, c) for r, c in known.nonzero().tolist()]
    cross = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    square = list(itertools.product((-1, 0, 1), repeat=2))

    def extreme(of, image, steps):
        near = {p: [(p[0] + r, p[1] + c) for r, c in steps] for p in pixels}
        return {p: of(image[q] for q in near[p] if q in image) for p in pixels}

    def thin(image):
        opened = extreme(max, extreme(min, image, cross), square)
        return {p: max(image[p] - opened[p], 0.0) for p in pixels}

    image = {(r, c): values[r, c].item() for r, c in pixels}
    result: dict[tuple[int, int], float] = thin(image)
    for _ in range(num_erosions):
        image = extreme(min, image, cross)
        more = thin(image)
        result = {p: result[p] + max(more[p] * (1 - result[p]), 0.0) for p in pixels}
    return result


@pytest.mark.parametrize("num_erosions", [0, 1, 3])
def test_a_skeleton_is_that_of_loops_over_known_pixels(num_erosions):
    output, _, known = maps(1)
    fast = skeleton(output, known, num_erosions)[0, 0]
    slow = slow_skeleton(output[0, 0], known[0, 0], num_erosions)
    assert (fast[~known[0, 0]] == 0).all()
    for pixel, value in slow.items():
        assert fast[pixel].item() == pytest.approx(value, abs=1e-12)


def test_the_skeleton_of_a_bar_is_its_centre_line():
    bar = torch.zeros(1, 1, 11, 20)
    bar[..., 3:8, :] = 1  # 5 px wide
    lines = skeleton(bar, torch.ones_like(bar, dtype=torch.bool), 5)[0, 0]
    assert lines.sum(1).nonzero().ravel().tolist() == [5]


def test_unlabelled_pixels_are_as_those_outside_of_the_tile():
    output, target, _ = maps()
    margin = nn.ConstantPad2d((2, 3, 1, 4), 0.7)
    known = torch.zeros_like(margin(target), dtype=torch.bool)
    known[..., 1:-4, 2:-3] = True
    masked = MaskedLoss(ClDiceLoss())
    alone = torch.stack(masked(output, target))
    torch.testing.assert_close(torch.stack(masked(margin(output), margin(target), known)), alone)


def test_cl_dice_is_that_of_the_slow_skeletons():
    output, target, known = maps(1)
    probs, truth, labelled = output[0, 0], target[0, 0], known[0, 0]
    lines = slow_skeleton(probs, labelled, 5)
    true_lines = slow_skeleton(truth, labelled, 5)
    hits = sum(lines[p] * truth[p].item() for p in lines) + 1
    precision = hits / (sum(lines.values()) + 1)
    recall = (sum(true_lines[p] * probs[p].item() for p in lines) + 1) / (
        sum(true_lines.values()) + 1
    )
    expected = 1 - 2 * precision * recall / (precision + recall)
    value = ClDiceLoss(alpha=1)(output, target, known)
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_focal_and_tversky_are_those_of_loops_over_pixels():
    output, target, labelled = maps(1)
    pairs = list(zip(output[labelled].tolist(), target[labelled].tolist(), strict=True))
    focal = 0.0
    hits = false = missed = 0.0
    for p, t in pairs:
        q = p if t else 1 - p
        focal -= (0.3 if t else 0.7) * (1 - q) ** 1.5 * math.log(q) / len(pairs)
        hits, false, missed = hits + p * t, false + p * (1 - t), missed + (1 - p) * t
    tversky = 1 - (hits + 1) / (hits + 0.2 * false + 0.9 * missed + 1)
    for loss, expected in (
        (FocalLoss(gamma=1.5, alpha=0.3), focal),
        (TverskyLoss(alpha=0.2, beta=0.9), tversky),
    ):
        masked = MaskedLoss(loss)
        value = masked.value(torch.stack(masked(output, target, labelled)))
        assert value.item() == pytest.approx(expected, abs=1e-12)


def test_where_all_is_labelled_they_are_those_of_monai():
    losses = pytest.importorskip("monai.losses")
    output, target, _ = maps(1)
    logits = output.logit()
    for ours, theirs in (
        (
            FocalLoss(gamma=2, alpha=0.25, from_logits=True),
            losses.FocalLoss(gamma=2, alpha=0.25),
        ),
        (
            TverskyLoss(alpha=0.3, beta=0.7, from_logits=True),
            losses.TverskyLoss(alpha=0.3, beta=0.7, smooth_nr=1, smooth_dr=1, sigmoid=True),
        ),
    ):
        got, expected = ours(logits, target), theirs(logits, target)
        assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    known = torch.ones_like(target, dtype=torch.bool)
    expected = losses.cldice.soft_skel(output, 3)
    torch.testing.assert_close(skeleton(output, known, 3), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("loss", [FocalLoss(), TverskyLoss(), ClDiceLoss()])
@pytest.mark.parametrize("sizes", [[3, 3], [1, 1, 4]])
def test_accumulated_batches_have_the_gradient_of_the_joined_one(loss, sizes):
    patch, target, labelled = maps(6, 6)
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Sigmoid()).double()
    masked = MaskedLoss(loss)
    whole = masked.value(torch.stack(masked(net(patch), target, labelled)))
    expected = torch.autograd.grad(whole, [*net.parameters()])
    joint = JointLoss(masked, Exchange())
    parts = list(zip(*(t.split(sizes) for t in (patch, target, labelled)), strict=True))
    for place, (x, y, known) in enumerate(parts):
        joint.begin(
            known.count_nonzero(),
            is_first=place == 0,
            is_last=place + 1 == len(parts),
            num_batches=len(parts),
        )
        value = joint.of(masked(net(x), y, known), num_pixels=y.numel())
        joint.backward(value / len(parts), net.parameters())
    for parameter, right in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, right, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("loss", "arguments", "words"),
    [
        (FocalLoss, {"gamma": 0.5}, "gamma must be 0, or at least 1"),
        (FocalLoss, {"alpha": 2}, "alpha must be null or lie in"),
        (TverskyLoss, {"beta": -1}, "beta must be at least 0"),
        (ClDiceLoss, {"alpha": 2}, "alpha must lie in"),
        (ClDiceLoss, {"num_erosions": -1}, "num_erosions must be at least 0"),
    ],
)
def test_an_argument_out_of_range_is_one_sentence(loss, arguments, words):
    with pytest.raises(ConfigError, match=words):
        loss(**arguments)


def test_a_skeleton_needs_maps():
    flat = torch.ones(4)
    with pytest.raises(ConfigError, match="one to three sides"):
        ClDiceLoss()(flat, flat)
