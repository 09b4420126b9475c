from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lis2_lightning.data.augment import (
    Augmentation,
    NoiseDataAugmentation,
    Normalize,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
    ToTensor,
    augment,
)
from lis2_lightning.data.sampling import fork, random_keys, uniform
from lis2_lightning.errors import ConfigError

EVERY: list[Augmentation] = [
    ToTensor(),
    RandomHorizontalFlip(),
    RandomVerticalFlip(),
    RandomRotation(180),
    NoiseDataAugmentation(noise_var=0.1),
    NoiseDataAugmentation(keys_to_augment=["patch", "spines"], noise_var=0.4),
    Normalize(0.3, 2),
]


def batch(num: int = 6, side: int = 9, channels: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (num, channels, side, side)
    return {
        "patch": torch.rand(shape, generator=generator),
        "target": (torch.rand(shape, generator=generator) > 0.5).float(),
        "labelled": torch.rand(shape, generator=generator) > 0.3,
        "positions": torch.rand((num, 2, 2, 1), generator=generator),
    }


def keys(num: int = 6) -> np.ndarray:
    return random_keys(0, 0, np.arange(num))


@pytest.mark.parametrize("augmentation", EVERY, ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("side", [9, 32])
def test_a_sample_does_not_depend_on_its_batch(augmentation, side):
    together = augmentation(batch(6, side), keys())
    for index in range(6):
        alone = {key: value[index : index + 1] for key, value in batch(6, side).items()}
        for key, value in augmentation(alone, keys()[index : index + 1]).items():
            assert torch.equal(value[0], together[key][index]), key


@pytest.mark.parametrize("augmentation", EVERY, ids=lambda item: type(item).__name__)
def test_types_and_shapes_stay_and_targets_stay_binary(augmentation):
    before = batch()
    after = augmentation(batch(), keys())
    assert {k: (v.dtype, v.shape) for k, v in after.items()} == {
        k: (v.dtype, v.shape) for k, v in before.items()
    }
    assert set(after["target"].unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(after["positions"], before["positions"])


@pytest.mark.parametrize(("flip", "axis"), [(RandomHorizontalFlip, -1), (RandomVerticalFlip, -2)])
def test_a_flip_mirrors_all_maps_of_the_samples_that_are_drawn(flip, axis):
    before, after = batch(40), flip(0.4)(batch(40), keys(40))
    drawn = uniform(keys(40), 0) < 0.4
    assert 5 < drawn.sum() < 35
    for key in ("patch", "target", "labelled"):
        for index in range(40):
            expected = before[key][index].flip(axis) if drawn[index] else before[key][index]
            assert torch.equal(after[key][index], expected)


def test_two_flips_of_one_list_are_drawn_independently():
    flips = [RandomHorizontalFlip(), RandomHorizontalFlip()]
    before, after = batch(200), augment(batch(200), keys(200), flips)
    changed = [
        not torch.equal(first, second)
        for first, second in zip(before["patch"], after["patch"], strict=True)
    ]
    assert 0.35 < np.mean(changed) < 0.65  # the same draw twice would leave every sample as it was
    drawn = [uniform(fork(keys(200), place), 0) < 0.5 for place in range(2)]
    assert changed == (drawn[0] ^ drawn[1]).tolist()


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("side", [8, 9])
def test_a_quarter_turn_equals_rot90(quarters, side):
    before = batch(6, side)
    after = RandomRotation([90.0 * quarters, 90.0 * quarters])(batch(6, side), keys())
    for key in ("target", "labelled"):
        assert torch.equal(after[key], torch.rot90(before[key], quarters, dims=(-2, -1)))
    expected = torch.rot90(before["patch"], quarters, dims=(-2, -1))
    torch.testing.assert_close(after["patch"], expected, atol=1e-5, rtol=0)


def nearest_by_loop(image: np.ndarray, angle: float) -> np.ndarray:
    """Turn anticlockwise, seen with rows downwards; -1 where nothing comes from inside."""
    side = image.shape[0]
    turned = np.full_like(image, -1)
    middle = (side - 1) / 2
    for row in range(side):
        for column in range(side):
            x, y = column - middle, row - middle
            from_x = math.cos(angle) * x - math.sin(angle) * y + middle
            from_y = math.sin(angle) * x + math.cos(angle) * y + middle
            if -0.5 < from_x < side - 0.5 and -0.5 < from_y < side - 0.5:
                turned[row, column] = image[round(from_y), round(from_x)]
    return turned


def test_a_turn_equals_a_loop_over_pixels_and_corners_are_unlabelled():
    before = {**batch(), "labelled": torch.ones(6, 1, 9, 9, dtype=torch.bool)}
    after = RandomRotation(60)({**before}, keys())
    angles = np.deg2rad(-60 + 120 * uniform(keys(), 0))
    assert np.abs(angles).max() > 0.3
    for index, angle in enumerate(angles):
        expected = nearest_by_loop(before["target"][index, 0].numpy(), angle)
        labelled = after["labelled"][index, 0].numpy()
        assert (labelled == (expected >= 0)).all()
        assert (after["target"][index, 0].numpy()[labelled] == expected[labelled]).all()
        assert (after["target"][index, 0].numpy()[~labelled] == 0).all()
    assert not after["labelled"].all()


def test_the_patch_turns_with_its_target():
    smooth = torch.zeros(20, 1, 32, 32)
    smooth[:, :, 10:14, 5:27] = 1
    after = RandomRotation(180)(
        {"patch": smooth.clone(), "target": smooth, "labelled": smooth > 0}, keys(20)
    )
    assert ((after["patch"] > 0.5).float() - after["target"]).abs().mean() < 0.01


def test_noise_has_its_spread_and_is_cut_at_the_borders():
    noisy = NoiseDataAugmentation(noise_var=0.05)
    middle = noisy({"patch": torch.full((50, 1, 32, 32), 0.5)}, keys(50))["patch"]
    assert abs(float(middle.std()) - 0.05) < 1e-3
    border = noisy({"patch": torch.zeros(50, 1, 32, 32)}, keys(50))["patch"]
    assert float(border.min()) == 0
    assert 0.49 < float((border > 0).float().mean()) < 0.51


def test_noise_on_the_target_changes_classes_and_is_not_that_of_the_patch():
    after = NoiseDataAugmentation(keys_to_augment=["patch", "spines"], noise_var=0.5)(
        {"patch": torch.full((50, 1, 32, 32), 0.5), "target": torch.zeros(50, 1, 32, 32)}, keys(50)
    )
    # a standard normal number is above 1 in 15.9 of 100 cases
    assert 0.15 < float(after["target"].mean()) < 0.17
    pairs = torch.stack((after["patch"].flatten(), after["target"].flatten()))
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.02


def test_without_noise_nothing_changes():
    assert torch.equal(
        NoiseDataAugmentation(keys_to_augment=["spines"])(batch(), keys())["target"],
        batch()["target"],
    )


def test_normalize_works_on_each_channel():
    after = Normalize([0.1, 0.2], [1, 2])(batch(channels=2), keys())["patch"]
    before = batch(channels=2)["patch"]
    torch.testing.assert_close(after[:, 1], (before[:, 1] - 0.2) / 2)
    with pytest.raises(ConfigError, match="2 values for an image of 3 channels"):
        Normalize([0.1, 0.2], 1)(batch(channels=3), keys())


def test_batches_without_labels_are_augmented_too():
    after = augment({"patch": torch.rand(3, 1, 8, 8)}, keys(3), EVERY[:5])
    assert set(after) == {"patch"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomHorizontalFlip(keys_to_augment=["ppatch"]), "did you mean 'patch'"),
        (lambda: RandomRotation(10, keys_to_augment=["patch"]), "name both patch and target"),
        (lambda: RandomVerticalFlip(1.5), "a probability in \\[0, 1\\], not 1.5"),
        (lambda: RandomRotation(-5), "degrees must be one angle of at least 0"),
        (lambda: RandomRotation([1, 2, 3]), "a range of two"),
        (lambda: NoiseDataAugmentation(noise_var=-1), "noise_var must be at least 0"),
        (lambda: NoiseDataAugmentation(keys_to_augment=["labelled"]), "is meaningless"),
        (lambda: Normalize(0, 0), "std must be above 0"),
        (lambda: Normalize(0, 1, keys_to_augment=["target"]), "changes the patch only"),
    ],
)
def test_wrong_arguments_are_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
