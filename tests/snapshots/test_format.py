"""The snapshot's layout: what LIS² reads, what Lightning resumes from, and nothing else."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lis2_lightning import SnapshotError, UNet
from lis2_lightning.snapshots import from_snapshot, read_snapshot, to_snapshot, write_snapshot

Finished = tuple[Path, dict[str, Any]]


def checkpoint(**changes: Any) -> dict[str, Any]:
    """What Lightning gives."""
    return {
        "epoch": 3,
        "state_dict": {"model.conv.weight": torch.ones(2), "val_scores.loss.total": torch.zeros(1)},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [{"last_epoch": 3}],
        "loops": {"fit_loop": {"done": 4}},
        "callbacks": {"Ours": {"best_loss": 0.5}},
        **changes,
    }


def snapshot_of(original: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Its snapshot."""
    arguments: dict[str, Any] = {
        "model_config": {"type": "unet"},
        "global_config": {"epochs": 9},
        "best_loss": 0.5,
        "next_epoch": 4,
    }
    return to_snapshot(original, **{**arguments, **changes})


def keys_of(value: Any) -> Iterator[str]:
    """Every key at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from keys_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from keys_of(inner)


def leaves_of(value: Any) -> Iterator[Any]:
    """Every value that holds no other."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from leaves_of(inner)
    else:
        yield value


def test_the_layout_is_that_of_the_specification() -> None:
    snapshot = snapshot_of(checkpoint())
    assert list(snapshot) == ["MODEL", "TRAIN_INFO", "GLOBAL_CONFIG", "LIGHTNING"]
    assert list(snapshot["MODEL"]) == ["MODEL_CONFIG", "MODEL_STATE"]
    assert snapshot["TRAIN_INFO"] == {
        "EPOCHS_RUN": 3,
        "BEST_LOSS": 0.5,
        "OPTIMIZER_STATE": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "SCHEDULER_STATE": {"last_epoch": 3},
    }
    assert snapshot["GLOBAL_CONFIG"] == {"epochs": 9}


def test_without_a_scheduler_its_state_is_null() -> None:
    snapshot = snapshot_of(checkpoint(lr_schedulers=[]))
    assert snapshot["TRAIN_INFO"]["SCHEDULER_STATE"] is None


@pytest.mark.parametrize(
    "original",
    [
        checkpoint(),
        checkpoint(lr_schedulers=[]),
        checkpoint(optimizer_states=[], lr_schedulers=[]),
        checkpoint(state_dict={}),
        checkpoint(callbacks={"a": {"milestones": Counter({1: 2})}, "b": {"none": None}}),
    ],
)
def test_to_a_snapshot_and_back_gives_the_checkpoint_back(original: dict[str, Any]) -> None:
    back = from_snapshot(snapshot_of(original))
    assert back.keys() == original.keys()
    assert {key: back[key] for key in back if key != "state_dict"} == {
        key: original[key] for key in original if key != "state_dict"
    }
    assert list(back["state_dict"]) == list(original["state_dict"])


@pytest.mark.parametrize("missing", ["MODEL", "TRAIN_INFO", "GLOBAL_CONFIG", "LIGHTNING"])
def test_a_missing_entry_is_named(missing: str) -> None:
    snapshot = snapshot_of(checkpoint())
    del snapshot[missing]
    with pytest.raises(SnapshotError, match=f"{missing} is missing"):
        from_snapshot(snapshot)


@pytest.mark.parametrize("content", [None, [], "text", torch.zeros(1), {"MODEL": {}}])
def test_what_is_no_snapshot_is_refused(content: Any) -> None:
    with pytest.raises(SnapshotError, match="is no snapshot"):
        from_snapshot(content)


def test_paths_and_numpy_numbers_become_plain() -> None:
    odd = {"path": Path("runs/best.pt"), "loss": np.float64(0.5), "count": np.int64(3)}
    snapshot = snapshot_of(checkpoint(callbacks={"Theirs": odd}))
    kept = from_snapshot(snapshot)["callbacks"]["Theirs"]
    assert kept == {"path": "runs/best.pt", "loss": 0.5, "count": 3}
    assert [type(value) for value in kept.values()] == [str, float, int]


def test_what_torch_reads_back_is_kept_as_it_is(tmp_path: Path) -> None:
    values = [b"x", bytearray(b"y"), 1 + 2j, {1, "a"}, torch.float16, torch.device("cpu")]
    write_snapshot(snapshot_of(checkpoint(callbacks={"Theirs": values})), tmp_path / "a.pt")
    kept = from_snapshot(read_snapshot(tmp_path / "a.pt"))["callbacks"]["Theirs"]
    assert kept == values
    assert list(map(type, kept)) == list(map(type, values))


def test_an_object_in_a_state_is_refused_by_its_place() -> None:
    with pytest.raises(SnapshotError, match=r"callbacks\.Theirs\.model is a Conv2d"):
        snapshot_of(checkpoint(callbacks={"Theirs": {"model": torch.nn.Conv2d(1, 1, 1)}}))


def test_the_function_in_a_state_of_swalr_is_left_out_at_any_depth() -> None:
    inner = {"last_epoch": 2, "anneal_func": lambda step: step}
    outer = {"_schedulers": [inner], "_milestones": [1]}
    state = snapshot_of(checkpoint(lr_schedulers=[outer]))["TRAIN_INFO"]["SCHEDULER_STATE"]
    assert state == {"_schedulers": [{"last_epoch": 2}], "_milestones": [1]}


def test_a_run_writes_plain_values_and_tensors_only(finished: Finished) -> None:
    snapshot = read_snapshot(finished[0] / "last.pt")
    plain = (torch.Tensor, str, bytes, bool, int, float, Counter, type(None))
    assert {type(leaf) for leaf in leaves_of(snapshot) if not isinstance(leaf, plain)} == set()


def test_lis2_finds_each_entry_once_wherever_it_searches(finished: Finished) -> None:
    keys = list(keys_of(read_snapshot(finished[0] / "last.pt")))
    assert keys.count("MODEL_CONFIG") == keys.count("MODEL_STATE") == 1


def test_the_weights_have_no_prefix_and_load_into_a_plain_network(finished: Finished) -> None:
    model = read_snapshot(finished[0] / "best.pt")["MODEL"]
    assert model["MODEL_CONFIG"]["type"] == "unet"
    network = UNet(features=2, num_blocks=1)
    network.load_state_dict(model["MODEL_STATE"])
    assert not any(
        name.startswith(("model.", "module.", "_orig_mod.")) for name in model["MODEL_STATE"]
    )


def test_the_best_loss_is_that_of_the_best_epoch_in_every_snapshot(finished: Finished) -> None:
    folder, info = finished
    infos = [read_snapshot(folder / name)["TRAIN_INFO"] for name in ("best.pt", "last.pt")]
    assert [item["BEST_LOSS"] for item in infos] == [info["best_loss"]] * 2
    assert math.isfinite(info["best_loss"])
