from __future__ import annotations

import multiprocessing
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch.utils.data import DataLoader, Dataset, default_collate

from lis2_lightning.data.augment import (
    Augmentation,
    NoiseDataAugmentation,
    Normalize,
    RandomHorizontalFlip,
    RandomRotation,
    ToTensor,
)
from lis2_lightning.data.batch import Batch
from lis2_lightning.data.open_raster import ArrayRaster
from lis2_lightning.data.sampling import random_keys
from lis2_lightning.data.tiles import TileDataset, check_no_shared_pixels
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling import Tile

RNG = np.random.default_rng(5)
SHAPE = (70, 93)


def maps(shape: tuple[int, int] = SHAPE, seed: int = 0) -> dict[str, Any]:
    """An image with gaps, and everything that can be said about it."""
    generator = np.random.default_rng(seed)
    image = generator.random(shape) + 0.5
    image[20:30, 40:50] = np.nan
    target = (generator.random(shape) > 0.8).astype(float)
    background = ((generator.random(shape) > 0.8) & (target == 0)).astype(float)
    missing = np.isfinite(image).astype(float)
    background[:, 60:80] = 0
    target[:, 60:80] = 0
    return {"image": image, "target": target, "background": background, "missing": missing}


def every_augmentation() -> list[Augmentation]:
    return [
        ToTensor(),
        RandomHorizontalFlip(),
        RandomRotation(180),
        NoiseDataAugmentation(noise_var=0.1),
    ]


def samples(dataset: TileDataset) -> Iterable[dict[str, torch.Tensor]]:
    """Every sample of a data set, one by one."""
    return (dataset[index] for index in range(len(dataset)))


def union(dataset: TileDataset) -> np.ndarray:
    """The pixels of all tiles of a data set."""
    image = np.zeros(dataset.image_shape, dtype=bool)
    for tile in dataset.tiles:
        image[tile.rows, tile.columns] = True
    return image


@pytest.mark.parametrize(("size", "stride"), [(16, 5), (16, 16), (70, 1), (7, 20)])
def test_every_tile_equals_one_cut_by_a_slow_loop(size, stride):
    given = maps()
    dataset = TileDataset(**given, size=size, stride=stride)
    known = (given["target"] + given["background"]) * given["missing"] > 0

    tops, lefts = (sorted({*range(0, side - size, stride), side - size}) for side in SHAPE)
    expected = []
    for top in tops:
        for left in lefts:
            here = slice(top, top + size), slice(left, left + size)
            if known[here].any():
                values = given["image"][here]
                low, high = np.nanmin(values), np.nanmax(values)
                patch = np.nan_to_num((values - low) / (high - low))
                expected.append((top, left, patch, given["target"][here], known[here]))

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
    monkeypatch.setattr("lis2_lightning.data.truth.BLOCK", (7, 11))
    assert (TileDataset(**maps(), **options).corners == expected).all()


def test_areas_are_counted_pixel_by_pixel(monkeypatch):
    from lis2_lightning.data.open_raster import open_raster
    from lis2_lightning.data.truth import Truth, count
    from lis2_lightning.tiling import Areas

    monkeypatch.setattr("lis2_lightning.data.truth.BLOCK", (13, 31))
    given = {name: open_raster(values) for name, values in maps().items()}
    areas = Areas.cut(SHAPE, size=15)
    census = count(Truth(given.pop("image"), **given), areas, areas.lattice(8, 4))
    known = (maps()["target"] + maps()["background"]) * maps()["missing"] > 0
    for row, column in np.ndindex(areas.shape):
        here = np.s_[
            areas.row_edges[row] : areas.row_edges[row + 1],
            areas.column_edges[column] : areas.column_edges[column + 1],
        ]
        assert census.areas[row, column, 0] == known[here].sum()
        assert census.areas[row, column, 1] == (known & (maps()["target"] > 0))[here].sum()


def test_unlabelled_tiles_are_dropped_unless_they_are_wanted():
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
def test_what_is_labelled_follows_from_the_maps_that_are_given(names, rule):
    given = {name: maps()[name] for name in names}
    dataset = TileDataset(maps()["image"], **given, size=10, keep_unlabelled=True)
    for tile, sample in zip(dataset.tiles, samples(dataset), strict=True):
        expected = rule(maps())[tile.rows, tile.columns]
        assert (sample["labelled"][0].numpy() == expected).all()


