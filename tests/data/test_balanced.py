"""Tiles with and without positive pixels, drawn in a given proportion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch.utils.data import ConcatDataset, Dataset, Subset

from lis2_lightning.data import BalancedSampler, PatchDataset, SegmentationData, TileDataset
from lis2_lightning.data.balanced import with_positive
from lis2_lightning.data.dealing import KeyedSampler
from lis2_lightning.errors import ConfigError, DataError
from tests.data.fields import SHAPE


def tiles(**changes: Any) -> TileDataset:
    """Of 99 tiles, those at the left hold positive pixels."""
    target = np.zeros(SHAPE)
    target[:40, :30] = 1
    how: dict[str, Any] = {"target": target, "size": 8, "stride": 8, **changes}
    return TileDataset(np.ones(SHAPE), **how)


def epoch(share: float, *, rank: int = 0, world: int = 1, number: int = 2) -> list[int]:
    dataset = tiles()
    sampler = KeyedSampler(
        len(dataset),
        batch_size=4,
        seed=7,
        shuffle=True,
        rank=rank,
        world_size=world,
        pools=BalancedSampler(share).pools(dataset),
    )
    sampler.set_epoch(number)
    return [index for _, index in sampler if index >= 0]


def test_it_is_known_which_tiles_hold_positive_pixels():
    dataset = tiles()
    expected = [
        bool((s["target"] * s["labelled"]).any()) for s in (dataset[i] for i in range(len(dataset)))
    ]
    assert with_positive(dataset).tolist() == expected
    halves: Dataset[Any] = ConcatDataset([Subset(dataset, [5, 0]), dataset])
    assert with_positive(halves).tolist() == [expected[5], expected[0], *expected]


@pytest.mark.parametrize("share", [0.001, 0.25, 0.5, 0.999])
def test_the_share_holds_and_tiles_of_a_kind_are_drawn_equally_often(share):
    positive = with_positive(tiles())
    drawn = np.array(epoch(share))
    num = len(positive)
    assert len(drawn) == num
    assert positive[drawn % num].sum() == min(max(round(share * num), 1), num - 1)
    times = np.bincount(drawn % num, minlength=num)
    for kind in (positive, ~positive):
        assert times[kind].max() - times[kind].min() <= 1
    # a tile that comes again has another key, and so another augmentation
    assert len(set(drawn.tolist())) == num


def test_epochs_differ_and_processes_share_the_order_of_one():
    whole = epoch(0.5)
    assert whole != epoch(0.5, number=3)
    assert whole == epoch(0.5)
    parts = [epoch(0.5, rank=rank, world=3) for rank in range(3)]
    assert [parts[place % 3][place // 3] for place in range(len(whole))] == whole


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_the_same_with_any_number_of_workers(num_workers):
    def batches(workers: int) -> list[list[list[int]]]:
        data = SegmentationData(
            train=tiles(), batch_size=16, num_workers=workers, seed=3, sampler=BalancedSampler(0.3)
        )
        return [batch["corner"].tolist() for batch in data.train_dataloader()]

    assert batches(num_workers) == batches(0)


def test_only_training_is_balanced():
    data = SegmentationData(
        train=tiles(), val=tiles(), batch_size=200, num_workers=0, sampler=BalancedSampler()
    )
    (batch,) = list(data.val_dataloader())
    assert batch["corner"].tolist() == tiles().corners.tolist()


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ConfigError, match="positive_share must lie between 0 and 1, not"):
        BalancedSampler(share)


@pytest.mark.parametrize(
    ("target", "message"),
    [(np.zeros(SHAPE), "there is none with"), (np.ones(SHAPE), "none without")],
)
def test_tiles_of_one_kind_only_are_refused(target, message):
    with pytest.raises(DataError, match=message):
        SegmentationData(train=tiles(target=target), sampler=BalancedSampler())


def test_a_data_set_that_does_not_know_is_refused():
    unknown = PatchDataset.__new__(PatchDataset)
    for dataset in (unknown, tiles().whole_image()):
        with pytest.raises(ConfigError, match="does not know which samples hold positive pixels"):
            BalancedSampler().pools(dataset)
