"""``Trainer.predict``: which image is mapped, into which file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from lis2_lightning import ConfigError, DataError, TileDataset, Trainer, UNet
from lis2_lightning.report import run_pictures
from lis2_lightning.snapshots import read_snapshot, write_snapshot

Make = Callable[..., dict[str, Any]]
Finished = tuple[Path, dict[str, Any]]
Contents = Callable[[Path], dict[str, bytes]]


def image_of(height: int, width: int) -> NDArray[np.float32]:
    """An image that no run has seen."""
    return np.random.default_rng(1).random((height, width)).astype(np.float32) + 1


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A copy of a run that is over."""
    return Path(shutil.copytree(finished[0], tmp_path / "tiny"))


def test_an_array_in_gives_a_map_out_and_no_file(
    copied: Path, tmp_path: Path, contents: Contents
) -> None:
    trainer = Trainer.from_snapshot(copied / "best.pt", output_dir=tmp_path)
    before = contents(tmp_path)
    (own,) = trainer.predict(copied / "best.pt")
    (other,) = trainer.predict(copied / "best.pt", image=image_of(40, 70))
    assert (own.shape, other.shape) == ((1, 128, 128), (1, 40, 70))
    assert np.isfinite(other).all()
    (again,) = trainer.predict(copied / "best.pt")  # the other image was for one call
    np.testing.assert_array_equal(own, again)
    assert contents(tmp_path) == before


def test_a_path_and_an_array_give_the_same_map(copied: Path, tmp_path: Path) -> None:
    image = image_of(40, 70)
    np.save(tmp_path / "other.npy", image)
    best, output = copied / "best.pt", tmp_path / "map.npy"
    trainer = Trainer.from_snapshot(best)
    (of_array,) = trainer.predict(best, image=image)
    (of_path,) = trainer.predict(best, image=tmp_path / "other.npy", output=output)
    np.testing.assert_array_equal(of_array, of_path)
    np.testing.assert_array_equal(np.load(output), of_path[0])
    with pytest.raises(ConfigError, match="exists already"):
        trainer.predict(best, image=image.T.copy(), output=output)
    trainer.predict(best, image=image.T.copy(), output=output, overwrite=True)
    assert np.load(output).shape == (70, 40)


def test_a_snapshot_and_an_array_are_enough(copied: Path, tmp_path: Path) -> None:
    image = image_of(40, 70)
    (expected,) = Trainer.from_snapshot(copied / "best.pt").predict(copied / "best.pt", image=image)
    alone = shutil.copy(copied / "best.pt", tmp_path / "alone.pt")
    trainer = Trainer.from_snapshot(alone, image=image, **{"test_dataset.stride": 16})
    (probability,) = trainer.predict(alone)
    np.testing.assert_array_equal(probability, expected)


def test_a_snapshot_that_maps_another_image_still_names_no_code_but_components(
    copied: Path, tmp_path: Path
) -> None:
    snapshot = read_snapshot(copied / "best.pt")
    evil = {"class_path": "os.system", "init_args": {"command": f"touch {tmp_path}/run"}}
    snapshot["GLOBAL_CONFIG"]["test_dataset"]["init_args"]["data_augmentations"] = [evil]
    write_snapshot(snapshot, tmp_path / "evil.pt")
    with pytest.raises(ConfigError, match=r"names 'os.system' under train_dataset"):
        Trainer.from_snapshot(tmp_path / "evil.pt", image=image_of(40, 70))
    assert not (tmp_path / "run").exists()


def test_a_trainer_of_objects_maps_another_image_as_it_cuts_its_own(tmp_path: Path) -> None:
    image = image_of(40, 70)
    network = UNet(features=2, num_blocks=1)

    def trainer_of(train: TileDataset) -> Trainer:
        quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
        return Trainer(tmp_path, model=network, train_dataset=train, lightning=quiet)

    cut: dict[str, Any] = {"size": 16, "stride": 5, "normalization": "log"}
    other = trainer_of(TileDataset(image.T.copy(), target=image.T > 1.5, **cut))
    own = trainer_of(TileDataset(image, target=image > 1.5, **cut))
    np.testing.assert_array_equal(other.predict(None, image=image), own.predict(None))


