"""Maps of tiles that are turned and mirrored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.snapshots import read_snapshot, write_snapshot
from lis2_lightning.training.symmetry import mean_of_turns


def slow(network: Callable[[Tensor], Tensor], patch: Tensor) -> Tensor:
    """Each symmetry of the square, written out."""
    results = []
    for is_mirrored in (False, True):
        for quarter in range(4):
            tile = np.fliplr(patch[0, 0].numpy()) if is_mirrored else patch[0, 0].numpy()
            tile = np.rot90(tile, quarter)
            out = network(torch.tensor(tile.copy())[None, None])[0, 0].numpy()
            out = np.rot90(out, -quarter)
            results.append(np.fliplr(out) if is_mirrored else out)
    return torch.tensor(np.mean(results, axis=0))[None, None]


def test_the_mean_is_that_over_the_eight_symmetries_of_the_square() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    patch = torch.rand(1, 1, 6, 6)
    with torch.no_grad():
        fast = mean_of_turns(lambda batch: network(batch["patch"]), {"patch": patch})
        torch.testing.assert_close(fast, slow(network, patch))


def test_other_maps_are_turned_with_the_patch_and_positions_are_not() -> None:
    seen = []
    patch, positions = torch.rand(2, 1, 4, 4), torch.rand(2, 2, 2, 1)

    def network(batch: Any) -> Tensor:
        seen.append(torch.equal(batch["positions"], positions))
        return torch.as_tensor(batch["patch"] - batch["other"])

    batch = {"patch": patch, "other": patch.clone(), "positions": positions}
    assert not mean_of_turns(network, batch).any()
    assert seen == [True] * 8


def test_a_tile_with_one_side_is_refused() -> None:
    with pytest.raises(ConfigError, match="tta turns tiles of at least two sides"):
        mean_of_turns(lambda batch: batch["patch"], {"patch": torch.rand(1, 1, 8)})


def test_a_map_with_tta_turns_with_the_image(finished: tuple[Any, Any], tmp_path: Path) -> None:
    folder, _ = finished
    image = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    trainer = Trainer.from_snapshot(folder / "best.pt", image=image, tta=True)
    (map_,) = trainer.predict(image=image)
    (turned,) = trainer.predict(image=np.rot90(image).copy())
    np.testing.assert_allclose(np.asarray(turned)[0], np.rot90(np.asarray(map_)[0]), atol=1e-6)
    (plain,) = Trainer.from_snapshot(folder / "best.pt", image=image).predict(image=image)
    assert np.abs(np.asarray(plain) - np.asarray(map_)).max() > 1e-4
    snapshot = read_snapshot(folder / "best.pt")
    snapshot["GLOBAL_CONFIG"]["tta"] = True
    write_snapshot(snapshot, tmp_path / "turning.pt")
    (alike,) = Trainer.from_snapshot(tmp_path / "turning.pt", image=image).predict(image=image)
    np.testing.assert_array_equal(alike, map_)
