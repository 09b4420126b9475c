from __future__ import annotations

import logging
import pickle  # noqa: TID251 - data sets cross process borders this way
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lis2_lightning.data.augment import RandomHorizontalFlip, ToTensor
from lis2_lightning.data.datamodule import collate
from lis2_lightning.data.patches import PatchDataset
from lis2_lightning.data.sampling import random_keys
from lis2_lightning.errors import ConfigError, DataError

COUNT, SIZE = 12, 8


def contents(count: int = COUNT):
    rng = np.random.default_rng(0)
    patches = rng.random((count, SIZE, SIZE, 1))
    spines = (rng.random((count, SIZE, SIZE, 1)) > 0.7).astype(float)
    spines[3] = 0
    labelled = (rng.random((count, SIZE, SIZE, 1)) > 0.5).astype(float)
    corners = rng.integers(0, 100, (count, 2, 1, 1))
    positions = np.concatenate([corners, corners + SIZE], axis=2).astype(float)
    return {"patches": patches, "spines": spines, "labelled": labelled, "positions": positions}


def write(path: Path, arrays) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            maxshape = (None, *values.shape[1:])
            file.create_dataset(name, data=values, maxshape=maxshape, compression="gzip")
    return path


@pytest.fixture
def stored(tmp_path):
    return write(tmp_path / "patches.h5", contents())


def test_a_file_of_lis2_reads_as_it_is(stored):
    dataset = PatchDataset(stored, toEncode=["positions"], name="train")
    assert len(dataset) == COUNT
    assert dataset.name == "train"
    arrays = contents()
    for index in range(COUNT):
        sample = dataset[index]
        assert set(sample) == {"patch", "target", "labelled", "positions"}
        assert sample["patch"].shape == sample["target"].shape == (1, SIZE, SIZE)
        assert sample["patch"].dtype == sample["target"].dtype == torch.float32
        assert sample["labelled"].dtype == torch.bool
        np.testing.assert_array_equal(
            sample["patch"][0], arrays["patches"][index, :, :, 0].astype(np.float32)
        )
        np.testing.assert_array_equal(sample["target"][0], arrays["spines"][index, :, :, 0])
        np.testing.assert_array_equal(sample["labelled"][0], arrays["labelled"][index, :, :, 0])
        assert sample["positions"].shape == (2, 2, 1)
        np.testing.assert_array_equal(sample["positions"], arrays["positions"][index])


def test_a_batch_holds_the_samples_in_the_order_asked_for(stored):
    dataset = PatchDataset(stored, toEncode=["positions"])
    indices = [7, 2, 3, 3, 11, 0]
    batch = dataset.__getitems__(indices)
    assert batch.tensors["patch"].is_contiguous()
    for sample, index in zip(batch, indices, strict=True):
        for key, tensor in dataset[index].items():
            assert torch.equal(sample[key], tensor), key


@pytest.mark.parametrize("layout", [(0, 1, 2), (0, 3, 1, 2)])
def test_other_layouts_give_the_same_patches(tmp_path, stored, layout):
    arrays = {name: contents()[name] for name in ("patches", "spines", "labelled")}
    other = write(
        tmp_path / "other.h5",
        {
            name: values[..., 0] if len(layout) == 3 else values.transpose(layout)
            for name, values in arrays.items()
        },
    )
    everything = list(range(COUNT))
    theirs, ours = (PatchDataset(path).__getitems__(everything) for path in (stored, other))
    for key, tensor in theirs.tensors.items():
        assert torch.equal(tensor, ours.tensors[key]), key


def test_the_corners_are_those_of_the_positions(tmp_path, stored):
    corners = contents()["positions"][:, :, 0, 0]
    every_other = PatchDataset(
        stored, fold_assignments={0: range(COUNT)}, fold_list=[0], stride=2, use_all_patches=True
    )
    np.testing.assert_array_equal(every_other.corners, corners[::2])
    arrays = {name: contents()[name] for name in ("patches", "spines")}
    with pytest.raises(DataError, match="has no data set 'positions'"):
        _ = PatchDataset(write(tmp_path / "other.h5", arrays)).corners


def test_several_channels_come_first(tmp_path):
    arrays = {name: np.repeat(values, 3, axis=-1) for name, values in contents().items()}
    dataset = PatchDataset(write(tmp_path / "patches.h5", arrays))
    assert dataset[0]["patch"].shape == (3, SIZE, SIZE)
    assert torch.equal(dataset[0]["patch"][1], dataset[0]["patch"][0])


def test_without_labelled_every_pixel_counts(tmp_path):
    arrays = contents()
    del arrays["labelled"]
    assert PatchDataset(write(tmp_path / "patches.h5", arrays))[0]["labelled"].all()


