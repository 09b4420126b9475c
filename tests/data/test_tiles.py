from __future__ import annotations

import multiprocessing
import tracemalloc
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch.utils.data import DataLoader, Dataset, default_collate

from lis2_lightning.data.augment import (
    Normalize,
    ToTensor,
)
from lis2_lightning.data.batch import Batch
from lis2_lightning.data.open_raster import ArrayRaster
from lis2_lightning.data.sampling import random_keys
from lis2_lightning.data.tiles import ImageTiles, TileDataset
from lis2_lightning.errors import ConfigError, DataError
from tests.data.fields import SHAPE, every_augmentation, maps, union

RNG = np.random.default_rng(5)


def samples(dataset: TileDataset) -> Iterable[dict[str, torch.Tensor]]:
    """Every sample of a data set, one by one."""
    return (dataset[index] for index in range(len(dataset)))


@pytest.mark.parametrize(("size", "stride"), [(16, 5), (16, 16), (70, 1), (7, 20)])
def test_every_tile_equals_one_cut_by_a_slow_loop(size, stride):
    fields = maps()
    dataset = TileDataset(**fields, size=size, stride=stride)
    known = (fields["target"] + fields["background"]) * fields["missing"] > 0

    tops, lefts = (sorted({*range(0, side - size, stride), side - size}) for side in SHAPE)
    expected = []
    for top in tops:
        for left in lefts:
            here = slice(top, top + size), slice(left, left + size)
            if known[here].any():
                values = fields["image"][here]
                low, high = np.nanmin(values), np.nanmax(values)
                patch = np.nan_to_num((values - low) / (high - low))
                expected.append((top, left, patch, fields["target"][here], known[here]))

    assert len(dataset) == len(expected)
    for sample, (top, left, patch, target, labelled) in zip(
        samples(dataset), expected, strict=True
    ):
        assert sample["corner"].tolist() == [top, left]
        assert sample["positions"].tolist() == [[[top], [top + size]], [[left], [left + size]]]
        np.testing.assert_allclose(sample["patch"][0].numpy(), patch, atol=1e-6)
        assert (sample["target"][0].numpy() == target).all()
        assert (sample["labelled"][0].numpy() == labelled).all()
    assert dataset[0]["patch"].dtype == dataset[0]["target"].dtype == torch.float32
    assert dataset[0]["positions"].dtype == torch.float32
    assert dataset[0]["labelled"].dtype == torch.bool


def test_scanning_in_small_blocks_changes_nothing(monkeypatch):
    options: dict[str, Any] = {
        "size": 16,
        "stride": 5,
        "area_size": 20,
        "num_folds": 3,
        "folds": [1],
    }
    expected = TileDataset(**maps(), **options).corners
    monkeypatch.setattr("lis2_lightning.data.census.BLOCK", (7, 11))
    assert (TileDataset(**maps(), **options).corners == expected).all()


def test_unlabelled_tiles_are_dropped_unless_they_are_requested():
    dropped = TileDataset(**maps(), size=8)
    kept = TileDataset(**maps(), size=8, keep_unlabelled=True)
    assert len(dropped) < len(kept)
    assert all(sample["labelled"].any() for sample in samples(dropped))
    assert union(kept).all()


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (["target"], lambda _: np.ones(SHAPE, bool)),
        (["target", "missing"], lambda m: m["missing"] > 0),
        (["target", "background"], lambda m: m["target"] + m["background"] > 0),
        (
            ["target", "background", "missing"],
            lambda m: (m["target"] + m["background"]) * m["missing"] > 0,
        ),
    ],
)
def test_what_is_labelled_follows_from_the_maps(names, rule):
    fields = {name: maps()[name] for name in names}
    dataset = TileDataset(maps()["image"], **fields, size=10, keep_unlabelled=True)
    for tile, sample in zip(dataset.tiles, samples(dataset), strict=True):
        expected = (rule(maps()) & np.isfinite(maps()["image"]))[tile.rows, tile.columns]
        assert (sample["labelled"][0].numpy() == expected).all()


def test_a_labelled_map_takes_the_place_of_the_background():
    fields = maps()
    known = RNG.random(SHAPE) > 0.5
    dataset = TileDataset(
        fields["image"], target=fields["target"], labelled=known, missing=fields["missing"], size=70
    )
    expected = known & (fields["missing"] > 0)
    assert (dataset[0]["labelled"][0].numpy() == expected[:70, :70]).all()


def test_a_target_of_nan_is_zero_and_unlabelled():
    target = maps()["target"]
    target[:40, :40] = np.nan
    sample = TileDataset(maps()["image"], target=target, size=70)[0]
    assert not sample["labelled"][0, :40, :40].any()
    assert sample["labelled"][0, 40:, 50:].all()
    assert not sample["target"].isnan().any()


