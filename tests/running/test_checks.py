"""What would fail late, or be wrong without a word, is refused or told before training."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torchmetrics.classification import BinaryAUROC, BinaryF1Score
from torchmetrics.image import StructuralSimilarityIndexMeasure
from torchmetrics.regression import MeanSquaredError
from torchmetrics.segmentation import MeanIoU

from lis2_lightning.callbacks import LossEarlyStopping
from lis2_lightning.losses import DiceLoss
from lis2_lightning.metrics import BestThreshold, CalibrationError, Dice
from tests.running.little import LOGITS, Net, Noise, build, refusal


def test_a_network_that_changes_its_input_is_tried_like_any(tmp_path: Path) -> None:
    class InPlace(Net):
        def forward(self, patch: Tensor) -> Tensor:
            return super().forward(patch.mul_(2)).sigmoid()

    build(tmp_path, InPlace()).check()


def draws() -> list[float]:
    """The next numbers of the three global generators."""
    return [random.random(), np.random.random(), float(torch.rand(1))]  # noqa: NPY002, S311


def test_the_trial_leaves_weights_statistics_and_generators_as_they_were(tmp_path: Path) -> None:
    class Draws(Net):
        def forward(self, patch: Tensor) -> Tensor:
            return (super().forward(patch) + sum(draws())).sigmoid()

    trainer = build(tmp_path, Draws(), metrics=[Dice(), BinaryF1Score()])
    module = trainer.module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    pl.seed_everything(5)
    next_draws = draws()
    pl.seed_everything(5)

    trainer.check()

    after = module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(part.training for part in module.model.modules())
    assert draws() == next_draws
    assert not tmp_path.joinpath("runs").exists()


def test_weights_that_do_not_fit_the_channels_have_a_sentence_of_their_own(tmp_path: Path) -> None:
    loss = LOGITS(pos_weight=torch.tensor([1.0, 2.0, 3.0]))
    assert refusal(build(tmp_path, loss=loss)) == (
        "pos_weight of BCEWithLogitsLoss has 3 values, the target has 1 channel(s): give one "
        "value, or one for each channel"
    )


FOLLOWERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "monitor": lambda name: {"monitor": name},
    "early_stopper.monitor": lambda name: {"early_stopper": LossEarlyStopping(monitor=name)},
    "lightning.callbacks: EarlyStopping.monitor": lambda name: {
        "lightning": {"callbacks": [LearningRateMonitor(), EarlyStopping(monitor=name)]}
    },
    "lightning.callbacks: ModelCheckpoint.monitor": lambda name: {
        "lightning": {"callbacks": ModelCheckpoint(monitor=name)}
    },
    "scheduler.monitor": lambda name: {"scheduler": partial(ReduceLROnPlateau, monitor=name)},
}


@pytest.mark.parametrize("key", FOLLOWERS)
def test_a_name_that_nothing_logs_is_refused_wherever_it_stands(tmp_path: Path, key: str) -> None:
    follow = FOLLOWERS[key]
    assert refusal(build(tmp_path, **follow("val_dise"))) == (
        f"{key} 'val_dise' is not logged: did you mean 'val_dice' or 'val_loss'?"
    )
    assert refusal(build(tmp_path, **follow("val_loss"), val_dataset=None)) == (
        f"{key} 'val_loss' is not logged, as no validation runs (val_dataset is null, "
        "lightning.limit_val_batches is 0, or lightning.check_val_every_n_epoch is more than "
        "epochs): did you mean 'train_loss'?"
    )
    build(tmp_path, **follow("val_loss")).check()
    build(tmp_path, **follow("train_loss"), val_dataset=None).check()


def test_no_validation_batches_are_no_validation(tmp_path: Path) -> None:
    for none in ({"limit_val_batches": 0}, {"check_val_every_n_epoch": 4}):
        trainer = build(tmp_path, monitor="val_loss", lightning=none)
        assert "as no validation runs" in refusal(trainer)
    every_third = {"check_val_every_n_epoch": 3, "fast_dev_run": True}
    build(tmp_path, monitor="val_loss", lightning=every_third).check()


def test_of_several_callbacks_of_a_class_each_is_looked_at(tmp_path: Path) -> None:
    callbacks = [ModelCheckpoint(monitor=name) for name in ("val_los", "val_loss")]
    assert refusal(build(tmp_path, lightning={"callbacks": callbacks})).startswith(
        "lightning.callbacks: ModelCheckpoint.monitor 'val_los' is not logged: did you mean"
    )


def test_another_shape_comes_before_what_the_output_holds(tmp_path: Path) -> None:
    assert "(1, 1, 6, 6)" in refusal(build(tmp_path, nn.Conv2d(1, 1, 3), loss=DiceLoss()))


@pytest.mark.parametrize("name", ["epoch", "step"])
def test_checkpoints_may_follow_what_lightning_counts(tmp_path: Path, name: str) -> None:
    newest = ModelCheckpoint(monitor=name, mode="max", save_top_k=2)
    build(tmp_path, lightning={"callbacks": [newest]}).check()


def test_the_stopper_that_chooses_its_loss_needs_no_validation(tmp_path: Path) -> None:
    for stopper in (True, LossEarlyStopping(patience=2)):
        build(tmp_path, early_stopper=stopper, val_dataset=None).check()


def test_a_callback_of_ones_own_may_log_what_is_followed(tmp_path: Path) -> None:
    class Logs(pl.Callback):
        pass

    build(tmp_path, monitor="roughness", mode="min", lightning={"callbacks": [Logs()]}).check()


@pytest.mark.parametrize(
    ("name", "mode"),
    [("val_loss", "min"), ("val_dice", "max"), ("val_calibration_error", "min")],
)
def test_the_direction_follows_the_metric(
    tmp_path: Path, name: str, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = [Dice(), CalibrationError()]
    stopper = LossEarlyStopping(monitor=name, min_delta=0.1)
    trainer = build(tmp_path, monitor=name, early_stopper=stopper, metrics=metrics)
    trainer.check()
    assert not caplog.messages
    assert (trainer._built.best.mode, stopper.mode) == (mode, mode)


@pytest.mark.parametrize(
    ("metric", "mode"), [(BinaryF1Score(), "max"), (MeanSquaredError(), "min")]
)
def test_the_direction_of_torchmetrics_is_known_too(tmp_path: Path, metric: Any, mode: str) -> None:
    name = {"max": "train_binary_f1_score", "min": "train_mean_squared_error"}[mode]
    trainer = build(tmp_path, monitor=name, metrics=[metric])
    trainer.check()
    assert trainer._built.best.mode == mode


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("monitor", {"monitor": "val_dice", "mode": "min"}),
        (
            "early_stopper.monitor",
            {"early_stopper": LossEarlyStopping(monitor="val_dice", mode="min")},
        ),
        ("early_stopper.monitor", {"early_stopper": EarlyStopping(monitor="val_dice")}),
        (
            "lightning.callbacks: ModelCheckpoint.monitor",
            {"lightning": {"callbacks": [ModelCheckpoint(monitor="val_dice")]}},
        ),
        ("scheduler.monitor", {"scheduler": partial(ReduceLROnPlateau, monitor="val_dice")}),
    ],
)
def test_a_mode_that_keeps_the_worst_is_told_and_kept(
    tmp_path: Path, key: str, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path, **changes).check()
    assert caplog.messages == [
        f"{key} 'val_dice' has mode min, but it is better when larger: the worst epoch would count "
        "as the best; set mode to max"
    ]


def test_a_plateau_that_waits_for_a_larger_loss_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plateau = lr_scheduler.ReduceLROnPlateau
    build(tmp_path, scheduler=plateau).check()
    build(tmp_path, scheduler=partial(ReduceLROnPlateau, monitor="val_dice", mode="max")).check()
    assert not caplog.messages
    build(tmp_path, scheduler=partial(plateau, mode="max")).check()
    assert "'train_loss' has mode max, but it is better when smaller" in caplog.text


def test_where_the_direction_is_unknown_the_choice_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path, monitor="val_best_threshold", metrics=[BestThreshold()]).check()
    assert caplog.messages == [
        "monitor 'val_best_threshold' does not say whether larger is better: the smallest value "
        "counts as the best; set mode"
    ]


@pytest.mark.parametrize(
    ("interval", "total", "changes", "steps"),
    [
        ("step", 3, {}, 6),
        ("step", 5, {}, 6),
        ("step", 8, {"batch_size": 1}, 12),
        ("step", 2, {"lightning": {"accumulate_grad_batches": 2}}, 3),
        ("step", 2, {"lightning": {"limit_train_batches": 1}}, 3),
        ("step", 2, {"lightning": {"limit_train_batches": 0.5}}, 3),
        ("step", 3, {"lightning": {"max_steps": 4}}, 4),
        ("epoch", 2, {}, 3),
    ],
)
def test_a_schedule_that_ends_before_the_training_is_refused(
    tmp_path: Path, interval: str, total: int, changes: dict[str, Any], steps: int
) -> None:
    schedule = partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=total)
    changes |= {"scheduler": schedule, "scheduler_interval": interval}
    assert refusal(build(tmp_path, **changes)) == (
        f"scheduler: OneCycleLR ends after {total} steps, and the training has {steps}: set its "
        f"total_steps to {steps}"
    )
    enough = partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=steps)
    build(tmp_path, **{**changes, "scheduler": enough}).check()


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
@pytest.mark.usefixtures("no_pictures")
def test_the_number_of_steps_that_is_named_is_enough(tmp_path: Path) -> None:
    schedule = partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=6)
    trainer = build(tmp_path, scheduler=schedule, scheduler_interval="step")
    assert trainer.train()["epochs_run"] == 3


@pytest.mark.parametrize(("interval", "steps"), [("epoch", 3), ("step", 6)])
def test_a_rate_that_would_rise_again_is_told(
    tmp_path: Path, interval: str, steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    for t_max in (steps, steps - 1):
        schedule = partial(lr_scheduler.CosineAnnealingLR, T_max=t_max)
        build(tmp_path, scheduler=schedule, scheduler_interval=interval).check()
    assert caplog.messages == [
        f"scheduler: CosineAnnealingLR falls for {steps - 1} {interval}s, and the training has "
        f"{steps}: after them the rate rises again"
    ]


@pytest.mark.parametrize(
    "schedule",
    [
        partial(lr_scheduler.CyclicLR, base_lr=0.1, max_lr=1.0, cycle_momentum=False),
        partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=1),
        partial(lr_scheduler.LinearLR, total_iters=1),
        partial(lr_scheduler.PolynomialLR, total_iters=1),
    ],
)
def test_schedules_that_go_on_for_ever_are_not_refused(
    tmp_path: Path, schedule: Any, caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path, scheduler=schedule, scheduler_interval="step").check()
    assert not caplog.messages


@pytest.mark.parametrize(
    ("finder", "key"), [(LearningRateFinder, "optimizer.lr"), (BatchSizeFinder, "batch_size")]
)
def test_finders_that_change_a_key_are_refused(tmp_path: Path, finder: Any, key: str) -> None:
    assert refusal(build(tmp_path, lightning={"callbacks": [finder()]})) == (
        f"lightning.callbacks: {finder.__name__} would change {key} behind the configuration, from "
        f"which runs are resumed: remove it and set {key}"
    )


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        (
            StructuralSimilarityIndexMeasure(),
            "metric 'structural_similarity_index_measure' fails on the labelled pixels, which it "
            "gets as two lists of numbers, not as maps",
        ),
        (MeanIoU(num_classes=2), "metric 'mean_io_u' fails on the labelled pixels"),
    ],
)
def test_metrics_of_whole_maps_are_refused(tmp_path: Path, metric: Any, sentence: str) -> None:
    assert refusal(build(tmp_path, metrics=[metric])).startswith(sentence)


def test_metrics_that_need_both_classes_are_tried_with_both(tmp_path: Path) -> None:
    nothing = Noise(truth=False)
    build(tmp_path, train_dataset=nothing, val_dataset=nothing, metrics=[BinaryAUROC()]).check()