def test_normalization_brings_a_patch_to_zero_to_one(tmp_path):
    arrays = contents()
    arrays["patches"] = arrays["patches"] * 1e22 + 1e21
    arrays["patches"][:, 0, 0] = np.nan
    path = write(tmp_path / "patches.h5", arrays)
    patch = PatchDataset(path, normalization="direct")[4]["patch"]
    values = arrays["patches"][4, :, :, 0]
    expected = (values - np.nanmin(values)) / (np.nanmax(values) - np.nanmin(values))
    np.testing.assert_allclose(patch[0], np.nan_to_num(expected), atol=1e-6)
    assert PatchDataset(path)[4]["patch"].max() > 1e21


def test_folds_name_the_patches_of_a_data_set(stored):
    folds: dict[str | int, list[int]] = {1: [0, 1, 2, 3], "b": [4, 5, 6], "c": [7]}
    dataset = PatchDataset(stored, fold_assignments=folds, fold_list=["b", 1])
    assert dataset.numbers.tolist() == [4, 5, 6, 0, 1, 2]  # patch 3 has a target of zeros only
    everything = PatchDataset(
        stored, fold_assignments=folds, fold_list=["b", 1], use_all_patches=True
    )
    assert everything.numbers.tolist() == [4, 5, 6, 0, 1, 2, 3]
    sparse = PatchDataset(stored, fold_assignments=folds, fold_list=["b", 1], stride=2)
    assert sparse.numbers.tolist() == [4, 6, 0, 2]


def test_a_stride_without_folds_has_no_effect_as_in_lis2_and_that_is_told(
    stored, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("lis2_lightning"), "propagate", True)
    with caplog.at_level(logging.INFO, "lis2_lightning"):
        assert PatchDataset(stored, stride=5).numbers.tolist() == list(range(COUNT))
        assert len(PatchDataset(stored)) == COUNT
    assert caplog.messages == [f"{stored}: stride has no effect without folds, as in LIS2"]


def test_the_keys_decide_what_an_augmentation_does(stored):
    plain = PatchDataset(stored)
    flipped = PatchDataset(stored, data_augmentations=[ToTensor(), RandomHorizontalFlip()])
    indices = np.arange(COUNT)
    keys = random_keys(5, 2, indices)
    batch = flipped.fetch(indices, keys).tensors
    again = flipped.fetch(indices[::-1].copy(), keys[::-1].copy()).tensors
    assert torch.equal(batch["patch"], again["patch"].flip(0))
    same = [torch.equal(batch["patch"][i], plain[i]["patch"]) for i in range(COUNT)]
    assert 0 < sum(same) < COUNT
    for index in np.flatnonzero(~np.array(same)):
        for key in ("patch", "target", "labelled"):
            assert torch.equal(batch[key][index], plain[int(index)][key].flip(-1))


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_open_the_file_themselves(stored, context):
    dataset = PatchDataset(stored)
    expected = torch.stack([sample["patch"] for sample in dataset])  # type: ignore[attr-defined]
    loader = DataLoader(
        dataset,
        batch_size=4,
        num_workers=2,
        collate_fn=collate,
        multiprocessing_context=context,
        timeout=60,
    )
    assert torch.equal(torch.cat([batch["patch"] for batch in loader]), expected)


def test_a_pickle_holds_no_handle(stored):
    dataset = PatchDataset(stored)
    first = dataset[1]["patch"]
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - our own bytes
    assert copy._file._handle is None
    assert torch.equal(copy[1]["patch"], first)


