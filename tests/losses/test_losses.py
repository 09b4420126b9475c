from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.losses import (
    BceDiceLoss,
    ClDiceLoss,
    DiceLoss,
    FocalLoss,
    MaskedLoss,
    TverskyLoss,
)
from lis2_lightning.losses.entropy import binary_cross_entropy, unchecked_cross_entropy

NAN = float("nan")


class SquaredError(nn.Module):
    """A loss of somebody else: no reduction, no mask."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return ((output - target) ** 2).mean()


class OwnSoftMargin(nn.SoftMarginLoss):
    """Pixel by pixel, and of a class that nothing is known about."""


class OwnPoisson(nn.PoissonNLLLoss):
    """The same with another curve."""


LOSSES = [
    nn.BCELoss(),
    nn.BCELoss(weight=torch.tensor([[[[2.0]], [[3.0]]]])),
    nn.BCEWithLogitsLoss(),
    nn.BCEWithLogitsLoss(pos_weight=torch.tensor(7.0)),
    nn.MSELoss(),
    nn.L1Loss(),
    nn.SmoothL1Loss(),
    nn.HuberLoss(delta=0.1),
    OwnSoftMargin(),
    OwnPoisson(),
    SquaredError(),
    FocalLoss(alpha=0.3),
    FocalLoss(gamma=1.0, from_logits=True),
    DiceLoss(),
    DiceLoss(from_logits=True),
    BceDiceLoss(alpha=0.3),
    BceDiceLoss(from_logits=True),
    TverskyLoss(),
    ClDiceLoss(),
    ClDiceLoss(num_erosions=1, from_logits=True),
]
NAMES = [f"{position}-{type(loss).__name__}" for position, loss in enumerate(LOSSES)]


@pytest.fixture(params=["cpu", "as on a gpu"])
def path(request, monkeypatch):
    """Both ways of leaving pixels out, on the CPU."""
    if request.param != "cpu":
        for module in ("base.labelled", "losses.entropy"):
            monkeypatch.setattr(f"lis2_lightning.{module}.on_cpu", lambda _: False)


def value_and_count(loss: nn.Module, *maps: Tensor) -> tuple[Tensor, Tensor]:
    masked = MaskedLoss(loss)
    sums = masked(*maps)
    assert len(sums) == masked.num_sums
    assert all(scalar.shape == () and scalar.dtype == torch.float64 for scalar in sums)
    return masked.value(torch.stack(sums)), sums[0]


def batch(seed: int = 0, *, share: float = 0.4) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shape = (3, 2, 4, 5)
    output = torch.rand(shape, generator=rng)
    target = (torch.rand(shape, generator=rng) < 0.5).float()
    return output, target, torch.rand(shape, generator=rng) < share


def poisoned(values: Tensor, labelled: Tensor, *, leaf: bool = False) -> Tensor:
    return torch.where(labelled, values, NAN).requires_grad_(leaf)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_all_labelled_gives_the_loss_itself(loss):
    output, target, labelled = batch()
    value, count = value_and_count(loss, output, target, torch.ones_like(labelled))
    without_mask, pixels = value_and_count(loss, output, target)
    assert count.item() == pixels.item() == target.numel()
    assert value.item() == pytest.approx(loss(output, target).item(), rel=1e-6)
    assert without_mask.item() == pytest.approx(loss(output, target).item(), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_the_sums_of_two_batches_are_those_of_both_together(loss):
    output, target, labelled = batch()
    masked = MaskedLoss(loss)
    parts = [masked(output[i], target[i], labelled[i]) for i in (slice(0, 1), slice(1, 3))]
    together = masked.value(torch.stack(masked(output, target, labelled)))
    added = masked.value(torch.stack([torch.stack(part) for part in parts]).sum(0))
    assert added.item() == pytest.approx(together.item(), rel=1e-6)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_unlabelled_pixels_change_neither_the_sum_nor_a_gradient_not_even_as_nan(loss):
    output, target, labelled = batch(1)
    sums, gradients = [], []
    for values, truth in (
        (output.clone().requires_grad_(), target),
        (poisoned(output, labelled, leaf=True), poisoned(target, labelled)),
        (torch.where(labelled, output, 5e8).requires_grad_(), torch.where(labelled, target, -9)),
    ):
        value, _ = value_and_count(loss, values, truth, labelled)
        value.backward()
        assert values.grad is not None
        sums.append(value.detach())
        gradients.append(values.grad)
    assert torch.equal(sums[0], sums[1])
    assert torch.equal(sums[0], sums[2])
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])
    assert torch.all(gradients[0][~labelled] == 0)
    assert torch.all(gradients[0][labelled].isfinite())
    assert torch.any(gradients[0][labelled] != 0)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_a_batch_without_a_labelled_pixel_is_a_zero_in_the_graph(loss):
    output, target, labelled = batch(2)
    nowhere = torch.zeros_like(labelled)
    for values in (output.clone().requires_grad_(), poisoned(output, nowhere, leaf=True)):
        value, count = value_and_count(loss, values, poisoned(target, nowhere), nowhere)
        assert value.item() == 0
        assert count.item() == 0
        value.backward()
        assert values.grad is not None
        assert torch.all(values.grad == 0)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("loss", LOSSES[:13], ids=NAMES[:13])
def test_the_sum_is_that_of_a_loop_over_the_labelled_pixels(loss):
    output, target, labelled = batch(3)
    value, count = value_and_count(loss, output, target, labelled)
    slow = 0.0
    for where in labelled.nonzero().tolist():
        b, c, h, w = where
        weight = getattr(loss, "weight", None)
        alone = type(loss)() if weight is not None else loss
        pixel = alone(output[b, c, h, w], target[b, c, h, w]).item()
        slow += pixel * (1.0 if weight is None else weight[0, c, 0, 0].item())
    assert count.item() == labelled.sum().item()
    assert (value * count).item() == pytest.approx(slow, rel=1e-5)


def test_the_users_loss_is_left_as_it_was():
    loss = nn.BCELoss()
    MaskedLoss(loss)
    assert loss.reduction == "mean"


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_everything_is_at_least_float32_even_under_autocast(dtype):
    output, target, labelled = batch()
    output = output.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, _ = value_and_count(nn.BCELoss(), output, target.to(dtype), labelled)
    expected = F.binary_cross_entropy(output.double()[labelled], target.double()[labelled])
    precision = 1e-14 if dtype == torch.float64 else 1e-6
    assert value.item() == pytest.approx(expected.item(), rel=precision)


@pytest.mark.usefixtures("path")
def test_certain_and_wrong_probabilities_stay_finite():
    output = torch.tensor([0.0, 1.0], requires_grad=True)
    value, _ = value_and_count(nn.BCELoss(), output, torch.tensor([1.0, 0.0]))
    value.backward()
    assert value.item() == 100  # torch cuts each logarithm at -100
    assert output.grad is not None
    assert torch.all(output.grad.isfinite())


@pytest.mark.parametrize("loss", [nn.BCELoss(), BceDiceLoss()], ids=["bce", "bce_dice"])
def test_an_output_that_is_no_probability_is_one_sentence(loss):
    output = torch.tensor([0.5, -3.2, 4.0])
    masked = MaskedLoss(loss)
    sentence = (
        r"^the model's output must lie in \[0, 1\] for this loss, got -3.2: "
        r"end the model with a sigmoid, or use a loss of logits such as BCEWithLogitsLoss$"
    )
    with pytest.raises(ConfigError, match=sentence):
        masked(output, torch.zeros(3))
    with pytest.raises(ConfigError, match=sentence):
        masked.check(output)
    labelled = torch.tensor([True, False, False])
    masked.check(output, labelled)
    assert masked(output, torch.zeros(3), labelled)[0].item() == 1


def test_check_lets_any_output_pass_where_the_loss_does():
    of_logits = [nn.BCEWithLogitsLoss(), BceDiceLoss(from_logits=True), DiceLoss(from_logits=True)]
    for loss in (nn.MSELoss(), SquaredError(), *of_logits):
        MaskedLoss(loss).check(torch.tensor([-3.2]))


def test_check_refuses_outputs_of_which_a_dice_makes_no_sense():
    with pytest.raises(ConfigError, match=r"must lie in \[0, 1\] for this loss, got -3.2"):
        MaskedLoss(DiceLoss()).check(torch.tensor([-3.2]))


def test_a_target_outside_zero_and_one_is_one_sentence():
    with pytest.raises(DataError, match=r"^the target must lie in \[0, 1\] for BCELoss, got 255: "):
        MaskedLoss(nn.BCELoss())(torch.full((2,), 0.5), torch.tensor([0.0, 255.0]))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("loss", [nn.BCELoss(), BceDiceLoss(), nn.MSELoss()])
def test_a_nan_output_on_a_labelled_pixel_is_a_nan_loss_and_no_error(loss):
    value, _ = value_and_count(loss, torch.tensor([0.5, NAN]), torch.tensor([0.0, 1.0]))
    assert math.isnan(value.item())


def test_another_error_of_torch_is_passed_on():
    with pytest.raises(RuntimeError, match=r"broadcast|non-singleton"):
        binary_cross_entropy(torch.rand(4), torch.rand(4), torch.rand(3))


def test_the_cross_entropy_for_gpus_equals_torchs_and_is_nan_where_torch_would_abort():
    output, target, _ = batch()
    weight = torch.tensor(2.0)
    expected = F.binary_cross_entropy(output, target, weight=weight, reduction="none")
    assert torch.equal(unchecked_cross_entropy(output, target, weight), expected)
    bad = unchecked_cross_entropy(torch.tensor([-0.1, 1.1, NAN, 0.5]), torch.ones(4), None)
    assert bad.isnan().tolist() == [True, True, True, False]


def test_other_shapes_are_one_sentence_with_both():
    loss = MaskedLoss(nn.BCELoss())
    with pytest.raises(ConfigError, match=r"target \(2, 1, 4, 4\), got \(2, 3, 4, 4\): "):
        loss(torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4))
    with pytest.raises(DataError, match=r"^labelled must .* \(2, 1\), got \(2,\): "):
        loss(torch.rand(2, 1), torch.rand(2, 1), torch.ones(2, dtype=torch.bool))


def test_a_reduction_to_a_sum_is_refused():
    with pytest.raises(ConfigError, match=r"MSELoss has reduction='sum': omit reduction"):
        MaskedLoss(nn.MSELoss(reduction="sum"))


def test_a_loss_that_mixes_channels_is_refused_in_one_sentence():
    class OwnCrossEntropy(nn.CrossEntropyLoss):
        pass

    output, target, labelled = batch()
    with pytest.raises(ConfigError, match="OwnCrossEntropy must return one value per pixel"):
        MaskedLoss(OwnCrossEntropy())(output, target, labelled)


def test_logits_are_expected_where_the_loss_says_so():
    class Own(nn.Module):
        expects_logits = True

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return (output - target).mean()

    expecting = [nn.BCEWithLogitsLoss(), DiceLoss(from_logits=True), Own()]
    assert all(MaskedLoss(loss).expects_logits for loss in expecting)
    assert not any(
        MaskedLoss(loss).expects_logits for loss in (nn.BCELoss(), DiceLoss(), nn.MSELoss())
    )


@pytest.mark.usefixtures("path")
def test_dice_by_hand():
    output, target = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([1.0, 1.0, 1.0])
    # one minus 2 * 1.5 + 1 over 1.5 + 3 + 1
    assert DiceLoss()(output, target).item() == pytest.approx(1 - 4 / 5.5)
    labelled = torch.tensor([True, False, True])
    assert DiceLoss(smooth=0.5)(output, target, labelled).item() == pytest.approx(1 - 2.5 / 3.5)
    logits = torch.tensor([30.0, 0.0, -200.0])
    assert DiceLoss(from_logits=True)(logits, target).item() == pytest.approx(1 - 4 / 5.5)


@pytest.mark.usefixtures("path")
def test_cross_entropy_and_dice_by_hand():
    output, target = torch.tensor([0.8, 0.4]), torch.tensor([1.0, 0.0])
    bce = -(math.log(0.8) + math.log(0.6)) / 2
    dice = 1 - (2 * 0.8 + 1) / (1.2 + 1 + 1)
    loss = BceDiceLoss(alpha=0.3)
    assert loss(output, target).item() == pytest.approx(0.3 * bce + 0.7 * dice)
    logits = torch.logit(output)
    assert BceDiceLoss(from_logits=True)(logits, target).item() == pytest.approx(
        (bce + dice) / 2, rel=1e-6
    )
    only_first = torch.tensor([True, False])
    expected = 0.3 * -math.log(0.8) + 0.7 * (1 - 2.6 / 2.8)
    assert loss(output, target, only_first).item() == pytest.approx(expected)


def test_alpha_outside_zero_and_one_is_refused():
    with pytest.raises(ConfigError, match=r"alpha must lie in \[0, 1\], got 2"):
        BceDiceLoss(alpha=2)


def test_a_network_learns_through_the_masked_loss():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1), nn.Sigmoid())
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    patch = torch.rand(4, 1, 8, 8)
    labelled = torch.rand(4, 1, 8, 8) < 0.5
    target = torch.where(labelled, (patch > 0.5).float(), NAN)
    loss = BceDiceLoss()
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value, _ = value_and_count(loss, net(patch), target, labelled)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("from_logits", [False, True])
def test_without_smoothing_dice_by_hand_and_two_empty_maps_agree(from_logits):
    loss = DiceLoss(smooth=0.0, from_logits=from_logits)
    probs, target = torch.tensor([0.25, 0.75]), torch.tensor([0.0, 1.0])
    output = (probs.logit() if from_logits else probs).requires_grad_()

    value, _ = value_and_count(loss, output, target)
    assert value.item() == pytest.approx(1 - 2 * 0.75 / 2)
    unlabelled, _ = value_and_count(loss, output, target, torch.zeros(2, dtype=torch.bool))
    unlabelled.backward()
    assert unlabelled.item() == 0
    assert output.grad is not None
    assert output.grad.tolist() == [0, 0]


def test_a_dice_of_empty_maps_without_smoothing_is_a_zero_with_a_gradient():
    output = torch.zeros(2, requires_grad=True)
    value, _ = value_and_count(DiceLoss(smooth=0.0), output, torch.zeros(2))
    value.backward()
    assert value.item() == 0
    assert output.grad is not None
    assert output.grad.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"smooth": -1.0}, r"^smooth must be at least 0 and finite, got -1.0$"),
        ({"smooth": math.inf}, r"^smooth must be at least 0 and finite, got inf$"),
        ({"alpha": 2.0}, r"^alpha must lie in \[0, 1\], got 2.0$"),
        ({"pos_weight": 0.0}, r"^pos_weight must be more than 0 and finite, got 0.0$"),
        ({"pos_weight": NAN}, r"^pos_weight must be more than 0 and finite, got nan$"),
    ],
)
def test_the_arguments_of_a_sum_have_ranges(arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        BceDiceLoss(**arguments)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("from_logits", [False, True])
def test_the_weight_of_positive_pixels_is_torchs_for_probabilities_too(from_logits):
    _, target, labelled = batch()
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    weighted = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(7.0))
    expected = weighted(logits[labelled], target[labelled])

    loss = BceDiceLoss(alpha=1.0, pos_weight=7.0, from_logits=from_logits)
    value, _ = value_and_count(loss, logits if from_logits else logits.sigmoid(), target, labelled)

    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
