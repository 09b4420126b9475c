"""Several images in one data set of tiles: one index, folds over all, and no leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset

from lis2_lightning import ConfigError, DataError, Trainer
from lis2_lightning.data import TileDataset, check_no_shared_pixels, is_one_image
from tests.data.fields import every_augmentation, maps

NAMES = ("image", "target", "background", "missing")
OPTIONS: dict[str, Any] = {"size": 8, "stride": 5, "area_size": 16, "num_folds": 3}
SHAPES = [(70, 93), (40, 50), (64, 33)]


def lists(seeds: list[int]) -> dict[str, Any]:
    """Maps of images of several shapes, as lists; equal seeds are equal images."""
    fields = [maps(SHAPES[seed], seed) for seed in seeds]
    return {name: [field[name] for field in fields] for name in NAMES}


def everything(dataset: Any) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = dataset.__getitems__(range(len(dataset))).tensors
    return tensors


def test_a_list_of_one_image_is_that_image_bit_for_bit():
    how: dict[str, Any] = {**OPTIONS, "folds": [0, 2], "data_augmentations": every_augmentation()}
    listed, single = TileDataset(**lists([0]), **how), TileDataset(**maps(), **how)
    expected = everything(single)
    for name, tensor in everything(listed).items():
        assert torch.equal(tensor, expected[name])
    assert (is_one_image(listed), listed.image_shape) == (True, single.image_shape)


def test_samples_are_those_of_the_images_one_after_the_other():
    joined = TileDataset(**lists([0, 1, 2]), size=8)
    parts = [TileDataset(**maps(SHAPES[seed], seed), size=8) for seed in range(3)]
    assert [image.shape[1:] for image in joined.images] == SHAPES
    expected: ConcatDataset[Any] = ConcatDataset(parts)
    assert len(joined) == len(expected)
    order = np.random.default_rng(0).permutation(len(joined)).tolist()
    batch = joined.__getitems__(order).tensors
    for place, index in enumerate(order):
        for name, tensor in expected[index].items():
            assert torch.equal(batch[name][place], tensor)
    assert joined.corners.tolist() == np.concatenate([part.corners for part in parts]).tolist()
    assert joined.num_without_data == sum(part.num_without_data for part in parts)


def pixels(dataset: TileDataset) -> set[tuple[int, int, int]]:
    """The pixels of all tiles, each with the number of its image; the slow way."""
    size = dataset.size
    return {
        (number, row, column)
        for number, tiled in enumerate(dataset.tiled_images)
        for top, left in tiled.corners().tolist()
        for row in range(top, top + size)
        for column in range(left, left + size)
    }


@pytest.mark.parametrize("fold_by", ["area", "image"])
def test_folds_share_no_pixel_of_any_image_and_are_all_tiles_together(fold_by):
    how: dict[str, Any] = {**OPTIONS, "fold_by": fold_by}
    splits = [TileDataset(**lists([0, 1, 2]), **how, folds=[fold]) for fold in range(3)]
    held = [pixels(split) for split in splits]
    assert len(set.union(*held)) == sum(map(len, held))
    assert sum(map(len, splits)) == len(TileDataset(**lists([0, 1, 2]), **how))
    check_no_shared_pixels(dict(zip(("train", "val", "test"), splits, strict=True)))
    images = [{number for number, *_ in part} for part in held]
    if fold_by == "image":
        assert sorted(map(len, images)) == [1, 1, 1]
    else:  # balanced over all of them together
        labelled = [int(everything(split)["labelled"].sum()) for split in splits]
        assert max(labelled) < 1.3 * min(labelled)


def test_whole_images_are_not_divided_into_areas():
    how: dict[str, Any] = {"size": 8, "stride": 8, "num_folds": 2, "fold_by": "image"}
    both = [TileDataset(**lists([0, 1]), **how, folds=[fold]) for fold in range(2)]
    alone = [TileDataset(**maps(SHAPES[seed], seed), size=8, stride=8) for seed in range(2)]
    assert sorted(map(len, both)) == sorted(map(len, alone))


@pytest.mark.parametrize("fold_by", ["area", "image"])
def test_an_image_that_is_listed_twice_is_in_the_same_folds_both_times(tmp_path, fold_by):
    fields = lists([0, 1, 0])
    for number in (0, 1):
        np.save(tmp_path / f"{number}.npy", fields["image"][number])
    fields["image"] = [tmp_path / f"{number}.npy" for number in (0, 1, 0)]
    how: dict[str, Any] = {**OPTIONS, "num_folds": 2, "fold_by": fold_by}
    splits = {
        name: TileDataset(**fields, **how, folds=[fold])
        for fold, name in enumerate(("train", "val"))
    }
    check_no_shared_pixels(splits)
    held = [{(n % 2, *pixel) for n, *pixel in pixels(split)} for split in splits.values()]
    assert held[0]
    assert held[1]
    assert not held[0] & held[1]


@pytest.mark.parametrize("channels", [1, 2])
def test_planes_of_one_cube_have_the_same_folds_at_each_place(tmp_path, channels):
    cube = np.random.default_rng(0).random((2, channels, *SHAPES[0]))
    np.save(tmp_path / "cube.npy", cube[:, 0] if channels == 1 else cube)
    images = [f"{tmp_path}/cube.npy[{plane}]" for plane in (0, 1)]
    targets = [maps(SHAPES[0], seed)["target"] for seed in (0, 1)]
    how: dict[str, Any] = {**OPTIONS, "num_folds": 2, "target": targets}
    splits = [TileDataset(images, **how, folds=[fold]) for fold in (0, 1)]
    places = [{(row, column) for _, row, column in pixels(split)} for split in splits]
    assert places[0]
    assert places[1]
    assert not places[0] & places[1]
    check_no_shared_pixels(dict(zip(("train", "val"), splits, strict=True)))
    with pytest.raises(ConfigError, match="the number of different images is 1: use fewer folds"):
        TileDataset(images, **how, fold_by="image")


def test_a_leak_between_lists_is_found_in_whatever_order_they_are():
    train = TileDataset(**lists([0, 1]), **OPTIONS, folds=[0, 1])
    val = TileDataset(**lists([1, 2]), **OPTIONS, folds=[1, 2])
    with pytest.raises(DataError, match="train and val share pixels of an array in memory"):
        check_no_shared_pixels({"train": train, "val": val})
    first = len(train.tiled_images[0])
    check_no_shared_pixels({"train": Subset(train, range(first)), "val": val})
    with pytest.raises(DataError, match="share pixels"):
        check_no_shared_pixels({"train": Subset(train, range(first, len(train))), "val": val})


def test_each_image_has_a_grid_for_the_prediction_of_all_of_it():
    dataset = TileDataset(**lists([0, 1]), **OPTIONS, folds=[1])
    wholes = dataset.whole_images(stride=4)
    for seed, whole in enumerate(wholes):
        alone = TileDataset(**maps(SHAPES[seed], seed), size=8).whole_image(stride=4)
        assert whole.image_shape == SHAPES[seed]
        assert whole.corners.tolist() == alone.corners.tolist()
        assert torch.equal(whole[3]["patch"], alone[3]["patch"])
        assert torch.equal(whole[3]["labelled"], alone[3]["labelled"])
    with pytest.raises(ConfigError, match="the tiles are of 2 images"):
        dataset.whole_image()
    assert dataset.whole_image(image=maps()["image"]).image_shape == SHAPES[0]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"target": lists([0])["target"]},
            ConfigError,
            "target has 1 entry for 2 entries of image",
        ),
        ({"missing": maps()["missing"]}, ConfigError, "missing has 1 entry for 2 entries"),
        (
            {"image": [maps()["image"], np.ones((2, *SHAPES[1]))]},
            DataError,
            "of 1 and an array in memory of 2 channels: all must have the same number",
        ),
        ({"image": [], "target": []}, ConfigError, "image is an empty list"),
        ({"fold_by": "images"}, ConfigError, "fold_by must be area or image, not 'images'"),
        (
            {"fold_by": "image", "num_folds": 3},
            ConfigError,
            "into 3 folds, and the number of different images is 2: use fewer folds",
        ),
        ({"image": [maps()["image"], "gone.npy"]}, DataError, "gone.npy does not exist"),
    ],
)
def test_lists_that_do_not_fit_are_refused_in_one_sentence(changes, error, message):
    fields = {**lists([0, 1]), "background": None, "size": 8, "num_folds": 2, **changes}
    with pytest.raises(error, match=message) as caught:
        TileDataset(**fields)
    assert "\n" not in str(caught.value)


def test_a_configuration_lists_images_and_loads_back(tmp_path: Path):
    data: dict[str, Any] = {
        "type": "TileDataset",
        "size": 8,
        "num_folds": 2,
        "normalization": "log",
    }
    for name in ("image", "target"):
        data[name] = [str(tmp_path / f"{name}{seed}.npy") for seed in (0, 1)]
        for seed, path in enumerate(data[name]):
            np.save(path, maps(SHAPES[seed], seed)[name])
    data["folds"] = {"train": [0], "val": [1]}
    config = {
        "output_dir": str(tmp_path / "runs"),
        "model": {"type": "unet", "num_blocks": 1, "features": 2},
        "data": data,
        "epochs": 1,
        "seed": 1,
    }
    trainer = Trainer.from_config(config)
    trainer.train()
    for source in (config, tmp_path / "runs" / "run" / "config.yaml"):
        again = Trainer.from_config(source)
        arguments = again.global_config["val_dataset"]["init_args"]
        assert (arguments["image"], arguments["target"]) == (data["image"], data["target"])
    assert [probs.shape[-2:] for probs in trainer.predict()] == SHAPES[:2]
    (probs,) = trainer.predict(image=data["image"][1])
    assert probs.shape[-2:] == SHAPES[1]