def test_an_index_outside_is_an_index_error(stored):
    dataset = PatchDataset(stored)
    with pytest.raises(IndexError, match="index 12 is out of range for 12 samples"):
        dataset[COUNT]
    assert torch.equal(dataset[-1]["patch"], dataset[COUNT - 1]["patch"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"spines": None},
            "has no data set 'spines': valid are 'labelled', 'patches', 'positions'",
        ),
        ({"spines": np.zeros((COUNT, 4, 4, 1))}, r"spines of shape \(12, 4, 4, 1\)"),
        ({"labelled": np.zeros((3, SIZE, SIZE, 1))}, r"labelled of shape \(3, 8, 8, 1\)"),
        ({"positions": np.zeros((3, 2, 2, 1))}, r"positions of shape \(3, 2, 2, 1\)"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(tmp_path, change, sentence):
    arrays = {key: value for key, value in {**contents(), **change}.items() if value is not None}
    path = write(tmp_path / "patches.h5", arrays)
    with pytest.raises(DataError, match=sentence):
        PatchDataset(path, toEncode=["positions"])


def test_patches_need_two_dimensions(tmp_path):
    arrays = {name: np.zeros((COUNT, 5)) for name in ("patches", "spines")}
    with pytest.raises(DataError, match=r"has patches of shape \(12, 5\)"):
        PatchDataset(write(tmp_path / "patches.h5", arrays))


def test_targets_other_than_zero_and_one_are_refused(tmp_path):
    arrays = contents()
    arrays["spines"][5, 0, 0] = 0.5
    dataset = PatchDataset(write(tmp_path / "patches.h5", arrays))
    assert dataset[4]["target"].max() == 1
    with pytest.raises(DataError, match=r"patches.h5:/spines holds values other than 0 and 1"):
        dataset[5]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"normalization": "drect"}, "drect.*direct"),
        ({"stride": 0}, "stride must be at least 1 patch, not 0"),
        ({"fold_list": ["a"]}, "fold_assignments is missing"),
        ({"fold_assignments": {"a": [1]}}, "fold_list is missing"),
        ({"fold_assignments": {"a": [1]}, "fold_list": ["b"]}, "unknown fold 'b'.*'a'"),
        (
            {"fold_assignments": {"a": [12]}, "fold_list": ["a"]},
            "contains patch 12 of 12 patches",
        ),
        (
            {"fold_assignments": {"a": [-1, 3]}, "fold_list": ["a"]},
            "contains patch -1 of 12 patches",
        ),
        ({"fold_assignments": {"a": []}, "fold_list": ["a"]}, "has no usable patch in folds"),
        ({"fold_assignments": {"a": [3]}, "fold_list": ["a"]}, "or set use_all_patches"),
        ({"toEncode": ["position"]}, "has no data set 'position': did you mean 'positions'"),
    ],
)
def test_wrong_keys_are_one_sentence(stored, keys, sentence):
    with pytest.raises((ConfigError, DataError), match=sentence):
        PatchDataset(stored, **keys)


def test_a_missing_file_and_one_of_another_format_are_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"none.h5 does not exist"):
        PatchDataset(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError, match=r"text.h5 is damaged or not an HDF5 file"):
        PatchDataset(tmp_path / "text.h5")


def test_where_a_patch_has_no_data_no_pixel_counts(tmp_path):
    arrays = contents()
    gaps = np.random.default_rng(1).random(arrays["patches"].shape) < 0.2
    arrays["patches"][gaps] = np.nan
    with_labels = PatchDataset(write(tmp_path / "a.h5", arrays))
    expected = (arrays["labelled"] > 0) & ~gaps
    del arrays["labelled"]
    without = PatchDataset(write(tmp_path / "b.h5", arrays))
    for index in range(COUNT):
        np.testing.assert_array_equal(with_labels[index]["labelled"], expected[index, None, ..., 0])
        np.testing.assert_array_equal(without[index]["labelled"], ~gaps[index, None, ..., 0])
        assert with_labels[index]["patch"].isfinite().all()


def test_labels_of_a_picture_count_and_weights_are_refused(tmp_path):
    arrays = contents()
    expected = arrays["labelled"] > 0
    arrays["labelled"] = expected.astype("u1") * 255
    sample = PatchDataset(write(tmp_path / "a.h5", arrays))[0]
    np.testing.assert_array_equal(sample["labelled"], expected[0, None, ..., 0])
    arrays["labelled"] = expected * 0.3
    with pytest.raises(DataError, match=r"b\.h5:/labelled holds 0\.3, it must be 1"):
        PatchDataset(write(tmp_path / "b.h5", arrays))[0]


@pytest.mark.parametrize("key", ["patches", "spines", "labelled", "positions"])
@pytest.mark.parametrize("way", ["link", "soft", "virtual", "external"])
def test_a_file_of_patches_leads_to_no_other_file(tmp_path, key, way):
    arrays = contents()
    write(tmp_path / "other.h5", arrays)
    values = arrays.pop(key)
    (tmp_path / "raw").write_bytes(bytes(8 * values.size))
    with h5py.File(write(tmp_path / "a.h5", arrays), "a") as file:
        if way == "link":
            file[key] = h5py.ExternalLink(str(tmp_path / "other.h5"), key)
        elif way == "soft":
            file["far"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
            file[key] = h5py.SoftLink(f"/far/{key}")
        elif way == "virtual":
            layout = h5py.VirtualLayout(values.shape, "f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), key, values.shape)
            file.create_virtual_dataset(key, layout)
        else:
            raw = [(str(tmp_path / "raw"), 0, 8 * values.size)]
            file.create_dataset(key, values.shape, "f8", external=raw)
    with pytest.raises(DataError, match=rf"a\.h5:/{key} is (a link to|stored in) (an)?other file"):
        PatchDataset(tmp_path / "a.h5")


def test_a_damaged_file_of_patches_gives_values_or_a_sentence(tmp_path):
    rng = np.random.default_rng(3)
    path = write(tmp_path / "a.h5", contents())
    whole = path.read_bytes()
    for _ in range(60):
        damaged = bytearray(whole)
        for position in rng.integers(len(whole), size=3):
            damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            PatchDataset(path).__getitems__(range(3))
        except DataError as error:
            assert "a.h5" in str(error)  # noqa: PT017 - some damage goes unnoticed