def test_channels_of_image_and_target_may_differ_and_one_map_serves_all():
    image = RNG.random((3, 40, 50)) + 1
    target = (RNG.random((2, 40, 50)) > 0.5).astype(float)
    known = RNG.random((40, 50)) > 0.5
    batch = TileDataset(image, target=target, labelled=known, size=16).__getitems__([0, 1])
    shapes = [tuple(batch.tensors[key].shape) for key in ("patch", "target", "labelled")]
    assert shapes == [(2, 3, 16, 16), (2, 2, 16, 16), (2, 2, 16, 16)]
    assert (batch[0]["labelled"][1].numpy() == known[:16, :16]).all()


def test_nothing_that_is_not_finite_reaches_the_network():
    image = maps()["image"]
    image[3, 3], image[4, 4], image[5, 5] = np.inf, -np.inf, -3
    for normalization in ("direct", "log", "none"):
        dataset = TileDataset(image, target=maps()["target"], normalization=normalization)
        for sample in samples(dataset):
            assert sample["patch"].isfinite().all()


@pytest.mark.parametrize("normalization", ["direct", "log"])
@pytest.mark.parametrize("size", [13, 16])
def test_a_sample_is_the_same_bit_for_bit_in_any_batch(normalization, size):
    dataset = TileDataset(
        **maps(),
        size=size,
        stride=4,
        normalization=normalization,
        data_augmentations=every_augmentation(),
    )
    indices = np.array([3, 7, 30, 3])
    together = dataset.fetch(indices, random_keys(1, 2, indices))
    for place, index in enumerate(indices):
        alone = dataset.fetch(np.array([index]), random_keys(1, 2, np.array([index])))
        for key, tensor in together.tensors.items():
            assert torch.equal(tensor[place], alone.tensors[key][0]), key
    assert torch.equal(together[0]["patch"], together[3]["patch"])


def test_another_epoch_augments_otherwise_and_the_same_epoch_alike():
    dataset = TileDataset(**maps(), size=16, data_augmentations=every_augmentation())
    indices = np.arange(5)
    patches = [
        dataset.fetch(indices, random_keys(0, epoch, indices)).tensors["patch"]
        for epoch in (0, 0, 1)
    ]
    assert torch.equal(patches[0], patches[1])
    assert not torch.equal(patches[0], patches[2])
    assert torch.equal(patches[0], dataset.__getitems__(list(range(5))).tensors["patch"])


def test_augmenting_changes_no_image_in_memory():
    fields = maps()
    TileDataset(**fields, size=70, stride=70, data_augmentations=every_augmentation())[0]
    for name, values in maps().items():
        np.testing.assert_array_equal(fields[name], values)


def test_another_image_is_cut_and_normalised_like_the_own_without_any_truth():
    image = RNG.random((40, 61)).astype(np.float32)
    how: dict[str, Any] = {"size": 16, "stride": 7, "normalization": "log"}
    augmentations = every_augmentation()
    configured = TileDataset(**maps(), **how, data_augmentations=augmentations)
    own = TileDataset(image, target=image > 0.5, **how, data_augmentations=augmentations)
    alone = ImageTiles(image, **how, data_augmentations=augmentations).whole_image()
    before = len(configured)

    for tiles in (configured.whole_image(image=image), alone):
        assert len(tiles) == len(own.whole_image())
        for sample, expected in zip(samples(tiles), samples(own.whole_image()), strict=True):
            for key in ("patch", "positions", "corner"):
                torch.testing.assert_close(sample[key], expected[key], rtol=0, atol=0)
            assert sample.keys() == expected.keys()
            assert not sample["labelled"].any()

    assert (len(configured), configured.image_shape) == (before, SHAPE)


def test_the_whole_image_is_covered_and_only_what_is_not_random_is_done():
    dataset = TileDataset(
        **maps(),
        size=16,
        area_size=32,
        num_folds=3,
        folds=[0],
        data_augmentations=[*every_augmentation(), Normalize(0.5, 2)],
    )
    length = len(dataset)
    whole = dataset.whole_image(stride=8)
    assert union(whole).all()
    assert [type(item) for item in whole.data_augmentations] == [ToTensor, Normalize]
    assert (
        whole.corners.tolist()
        == TileDataset(**maps(), size=16, stride=8, keep_unlabelled=True).corners.tolist()
    )
    assert len(dataset) == length < len(whole)
    assert dataset.whole_image().stride == dataset.stride
    assert whole[0]["corner"].tolist() == [0, 0]
    with pytest.raises(ConfigError, match="a stride of 17 px leaves gaps"):
        dataset.whole_image(stride=17)


