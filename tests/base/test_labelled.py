"""What ``labelled`` may be: one rule, wherever it is used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchmetrics.classification import BinaryF1Score

from lis2_lightning import metrics
from lis2_lightning.base.labelled import as_mask, num_labelled
from lis2_lightning.data import first_batch
from lis2_lightning.errors import DataError
from lis2_lightning.losses import BceDiceLoss, DiceLoss, MaskedLoss
from lis2_lightning.metrics import PixelMetrics

GENERATOR = torch.Generator().manual_seed(0)
PROBS = torch.rand(2, 1, 16, 16, generator=GENERATOR)
TARGET = (torch.rand(2, 1, 16, 16, generator=GENERATOR) > 0.6).float()
KNOWN = torch.rand(2, 1, 16, 16, generator=GENERATOR) > 0.4
SPELLINGS = {
    "picture": KNOWN.to(torch.uint8) * 255,
    "counts": KNOWN.long(),
    "numbers": KNOWN.float(),
    "half": KNOWN.bfloat16(),
    "gaps": torch.where(KNOWN, 1.0, torch.nan),
}
METRICS = ("AveragePrecision", "BestDice", "CalibrationError", "Dice", "MaskedSSIM", "RocAuc")


class WithLabels(nn.Module):
    """A user's loss that takes the labels itself."""

    def forward(self, output: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
        assert labelled.dtype == torch.bool
        return (output - target)[labelled].abs().mean()


class Huber(nn.Module):
    """A user's loss of plain pixels."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.huber_loss(output, target)


@pytest.mark.parametrize("labelled", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize(
    "loss", [nn.BCELoss(), nn.L1Loss(), DiceLoss(), BceDiceLoss(), WithLabels(), Huber()]
)
def test_a_loss_is_the_same_for_every_spelling(loss, labelled):
    expected, masked = MaskedLoss(loss)(PROBS, TARGET, KNOWN), MaskedLoss(loss)
    assert masked(PROBS, TARGET, labelled) == expected
    assert num_labelled(TARGET, labelled) == expected[0] == KNOWN.sum()
    broken = torch.where(KNOWN, PROBS, 7.0)  # no probability, where nothing is known
    masked.check(broken, labelled)


@pytest.mark.parametrize("labelled", SPELLINGS.values(), ids=SPELLINGS)
def test_metrics_are_the_same_for_every_spelling(labelled):
    chosen = [*(getattr(metrics, name)() for name in METRICS), BinaryF1Score()]
    together = PixelMetrics(chosen)
    expected = together.of_batch(PROBS, TARGET, KNOWN)
    assert together.of_batch(PROBS, TARGET, labelled) == expected
    for metric in chosen[:-1]:
        metric.update(PROBS, TARGET, labelled)
        assert metric.compute() == expected[metric.name]


@pytest.mark.parametrize("value", [0.5, -1, 2, torch.inf])
def test_weights_are_refused_with_what_to_do(value):
    labelled = torch.where(KNOWN, 1.0, 0.0)
    labelled[1, 0, 3, 4] = value
    for use in (
        lambda: as_mask(labelled),
        lambda: num_labelled(TARGET, labelled),
        lambda: MaskedLoss(nn.BCELoss())(PROBS, TARGET, labelled),
        lambda: PixelMetrics([metrics.Dice()]).update(PROBS, TARGET, labelled),
    ):
        with pytest.raises(
            DataError, match=f"labelled holds {value:g}, it must be 1 .* weights of"
        ):
            use()


class Own(Dataset[Any]):
    """A user's data set."""

    def __init__(self, labelled: Tensor) -> None:
        self.labelled = labelled

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            "patch": PROBS[index],
            "target": TARGET[index],
            "labelled": self.labelled[index],
        }


def test_a_batch_of_a_users_data_set_has_labels_of_true_and_false():
    for labelled in SPELLINGS.values():
        assert torch.equal(first_batch(Own(labelled))["labelled"], KNOWN[:1])
    with pytest.raises(DataError, match=r"labelled holds 0\.25"):
        first_batch(Own(torch.full_like(PROBS, 0.25)))