def test_what_does_not_fit_is_refused_before_any_work(copied: Path, tmp_path: Path) -> None:
    best = copied / "best.pt"
    trainer = Trainer.from_snapshot(best)
    with pytest.raises(DataError, match=r"an array in memory .* which have 2 channels of 16 x 16"):
        trainer.predict(best, image=np.ones((2, 40, 40), np.float32), output=tmp_path / "map.npy")
    with pytest.raises(DataError, match=r"1 x 40 px\) is smaller than 2 px, the least side"):
        trainer.predict(best, image=np.ones((1, 40), np.float32), output=tmp_path / "map.npy")
    assert not (tmp_path / "map.npy").exists()
    assert trainer.predict(best, output=tmp_path / "map.npy")[0].shape == (1, 128, 128)


def test_a_map_of_the_run_stays_and_that_is_told(
    copied: Path, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    kept = copied / "prediction.npy"
    kept.write_bytes(b"precious")
    trainer = Trainer.from_snapshot(copied / "best.pt", output_dir=tmp_path)
    (probability,) = trainer.predict(copied / "best.pt")
    assert kept.read_bytes() == b"precious"
    assert f"{kept} stays as it is: overwrite=True replaces it" in said.text
    trainer.predict(copied / "best.pt", overwrite=True)
    np.testing.assert_array_equal(np.load(kept), probability[0])
    assert f"(128 x 128 px) into {kept}" in said.text


def test_training_again_replaces_the_map_of_its_own_run(tiny: Make, tmp_path: Path) -> None:
    Trainer.from_config(tiny(save_last=True)).train()
    path = tmp_path / "runs/tiny/prediction.npy"
    before = np.load(path)
    Trainer.from_config(tiny(epochs=4, resume="auto", save_last=True)).train()
    assert (np.abs(np.load(path) - before) > 0).any()


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_run_of_another_precision_is_mapped(tiny: Make, precision: str) -> None:
    trainer = Trainer.from_config(tiny(epochs=1), **{"lightning.precision": precision})
    trainer.train()
    (map_,) = trainer.predict(overwrite=True)
    assert np.isfinite(np.asarray(map_)).mean() > 0.9


def test_a_large_image_has_no_map_and_no_picture_which_is_told(
    tiny: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(run_pictures, "DRAWN_PIXELS", 128 * 128 - 1)
    Trainer.from_config(tiny(epochs=1)).train()
    folder = tmp_path / "runs/tiny"
    assert not list(folder.glob("prediction.*"))
    (step,) = (line for line in said.messages[-1].splitlines() if "above 4 million px" in line)
    assert step.endswith(f"lis2 predict --ckpt_path {folder}")


@pytest.mark.parametrize("channels", [1, 2])
def test_a_map_is_nan_where_its_image_has_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture, channels: int
) -> None:
    monkeypatch.setattr("lis2_lightning.inference.map_files.BAND", 7)
    image = np.stack([image_of(40, 70)] * channels)
    gaps = np.zeros((40, 70), bool)
    gaps[3:30, 11:19] = gaps[38, 60] = True
    image[-1, gaps] = np.nan
    network = UNet(in_channels=channels, out_channels=channels, features=2, num_blocks=1)
    train = TileDataset(np.ones_like(image), target=image > 1.5, size=16)
    trainer = Trainer(
        tmp_path,
        model=network,
        train_dataset=train,
        lightning={"enable_progress_bar": False, "accelerator": "cpu"},
    )
    output = tmp_path / "map.npy"
    for source in (image, np.ma.array(np.nan_to_num(image), mask=np.isnan(image))):
        (probability,) = trainer.predict(None, image=source, output=output, overwrite=True)
        assert probability.shape == (channels, 40, 70)
        np.testing.assert_array_equal(np.isnan(probability), np.stack([gaps] * channels))
        np.testing.assert_array_equal(np.load(output).reshape(probability.shape), probability)
        told = f"NaN at {gaps.sum()} pixels, where the image has no data"
        assert said.messages[-1].endswith(told)


def test_joined_data_sets_are_mapped_image_by_image(
    tiny: Make, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        image = image_of(48, 64) + ord(name)
        image[0, : ord(name) - ord("a")] = np.nan  # a pixel of the second image
        np.save(tmp_path / f"{name}.npy", image)
        np.save(tmp_path / f"{name}_target.npy", image > np.nanmedian(image))

    def joined(fold: int) -> dict[str, Any]:
        shared = {"type": "TileDataset", "size": 16, "num_folds": 2, "folds": [fold]}
        files = (str(tmp_path / name) for name in "ab")
        parts = [
            {**shared, "image": f"{path}.npy", "target": f"{path}_target.npy"} for path in files
        ]
        return {"type": "ConcatDataset", "datasets": parts}

    config = tiny(train_dataset=joined(0), val_dataset=joined(1), test_dataset=None)
    trainer = Trainer.from_config(config)
    trainer.train()
    told = [text for text in said.messages if "no data at" in text]
    assert len(told) == 1
    assert told[0].startswith(f"{tmp_path}/b.npy has no data at 1 of its labelled pixels")
    assert "map (several images)" in said.messages[-1]
    best, path = tmp_path / "runs/tiny/best.pt", tmp_path / "b.npy"
    first, second = trainer.predict()
    np.testing.assert_array_equal(np.load(tmp_path / "runs/tiny/prediction_0.npy"), first[0])
    np.testing.assert_array_equal(second, trainer.predict(best, image=path)[0])
    (probability,) = trainer.predict(best, image=path)
    assert probability.shape == (1, 48, 64)
    (alone,) = Trainer.from_snapshot(best, image=path).predict(best)
    np.testing.assert_array_equal(alone, probability)
    assert np.argwhere(np.isnan(alone)).tolist() == [[0, 0, 0]]

    with pytest.raises(DataError, match=r"train_dataset and val_dataset share pixels of .*a.npy"):
        Trainer.from_config({**config, "val_dataset": joined(0)}).data  # noqa: B018 - which is built when it is used


def test_the_files_of_several_images_are_numbered(tiny: Make, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.random(shape) for shape in ((40, 40), (20, 60))]
    tiles = TileDataset(images, target=[image > 0.5 for image in images], size=16)
    config = tiny(train_dataset=None, val_dataset=None, test_dataset=None)
    trainer = Trainer.from_config(config, train_dataset=tiles)
    maps = trainer.predict(
        None, output=tmp_path / "map.npy", mask=tmp_path / "mask.npy", threshold=0.5
    )
    assert [map_.shape for map_ in maps] == [(1, 40, 40), (1, 20, 60)]
    names = ["map_0.npy", "map_1.npy", "mask_0.npy", "mask_1.npy"]
    assert sorted(path.name for path in tmp_path.glob("ma*.npy")) == names
    with pytest.raises(ConfigError, match=r"map_0\.npy exists already"):
        trainer.predict(None, output=tmp_path / "map.npy")


def test_each_plane_of_a_cube_that_is_listed_has_its_own_map(tiny: Make, tmp_path: Path) -> None:
    cube = np.random.default_rng(0).random((2, 40, 40), np.float32)
    np.save(tmp_path / "cube.npy", cube)
    planes = [f"{tmp_path}/cube.npy[{plane}]" for plane in (0, 1)]
    tiles = TileDataset(planes, target=list(cube > 0.5), size=16)
    config = tiny(train_dataset=None, val_dataset=None, test_dataset=None)
    trainer = Trainer.from_config(config, model=nn.Identity(), train_dataset=tiles)
    maps = trainer.predict(None)
    for map_, plane in zip(maps, cube, strict=True):
        np.testing.assert_array_equal(map_, trainer.predict(None, image=plane)[0])
    assert not np.array_equal(np.asarray(maps[0]), np.asarray(maps[1]))


def test_the_command_that_a_run_about_several_images_shows_maps_them(
    tiny: Make, tmp_path: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", image_of(48, 64) + ord(name))
        np.save(tmp_path / f"{name}_target.npy", image_of(48, 64) > 0.5)
    tiles = {
        "type": "TileDataset",
        "size": 16,
        "image": [str(tmp_path / f"{name}.npy") for name in "ab"],
        "target": [str(tmp_path / f"{name}_target.npy") for name in "ab"],
    }
    Trainer.from_config(
        tiny(train_dataset=tiles, val_dataset=None, test_dataset=None, monitor="train_loss")
    ).train()
    code, _, error = typed("predict", "--ckpt_path", str(tmp_path / "runs/tiny"))
    assert code == 0, error
    assert np.load(tmp_path / "runs/tiny/prediction_1.npy").shape == (48, 64)
