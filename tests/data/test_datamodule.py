"""Loaders whose order and draws follow from seed, epoch and index alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from lis2_lightning import DataError, SegmentationData, SyntheticDataset
from lis2_lightning.data import RandomHorizontalFlip, datamodule, first_batch


class Draws(Dataset[dict[str, Tensor]]):
    """A user's data set which draws from every global generator."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        drawn = torch.tensor([random.random(), np.random.rand(), float(torch.rand(1))])  # noqa: S311, NPY002
        return {
            "patch": torch.full((1, 1, 1), index),
            "target": torch.zeros(1, 1, 1),
            "drawn": drawn,
        }


def loaded(data: SegmentationData, epoch: int, key: str = "patch") -> list[Any]:
    """What an epoch gives, sample after sample."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # as Lightning does
    return [value.tolist() for batch in loader for value in batch[key]]


def data_of(dataset: Any, **changes: Any) -> SegmentationData:
    """The data of a run that has nothing but a training set."""
    return SegmentationData(
        train=dataset, **{"batch_size": 4, "num_workers": 0, "seed": 3, **changes}
    )


def test_each_epoch_gives_every_sample_once_in_an_order_of_its_own() -> None:
    data = data_of(Draws())
    orders = [[value[0][0][0] for value in loaded(data, epoch)] for epoch in range(4)]
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    other = [value[0][0][0] for value in loaded(data_of(Draws(), seed=4), 0)]
    assert other != orders[0]


def test_the_order_does_not_depend_on_what_was_drawn_before() -> None:
    first = loaded(data_of(Draws()), 2, "drawn")
    torch.rand(5)
    random.seed(9)
    assert loaded(data_of(Draws()), 2, "drawn") == first
    assert loaded(data_of(Draws(), batch_size=3), 2, "drawn") == first


def test_draws_behind_views_do_not_depend_on_the_batch() -> None:
    views: Dataset[Any] = ConcatDataset([Subset(Draws(), range(5)), Draws()])
    first = loaded(data_of(views), 1, "drawn")
    assert loaded(data_of(views, batch_size=3), 1, "drawn") == first


def test_draws_differ_between_samples_and_epochs() -> None:
    data = data_of(Draws())
    drawn = [tuple(values) for epoch in range(3) for values in loaded(data, epoch, "drawn")]
    assert len(set(drawn)) == 33


def test_loading_leaves_the_global_generators_as_they_were() -> None:
    def states() -> list[float]:
        return [random.random(), np.random.rand(), float(torch.rand(1))]  # noqa: S311, NPY002

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    seed()
    expected = states()
    seed()
    loaded(data_of(Draws()), 0)
    assert states() == expected


@pytest.mark.parametrize("dataset", [Draws(), SyntheticDataset(height=64, width=64, size=16)])
def test_workers_change_nothing(dataset: Any) -> None:
    if isinstance(dataset, SyntheticDataset):
        dataset.data_augmentations = (RandomHorizontalFlip(),)
    assert loaded(data_of(dataset, num_workers=2), 1) == loaded(data_of(dataset), 1)


def test_validation_and_test_come_in_order_and_test_falls_back_on_validation() -> None:
    data = data_of(Draws(), val=Draws())
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        values = [value for batch in loader for value in batch["patch"].flatten().tolist()]
        assert values == list(range(11))


def test_without_a_validation_set_there_is_no_loader_and_nothing_to_test_on() -> None:
    data = data_of(Draws())
    assert data.val_dataloader() == []
    with pytest.raises(DataError, match="test_dataset or val_dataset"):
        data.test_dataloader()


@pytest.mark.parametrize(
    ("sample", "description"),
    [((1, 2), "tuple"), ({"image": 1, "mask": 2}, r"\['image', 'mask'\]"), ({"patch": 1}, "patch")],
)
def test_a_sample_of_another_kind_says_what_is_expected(sample: Any, description: str) -> None:
    class Other(Dataset[Any]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            return sample

    with pytest.raises(DataError, match=f"'patch' and 'target', got .*{description}"):
        first_batch(Other())


def test_joined_data_sets_of_different_keys_give_whole_batches() -> None:
    """A data set that says nothing of labels counts all pixels; one that does, keeps its own."""
    tiles = SyntheticDataset(height=64, width=64, size=16, stride=16)

    class Own(Dataset[dict[str, Tensor]]):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, _: int) -> dict[str, Tensor]:
            return {"patch": torch.ones(1, 16, 16), "target": torch.ones(1, 16, 16)}

    class Named(Own):
        def __getitem__(self, index: int) -> Any:
            return {**super().__getitem__(index), "name": "a", "weight": torch.ones(1, 16, 16)}

    class NamedToo(Own):
        def __getitem__(self, index: int) -> Any:
            return {**super().__getitem__(index), "name": "b"}

    named: ConcatDataset[Any] = ConcatDataset([Named(), NamedToo()])
    (batch,) = data_of(named, batch_size=len(named)).loader(named)
    assert sorted(batch["name"]) == ["a"] * 8 + ["b"] * 8
    assert batch["weight"].shape == (16, 1, 16, 16)

    own_first: ConcatDataset[Any] = ConcatDataset([Own(), tiles])
    tiles_first: ConcatDataset[Any] = ConcatDataset([tiles, Own()])
    for joined in (own_first, tiles_first):
        data = data_of(joined, batch_size=len(joined))
        (batch,) = data.loader(joined)
        is_own = (batch["patch"] == 1).flatten(1).all(dim=1)
        assert is_own.sum() == 8
        assert batch["labelled"][is_own].all()
        own_labels = [torch.as_tensor(tiles[n]["labelled"]) > 0 for n in range(len(tiles))]
        assert torch.equal(batch["labelled"][~is_own], torch.stack(own_labels))


@pytest.mark.parametrize(("cores", "devices", "workers"), [(2, 1, 0), (16, 1, 8), (16, 4, 3)])
def test_processes_of_one_machine_share_its_cores(
    cores: int, devices: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr(datamodule, "usable_cores", lambda: cores)
    assert datamodule.usual_workers(devices) == workers
    # each is bound to its own, as by srun
    monkeypatch.setattr("os.cpu_count", lambda: cores * devices + 1)
    assert datamodule.usual_workers(devices) == datamodule.usual_workers(1)