def test_a_labelled_map_takes_the_place_of_the_background():
    given = maps()
    known = RNG.random(SHAPE) > 0.5
    dataset = TileDataset(
        given["image"], target=given["target"], labelled=known, missing=given["missing"], size=70
    )
    expected = known & (given["missing"] > 0)
    assert (dataset[0]["labelled"][0].numpy() == expected[:70, :70]).all()


def test_a_target_of_nan_is_zero_and_unlabelled():
    target = maps()["target"]
    target[:40, :40] = np.nan
    sample = TileDataset(maps()["image"], target=target, size=70)[0]
    assert not sample["labelled"][0, :40, :40].any()
    assert sample["labelled"][0, 40:, 40:].all()
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


@pytest.mark.parametrize("buffer", [0, 3])
def test_splits_of_different_folds_share_no_pixel_and_keep_the_buffer(buffer):
    options: dict[str, Any] = {
        "size": 8,
        "stride": 3,
        "area_size": 16,
        "num_folds": 4,
        "buffer": buffer,
    }
    splits = [TileDataset(**maps(), **options, folds=folds) for folds in ([0, 1], [2], [3])]
    for number, first in enumerate(splits):
        grown = np.zeros(SHAPE, dtype=bool)
        for tile in first.tiles:
            # a pixel right beside a tile is at a distance of 0 from it
            grown[
                max(0, tile.top - buffer) : tile.bottom + buffer,
                max(0, tile.left - buffer) : tile.right + buffer,
            ] = True
        for second in splits[number + 1 :]:
            assert not (grown & union(second)).any()
    check_no_shared_pixels(dict(zip(("train", "val", "test"), splits, strict=True)))


def test_all_folds_together_are_all_tiles():
    options: dict[str, Any] = {"size": 8, "stride": 4, "area_size": 16, "num_folds": 4}
    parts = [TileDataset(**maps(), **options, folds=[fold]).corners for fold in range(4)]
    whole = TileDataset(**maps(), **options).corners
    assert sorted(map(tuple, np.concatenate(parts))) == sorted(map(tuple, whole))


def test_folds_do_not_depend_on_the_stride():
    options: dict[str, Any] = {"size": 8, "area_size": 16, "num_folds": 4, "folds": [2]}
    coarse, fine = (union(TileDataset(**maps(), **options, stride=s)) for s in (8, 1))
    assert (coarse & ~fine).sum() == 0


def test_a_leak_names_both_splits_and_a_tile_of_each():
    given = maps()
    first = TileDataset(**given, size=16, area_size=32, num_folds=2, folds=[0])
    second = TileDataset(**given, size=16, stride=16)
    with pytest.raises(DataError, match="train and test share pixels of an array") as caught:
        check_no_shared_pixels({"train": first, "val": None, "test": second})
    numbers = [int(word.strip(",;")) for word in str(caught.value).split() if word[0].isdigit()]
    tile, overlapping = (Tile(top, left, 16, 16) for top, left in (numbers[:2], numbers[2:4]))
    assert tile in first.tiles
    assert overlapping in second.tiles
    assert abs(tile.top - overlapping.top) < 16
    assert abs(tile.left - overlapping.left) < 16


def test_data_sets_of_different_images_are_not_compared(tmp_path):
    np.save(tmp_path / "one.npy", maps()["image"])
    np.save(tmp_path / "two.npy", maps()["image"])
    target = maps()["target"]
    check_no_shared_pixels(
        {
            "one": TileDataset(tmp_path / "one.npy", target=target),
            "two": TileDataset(tmp_path / "two.npy", target=target),
            "array": TileDataset(maps()["image"], target=target),
            "other": TileDataset(maps(seed=1)["image"], target=target),
            "smaller": TileDataset(maps()["image"][:64], target=target[:64]),
        }
    )


def test_one_file_under_two_spellings_of_its_path_is_one_image(tmp_path, monkeypatch):
    np.save(tmp_path / "one.npy", maps()["image"])
    monkeypatch.chdir(tmp_path)
    splits = {
        "train": TileDataset("one.npy", target=maps()["target"]),
        "val": TileDataset(str(tmp_path / "one.npy"), target=maps()["target"]),
    }
    with pytest.raises(DataError, match="train and val share pixels"):
        check_no_shared_pixels(splits)


