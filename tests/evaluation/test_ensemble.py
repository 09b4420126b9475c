"""Several networks map an image together: mean and spread of what each of them says alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lis2_lightning import Segmenter, Trainer
from lis2_lightning.snapshots import read_snapshot, write_snapshot

Typed = Callable[..., tuple[int, str, str]]
Finished = tuple[Path, dict[str, Any]]
CUT = 0.25


@pytest.fixture(scope="module")
def snapshots(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three networks that differ, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("folds")
    for fold in range(3):
        snapshot = read_snapshot(finished[0] / "best.pt")
        torch.manual_seed(fold)
        for name, tensor in snapshot["MODEL"]["MODEL_STATE"].items():
            if name.endswith("weight") and tensor.is_floating_point():
                snapshot["MODEL"]["MODEL_STATE"][name] = tensor + 0.2 * torch.randn_like(tensor)
        snapshot["LIGHTNING"]["checkpoint"]["threshold"] = CUT + 0.1 * fold
        (folder / f"fold_{fold}").mkdir()
        write_snapshot(snapshot, folder / f"fold_{fold}" / "best.pt")
    np.save(folder / "image.npy", np.random.default_rng(0).random((40, 52), np.float32) + 1)
    return folder


def test_the_map_is_the_mean_and_the_spread_the_standard_deviation(
    snapshots: Path, typed: Typed, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    pattern = str(snapshots / "fold_*" / "best.pt")
    paths = {key: tmp_path / f"{key}.npy" for key in ("output", "spread", "mask")}
    words = [word for key, path in paths.items() for word in (f"--{key}", str(path))]
    image = snapshots / "image.npy"
    code, _, error = typed("predict", "--ckpt_path", pattern, "--image", image, *words)
    assert code == 0, error
    alone = [
        Segmenter.from_snapshot(snapshots / f"fold_{fold}" / "best.pt").segment(image)[0]
        for fold in range(3)
    ]
    assert np.std(alone, axis=0).max() > 0.02  # they do differ
    mean = np.mean(alone, axis=0)
    np.testing.assert_allclose(np.load(paths["output"]), mean, atol=1e-6)
    np.testing.assert_allclose(np.load(paths["spread"]), np.std(alone, axis=0), atol=1e-6)
    assert any(text.startswith("the spread of the networks is in") for text in said.messages)
    # cut at the mean of the networks' thresholds
    expected = np.load(paths["output"]) >= np.float32(CUT + 0.1)
    np.testing.assert_array_equal(np.load(paths["mask"]), expected)
    assert [path.name for path in tmp_path.iterdir() if path not in paths.values()] == []


def test_a_pattern_of_folders_names_their_best_snapshots(
    snapshots: Path, typed: Typed, tmp_path: Path
) -> None:
    image, pattern = snapshots / "image.npy", str(snapshots / "fold_[01]")
    words = ["--image", image, "--output", tmp_path / "map.npy"]
    code, output, _ = typed("predict", "--ckpt_path", pattern, *words, "--json")
    assert code == 0
    assert '"networks": 2' in output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--output", "m.npy"], "several snapshots map another image: name it with --image"),
        (
            ["--image", "IMAGE", "--output", "m.npy", "--spread", "m.npy"],
            "output and spread are both m.npy: name two files",
        ),
        (
            ["--image", "IMAGE", "--output", "m.npy", "--epochs", "3", "--config", "FILE"],
            "--config",
        ),
    ],
)
def test_mistakes_are_one_sentence(  # noqa: PLR0917 - fixtures
    snapshots: Path,
    finished: Finished,
    typed: Typed,
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    real = {"IMAGE": str(snapshots / "image.npy"), "FILE": str(finished[0])}
    pattern = str(snapshots / "fold_*")
    code, _, error = typed("predict", "--ckpt_path", pattern, *(real.get(w, w) for w in words))
    assert (code, error.count("\n")) == (2, 1), error
    assert sentence in error


def test_a_spread_of_a_single_network_is_refused(
    snapshots: Path, typed: Typed, tmp_path: Path
) -> None:
    words = ["--image", snapshots / "image.npy", "--output", tmp_path / "m.npy"]
    words += ["--spread", tmp_path / "s.npy"]
    for path in (snapshots / "fold_0" / "best.pt", snapshots / "fold_[0]"):
        code, _, error = typed("predict", "--ckpt_path", path, *words)
        assert code == 2
        assert "--spread needs several snapshots" in error
    code, _, error = typed("predict", "--ckpt_path", snapshots / "nothing_*", *words)
    assert (code, "no snapshot matches" in error) == (2, True)


def test_networks_that_were_shown_other_tiles_or_make_other_maps_are_refused(
    snapshots: Path, typed: Typed, tmp_path: Path
) -> None:
    odd = read_snapshot(snapshots / "fold_1" / "best.pt")
    odd["GLOBAL_CONFIG"]["test_dataset"]["init_args"]["normalization"] = "log"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write_snapshot(odd, tmp_path / "b" / "best.pt")
    write_snapshot(read_snapshot(snapshots / "fold_0" / "best.pt"), tmp_path / "a" / "best.pt")
    words = ["--image", snapshots / "image.npy", "--output", tmp_path / "map.npy"]
    code, _, error = typed("predict", "--ckpt_path", tmp_path / "[ab]", *words)
    assert (code, error.count("\n")) == (2, 1)
    assert "trained with normalization log, and " in error
    two = Trainer.from_config(
        {**read_snapshot(tmp_path / "a" / "best.pt")["GLOBAL_CONFIG"]},
        **{"model.out_channels": 2},
    )
    odd = read_snapshot(snapshots / "fold_1" / "best.pt")
    odd["GLOBAL_CONFIG"]["model"] = two.global_config["model"]
    odd["MODEL"]["MODEL_STATE"] = two.model.state_dict()
    write_snapshot(odd, tmp_path / "b" / "best.pt")
    code, _, error = typed("predict", "--ckpt_path", tmp_path / "[ab]", *words)
    assert (code, error.count("\n")) == (2, 1)
    assert "the networks make maps of different shapes" in error
    assert not (tmp_path / "map.npy").exists()


def test_an_image_that_is_too_small_for_the_networks_is_refused(
    snapshots: Path, typed: Typed, tmp_path: Path
) -> None:
    np.save(tmp_path / "small.npy", np.ones((1, 40), np.float32))
    words = ["--image", tmp_path / "small.npy", "--output", tmp_path / "map.npy"]
    code, _, error = typed("predict", "--ckpt_path", str(snapshots / "fold_*" / "best.pt"), *words)
    assert code == 2
    assert "is smaller than 2 px, the least side of" in error
