from __future__ import annotations

import copy
import io
import math
import socket
from collections.abc import Callable, Sequence
from copy import deepcopy

import pytest
import torch
from jsonargparse import ArgumentParser
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryConfusionMatrix,
    BinaryF1Score,
    BinaryPrecisionRecallCurve,
)
from torchmetrics.image import StructuralSimilarityIndexMeasure

from lis2_lightning.errors import ConfigError
from lis2_lightning.metrics import (
    AveragePrecision,
    BestDice,
    BestThreshold,
    CalibrationError,
    Dice,
    IoU,
    MaskedSSIM,
    PixelMetrics,
    Precision,
    Recall,
    RocAuc,
)
from lis2_lightning.metrics.collection import metric_name
from lis2_lightning.metrics.pixel_metric import PixelMetric


def everything() -> list[Metric]:
    return [
        RocAuc(),
        Dice(),
        BinaryF1Score(),
        AveragePrecision(),
        IoU(),
        Precision(),
        Recall(),
        MaskedSSIM(),
        BestThreshold(),
        BestDice(),
        CalibrationError(),
    ]


def batch(seed: int = 0, num: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shape = (num, 1, 9, 9)
    target = (torch.rand(shape, generator=rng) < 0.4).float()
    probs = (target * 0.3 + torch.rand(shape, generator=rng) * 0.7).clamp(0, 1)
    return probs, target, torch.rand(shape, generator=rng) < 0.6


def plain(values: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in values.items()}


def test_values_come_by_name_in_the_order_of_the_metrics():
    metrics = PixelMetrics(everything())
    probs, target, labelled = batch()
    metrics.update(probs, target, labelled)
    values = plain(metrics.compute())
    assert list(values) == metrics.names == [metric_name(metric) for metric in everything()]
    truth, scores = target[labelled], probs[labelled]
    assert values["roc_auc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)
    assert values["average_precision"] == pytest.approx(
        average_precision_score(truth, scores), abs=1e-3
    )
    assert values["dice"] == pytest.approx(f1_score(truth, scores >= 0.5))
    assert values["binary_f1_score"] == pytest.approx(values["dice"])


def test_each_metric_alone_gives_the_same():
    together = PixelMetrics(everything())
    alone = everything()
    for seed in range(3):
        together.update(*batch(seed))
        for metric in alone:
            probs, target, labelled = batch(seed)
            if isinstance(metric, BinaryF1Score):
                metric.update(probs[labelled], target[labelled].int())
            else:
                metric.update(probs, target, labelled)
    assert plain(together.compute()) == {
        metric_name(metric): metric.compute().item() for metric in alone
    }


def test_metrics_that_count_alike_are_counted_once(monkeypatch):
    counted: list[str] = []

    def counting(metric_class: type[PixelMetric]) -> Callable[..., Tensor]:
        count = metric_class.count

        def counted_too(self: PixelMetric, *parts: Tensor) -> Tensor:
            counted.append(metric_class.__name__)
            return count(self, *parts)

        return counted_too

    for metric_class in (AveragePrecision, RocAuc, BestDice, Dice, IoU, Recall):
        monkeypatch.setattr(metric_class, "count", counting(metric_class))
    metrics = PixelMetrics(
        [RocAuc(), AveragePrecision(), BestDice(), Dice(), IoU(), Recall(threshold=0.3)]
    )
    metrics.update(*batch())
    metrics.count_waiting()
    assert counted == ["RocAuc", "Dice", "Recall"]


@pytest.mark.parametrize("num", [0, 3])
def test_small_batches_are_counted_together_and_large_ones_at_once(num, monkeypatch):
    counted: list[int] = []
    count = Dice.count

    def counting(self: Dice, probs: Tensor, *others: Tensor) -> Tensor:
        counted.append(probs.numel())
        return count(self, probs, *others)

    monkeypatch.setattr(Dice, "count", counting)
    metrics, alone = PixelMetrics([Dice()]), Dice()
    parts = [batch(seed) for seed in range(num)]
    for part in parts:
        metrics.update(*part)
    assert counted == []
    large = (torch.rand(2**20), torch.rand(2**20).round())
    metrics.update(*large)
    (num_counted,) = counted
    assert num_counted == 2**20 + sum(int(labelled.sum()) for _, _, labelled in parts)
    alone.update(*large)
    for part in parts:
        alone.update(*part)
    assert metrics.compute()["dice"] == alone.compute()
    metrics.update(*batch())
    metrics.reset()
    assert metrics.compute()["dice"] == 1  # of no pixels: what waited is forgotten, too


def test_a_batch_alone_does_not_disturb_what_was_seen():
    metrics = PixelMetrics(everything())
    metrics.update(*batch(0))
    before = plain(metrics.compute())
    for seed in (1, 2):
        fresh = PixelMetrics(everything())
        fresh.update(*batch(seed))
        assert plain(metrics.of_batch(*batch(seed))) == plain(fresh.compute())
    assert plain(metrics.compute()) == before


def test_a_mask_treated_as_on_a_gpu_gives_the_same(monkeypatch):
    expected = PixelMetrics(everything())
    expected.update(*batch())
    for module in ("collection", "counts", "histogram"):
        monkeypatch.setattr(f"lis2_lightning.metrics.{module}.on_cpu", lambda _: False)
    monkeypatch.setattr("lis2_lightning.base.labelled.on_cpu", lambda _: False)
    metrics = PixelMetrics(everything())
    metrics.update(*batch())
    assert plain(metrics.compute()) == plain(expected.compute())


def test_without_a_mask_every_pixel_counts():
    probs, target, _ = batch()
    with_mask, without = PixelMetrics(everything()), PixelMetrics(everything())
    with_mask.update(probs, target, torch.ones_like(target, dtype=torch.bool))
    without.update(probs, target)
    assert plain(without.compute()) == plain(with_mask.compute())


def test_reset_forgets_and_clones_are_independent():
    metrics = PixelMetrics(everything())
    metrics.update(*batch(0))
    first = plain(metrics.compute())
    twin = deepcopy(metrics)
    twin.update(*batch(1))
    assert plain(metrics.compute()) == first
    assert plain(twin.compute()) != first
    metrics.reset()
    metrics.update(*batch(0))
    assert plain(metrics.compute()) == first


def test_one_list_serves_training_and_validation():
    metrics = everything()
    train, val = PixelMetrics(metrics), PixelMetrics(metrics)
    train.update(*batch(0))
    val.update(*batch(1))
    only = PixelMetrics(everything())
    only.update(*batch(1))
    assert plain(val.compute()) == plain(only.compute())


def test_copies_and_files_keep_sharing_states():
    metrics = PixelMetrics(everything())
    metrics.update(*batch(0))
    file = io.BytesIO()
    torch.save(metrics, file)
    file.seek(0)
    for again in (copy.deepcopy(metrics), torch.load(file, weights_only=False)):  # noqa: TID251
        assert plain(again.compute()) == plain(metrics.compute())
        again.update(*batch(1))
        both = deepcopy(metrics)
        both.update(*batch(1))
        assert plain(again.compute()) == plain(both.compute())


def test_nothing_enters_a_state_dict_and_half_precision_leaves_the_counts_alone():
    metrics = PixelMetrics(everything())
    metrics.update(*batch(0))
    expected = plain(metrics.compute())
    assert nn.ModuleDict({"metrics": metrics}).half().state_dict() == {}
    assert plain(metrics.compute()) == expected


def test_states_move_with_the_module():
    metrics = PixelMetrics([RocAuc(), AveragePrecision(), MaskedSSIM(), BinaryF1Score()]).to("meta")
    assert {metric.device.type for metric in metrics.modules() if isinstance(metric, Metric)} == {
        "meta"
    }


def test_before_any_batch_there_are_values_and_no_warning():
    values = plain(PixelMetrics(everything()).compute())
    assert values["dice"] == 1
    assert math.isnan(values["roc_auc"])


def test_a_batch_without_a_labelled_pixel_changes_nothing():
    metrics = PixelMetrics(everything())
    metrics.update(*batch(0))
    before = plain(metrics.compute())
    probs, target, labelled = batch(1)
    nowhere = torch.zeros_like(labelled)
    metrics.update(probs, target, nowhere)
    assert plain(metrics.compute()) == before
    alone = plain(metrics.of_batch(probs, target, nowhere))
    assert alone["dice"] == 1
    assert math.isnan(alone["binary_f1_score"])


def test_gradients_are_cut():
    probs, target, labelled = batch()
    probs.requires_grad_()
    metrics = PixelMetrics(everything())
    metrics.update(probs, target, labelled)
    assert not any(
        value.requires_grad for value in metrics.of_batch(probs, target, labelled).values()
    )


def test_two_metrics_of_one_name_are_refused():
    with pytest.raises(ConfigError, match=r"^two metrics are named 'dice': remove one of them$"):
        PixelMetrics([Dice(), Dice(threshold=0.3)])


def test_what_is_no_metric_is_refused():
    with pytest.raises(ConfigError, match=r"must be a torchmetrics.Metric, got Linear: "):
        PixelMetrics([nn.Linear(1, 1)])  # type: ignore[list-item]


def test_a_metric_of_several_numbers_is_refused_in_one_sentence():
    for metric, got in (
        (BinaryConfusionMatrix(), r"a tensor of shape \(2, 2\)"),
        (BinaryPrecisionRecallCurve(thresholds=5), "a tuple"),
    ):
        metrics = PixelMetrics([metric])
        metrics.update(*batch())
        with pytest.raises(ConfigError, match=f"must return one number, got {got}: "):
            metrics.compute()


def test_other_shapes_are_one_sentence():
    with pytest.raises(ConfigError, match=r"shape of the target \(3,\), got \(2,\)"):
        PixelMetrics([Dice()]).update(torch.rand(2), torch.rand(3))


def test_a_configuration_builds_metrics_with_their_arguments():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--metrics", type=list[Metric])
    spelled: list[dict[str, object]] = [
        {"class_path": "lis2_lightning.metrics.Dice", "init_args": {"threshold": 0.25}},
        {"class_path": "lis2_lightning.metrics.AveragePrecision"},
        {"class_path": "lis2_lightning.metrics.MaskedSSIM", "init_args": {"win_size": 5}},
        {"class_path": "lis2_lightning.metrics.CalibrationError", "init_args": {"num_bins": 4}},
        {"class_path": "torchmetrics.classification.BinaryF1Score"},
    ]
    built = parser.instantiate(parser.parse_object({"metrics": spelled})).metrics
    assert [metric_name(metric) for metric in built] == [
        "dice",
        "average_precision",
        "ssim",
        "calibration_error",
        "binary_f1_score",
    ]
    assert built[0].threshold == 0.25
    PixelMetrics(built).update(*batch())


def _rank(rank: int, port: int, result: Sequence[dict[str, float]]) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    metrics = PixelMetrics([*everything(), BinaryAUROC(thresholds=20)])
    if rank == 0:  # the other process has no batch at all
        for seed in range(3):
            metrics.update(*batch(seed))
    # own to each process: must not wait for the other
    own = plain(metrics.of_batch(*batch(7))) if rank == 0 else {}
    values = metrics.compute()
    assert metrics.compute().keys() == values.keys()
    metrics.update(*batch(3 + rank))
    result[rank].update({**plain(metrics.compute()), "own": own.get("binary_f1_score", -1.0)})
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_report_what_one_reports():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with torch.multiprocessing.Manager() as manager:
        result = [manager.dict(), manager.dict()]
        torch.multiprocessing.spawn(  # type: ignore[attr-defined]
            _rank, (port, result), nprocs=2
        )
        ranks = [dict(values) for values in result]
    metrics = PixelMetrics([*everything(), BinaryAUROC(thresholds=20)])
    for seed in range(5):
        metrics.update(*batch(seed))
    expected = plain(metrics.compute())
    assert {**ranks[0], "own": 0} == {**expected, "own": 0} == {**ranks[1], "own": 0}
    assert ranks[0]["own"] == plain(metrics.of_batch(*batch(7)))["binary_f1_score"]


def test_the_names_of_foreign_classes_are_snake_case():
    assert metric_name(BinaryAUROC()) == "binary_auroc"


def test_a_trial_refuses_metrics_of_whole_maps_and_several_numbers_and_changes_nothing():
    for metric, sentence in (
        (StructuralSimilarityIndexMeasure(), "^metric 'structural_similarity_index_measure' fails"),
        (BinaryConfusionMatrix(), "^metric 'binary_confusion_matrix' must return one number"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            PixelMetrics([Dice(), metric]).check()
    metrics = PixelMetrics([Dice(), BinaryF1Score()])
    metrics.update(*batch())
    before = metrics.compute()
    metrics.check()
    assert metrics.compute() == before