def test_a_copy_of_an_array_is_the_same_image():
    splits = {name: TileDataset(**maps()) for name in ("train", "val")}
    with pytest.raises(DataError, match="train and val share pixels"):
        check_no_shared_pixels(splits)


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
    given = maps()
    TileDataset(**given, size=70, stride=70, data_augmentations=every_augmentation())[0]
    for name, values in maps().items():
        np.testing.assert_array_equal(given[name], values)


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
    assert [type(one) for one in whole.data_augmentations] == [ToTensor, Normalize]
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


def bad(**changes: Any) -> dict[str, Any]:
    return {**maps(), **changes}


def with_value(value):
    target = maps()["target"]
    target[33, 44] = value
    return target


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (bad(target=with_value(2)), DataError, "an array in memory holds 2 at row 33, column 44"),
        (
            bad(target=with_value(0.5)),
            DataError,
            "holds 0.5 at row 33, column 44: a target must be 0, 1",
        ),
        (bad(target=with_value(np.inf)), DataError, "holds inf at row 33, column 44"),
        (bad(missing=np.ones((70, 92))), DataError, "is 70 x 92 px and .* 70 x 93 px"),
        (bad(background=np.ones((2, *SHAPE))), DataError, "has 2 channels and the target"),
        (bad(size=71), DataError, "a tile of 71 px does not fit an image of 70 x 93 px"),
        (bad(missing=np.zeros(SHAPE)), DataError, "no pixel of an array in memory is labelled"),
        (bad(area_size=32, num_folds=7), DataError, "7 folds need at least 7 areas"),
        (bad(image="none.fits"), DataError, "none.fits"),
        (bad(labelled=np.ones(SHAPE)), ConfigError, "pass only one of them"),
        (bad(size=0), ConfigError, "size must be at least 1 px, not 0"),
        (bad(stride=0), ConfigError, "stride must be at least 1 px, not 0"),
        (bad(area_size=0), ConfigError, "area_size must be at least 1 px, not 0"),
        (bad(buffer=-1), ConfigError, "buffer must be at least 0 px, not -1"),
        (bad(num_folds=0), ConfigError, "num_folds must be at least 1, not 0"),
        (bad(folds=[1]), ConfigError, "fold 1 does not exist: folds are numbered 0 to 0"),
        (bad(folds=[]), ConfigError, "folds is empty"),
        (bad(area_size=32, buffer=9), ConfigError, "use an area_size of at least 41"),
        (bad(normalization="lgo"), ConfigError, "did you mean 'log'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        TileDataset(**arguments)
    assert "\n" not in str(caught.value)


def test_a_fold_without_a_labelled_tile_is_refused():
    known = np.zeros(SHAPE)
    known[5, 5] = 1
    with pytest.raises(DataError, match="has no tile with a labelled pixel"):
        TileDataset(**bad(background=None, labelled=known), size=8, num_folds=4)
    # the others hold the tiles that are kept for prediction only
    assert len(
        TileDataset(
            **bad(background=None, labelled=known), size=8, num_folds=4, keep_unlabelled=True
        )
    )


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
    built = [type(one).__name__ for one in dataset.data_augmentations]
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


def test_the_real_maps_have_the_published_numbers(lis2_sample: Path):
    files: dict[str, Any] = {
        name: lis2_sample / f"sample_{name}.fits" for name in ("target", "background", "missing")
    }
    image = lis2_sample / "sample_image.fits"
    whole = TileDataset(image, **files, size=500)
    assert whole.image_shape == (500, 500)
    assert int(whole[0]["target"].sum()) == 22_496
    assert float(whole[0]["labelled"].float().mean()) == pytest.approx(0.167712)

    whole_labelled = whole[0]["labelled"][0].numpy()
    options: dict[str, Any] = {"size": 32, "stride": 8, "area_size": 64, "num_folds": 5}
    train, val, test = (
        TileDataset(image, **files, **options, folds=folds) for folds in ([0, 1, 2], [3], [4])
    )
    assert not (union(train) & union(val)).any()
    assert not (union(train) & union(test)).any()
    check_no_shared_pixels({"train": train, "val": val, "test": test})
    parts = [TileDataset(image, **files, **options, folds=[fold]) for fold in range(5)]
    areas = [(union(part) & (whole_labelled)).sum() for part in parts]
    assert max(areas) < 1.15 * min(areas)
    patch = train.__getitems__(range(len(train))).tensors["patch"]
    assert patch.isfinite().all()
    assert float(patch.min()) == 0
    assert float(patch.max()) == 1