def test_indices_out_of_range_are_refused():
    dataset = TileDataset(**maps())
    assert torch.equal(dataset[-1]["corner"], dataset[len(dataset) - 1]["corner"])
    for index in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError):
            dataset[index]
    with pytest.raises(IndexError):
        dataset.__getitems__([0, len(dataset)])
    with pytest.raises(IndexError):
        dataset.whole_image().fetch(np.array([-1]), np.zeros(1, np.uint64))


def test_a_batch_is_what_pytorch_would_collate():
    batch = TileDataset(**maps(), size=16).__getitems__([4, 2, 9])
    assert isinstance(batch, Batch)
    assert len(batch) == 3
    collated = default_collate(batch)  # type: ignore[arg-type]
    assert collated.keys() == batch.tensors.keys()
    for key, tensor in batch.tensors.items():
        assert torch.equal(collated[key], tensor)
    with pytest.raises(IndexError):
        batch[3]
    with pytest.raises(DataError, match="must hold the same number of samples"):
        Batch({"patch": torch.zeros(2), "target": torch.zeros(3)})


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loaders_give_the_same_batches_with_any_number_of_workers(num_workers, tmp_path):
    files: dict[str, Any] = {}
    for name, values in maps().items():
        files[name] = tmp_path / f"{name}.npy"
        np.save(files[name], values)
    dataset = TileDataset(**files, size=16, data_augmentations=every_augmentation())
    dataset[0]  # opens the files in this process before the workers are made
    loader = DataLoader(
        dataset, batch_size=7, num_workers=num_workers, persistent_workers=num_workers > 0
    )
    for _ in range(2):
        patches = torch.cat([batch["patch"] for batch in loader])
        expected = dataset.__getitems__(range(len(dataset))).tensors["patch"]
        assert torch.equal(patches, expected)


@pytest.mark.slow
def test_a_data_set_can_be_sent_to_a_spawned_process(tmp_path):
    np.save(tmp_path / "image.npy", maps()["image"])
    dataset = TileDataset(
        tmp_path / "image.npy", target=maps()["target"], data_augmentations=every_augmentation()
    )
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        sample = pool.apply(dataset.__getitem__, (3,))
    assert torch.equal(sample["patch"], dataset[3]["patch"])


def test_building_takes_no_memory_that_grows_with_the_image(tmp_path):
    peaks = []
    for height in (2048, 8192):
        image = np.lib.format.open_memmap(
            tmp_path / f"{height}.npy", mode="w+", dtype=np.uint8, shape=(height, 4096)
        )
        image[::7] = 1
        del image
        tracemalloc.start()
        TileDataset(tmp_path / f"{height}.npy", target=tmp_path / f"{height}.npy", num_folds=4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 10e6  # the larger target alone is 134 MB of float32
    assert peaks[1] < 150e6


def parsed(init_args):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=Dataset)
    config = parser.parse_object(
        {"data": {"class_path": "lis2_lightning.data.TileDataset", "init_args": init_args}}
    )
    return parser, config


def test_jsonargparse_builds_it_from_plain_values(tmp_path):
    files: dict[str, Any] = {}
    for name, values in maps().items():
        files[name] = str(tmp_path / f"{name}.npy")
        np.save(files[name], values)
    names = [
        {"class_path": "lis2_lightning.data.ToTensor"},
        {"class_path": "lis2_lightning.data.RandomRotation", "init_args": {"degrees": 30}},
        {
            "class_path": "lis2_lightning.data.NoiseDataAugmentation",
            "init_args": {"name": "x", "keys_to_augment": ["spines"], "noise_var": 0.1},
        },
    ]
    options: dict[str, Any] = {"size": 16, "num_folds": 3, "folds": [0, 2], "normalization": "log"}
    parser, config = parsed({**files, **options, "data_augmentations": names})
    text = parser.dump(config)

    dataset = parser.instantiate(config).data
    again = parser.instantiate(parser.parse_string(text)).data

    expected = TileDataset(**maps(), **options)
    assert (dataset.corners == expected.corners).all()
    assert (again.corners == expected.corners).all()
    built = [type(item).__name__ for item in dataset.data_augmentations]
    assert built == ["ToTensor", "RandomRotation", "NoiseDataAugmentation"]
    assert dataset.data_augmentations[2].keys_to_augment == ("target",)


def test_jsonargparse_hands_arrays_rasters_and_paths_over(tmp_path):
    np.save(tmp_path / "image.npy", maps()["image"])
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    images = [maps()["image"], mapped, ArrayRaster(maps()["image"]), tmp_path / "image.npy"]
    expected = TileDataset(maps()["image"], target=maps()["target"])[0]["patch"]
    for image in images:
        parser, config = parsed({"image": image, "target": maps()["target"]})
        assert torch.equal(parser.instantiate(config).data[0]["patch"], expected)
        assert "an array of 70 x 93 in memory" in parser.dump(config)
