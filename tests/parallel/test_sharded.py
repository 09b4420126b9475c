"""A sharded network trains as one that is not, and leaves the same snapshots."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lis2_lightning import ConfigError
from lis2_lightning.parallel.sharded import ShardedStrategy
from lis2_lightning.parallel.sharding import units
from lis2_lightning.snapshots import read_snapshot

SCRIPT = Path(__file__).parent / "pair.py"
Outcomes = list[dict[str, Any]]


def start_pair(together: Any, folder: Path, *names: str) -> Outcomes:
    """Run cases in two processes, as torchrun starts them; what came of them in each."""
    done = together(2, [SCRIPT, folder, *names], timeout=400, OMP_NUM_THREADS="1")
    assert [each.returncode for each in done] == [0, 0], "".join(each.stderr for each in done)
    for rank, each in enumerate(done):
        (folder / f"log-{rank}.txt").write_text(each.stdout + each.stderr, encoding="utf-8")
    return [json.loads((folder / f"outcomes-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script of the two processes, for what one process does."""
    spec = importlib.util.spec_from_file_location("pair_of_processes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pair(
    script: ModuleType, tmp_path_factory: pytest.TempPathFactory, together: Any
) -> tuple[Path, Outcomes]:
    """The folder with the runs of two processes, and of one before them; and their outcomes."""
    folder = tmp_path_factory.mktemp("pair")
    script.trainer(folder, "one", {"devices": 1}, epochs=1).train()
    return folder, start_pair(together, folder)


def snapshot(folder: Path, run: str, name: str = "last.pt") -> dict[str, Any]:
    return dict(read_snapshot(folder / run / name))


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def assert_alike(one: Mapping[str, Any], other: Mapping[str, Any], *, within: float) -> None:
    """Same names in the same order, kinds, shapes and values of weights and training state."""
    for part in ("MODEL", "TRAIN_INFO"):
        left, right = dict(leaves(one[part])), dict(leaves(other[part]))
        assert list(left) == list(right)
        for name, value in left.items():
            same = right[name]
            assert type(value) is type(same), name
            if isinstance(value, torch.Tensor):
                assert value.dtype == same.dtype
                torch.testing.assert_close(value, same, rtol=0, atol=within, msg=name)
            elif isinstance(value, float):
                assert value == pytest.approx(same, rel=1e-6 if within else 0, abs=0), name
            else:
                assert value == same, name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", "_clipped", "_mixed", "_half", "_from_one"])
def test_fsdp_gives_what_ddp_gives(pair: tuple[Path, Outcomes], kind: str) -> None:
    folder, _ = pair
    one, other = snapshot(folder, f"ddp{kind}"), snapshot(folder, f"fsdp{kind}")
    assert_alike(one, other, within=1e-6)
    assert list(dict(leaves(one["LIGHTNING"]))) == list(dict(leaves(other["LIGHTNING"])))


@pytest.mark.slow
def test_clipping_clips_the_norm_of_all_shards(pair: tuple[Path, Outcomes]) -> None:
    _, (outcome, _) = pair
    assert outcome["fsdp_clipped"]["best_loss"] == pytest.approx(
        outcome["ddp_clipped"]["best_loss"]
    )
    assert outcome["fsdp_clipped"]["best_loss"] != pytest.approx(outcome["fsdp"]["best_loss"])


@pytest.mark.slow
def test_the_optimizer_is_stored_as_torch_stores_it(
    pair: tuple[Path, Outcomes], script: ModuleType
) -> None:
    folder, _ = pair
    stored = snapshot(folder, "fsdp")
    network = script.Net()
    network.load_state_dict(stored["MODEL"]["MODEL_STATE"])
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    optimizer.load_state_dict(stored["TRAIN_INFO"]["OPTIMIZER_STATE"])
    for parameter in trained:
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape
        assert optimizer.state[parameter]["step"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("resumed", ["from_epoch", "from_inside"])
def test_a_resumed_sharded_run_equals_an_uninterrupted_one_bit_for_bit(
    pair: tuple[Path, Outcomes], resumed: str
) -> None:
    folder, outcomes = pair
    assert_alike(snapshot(folder, "fsdp"), snapshot(folder, resumed), within=0)
    for outcome in outcomes:
        for key in ("best_loss", "epochs_run", "metrics_train", "metrics_val", "metrics_test"):
            assert outcome[resumed][key] == outcome["fsdp"][key]
    rows = [(folder / run / "logs_train.csv").read_text().splitlines() for run in ("fsdp", resumed)]
    assert rows[0][-1] == rows[1][-1]


@pytest.mark.slow
def test_a_snapshot_from_inside_an_epoch_is_from_there(pair: tuple[Path, Outcomes]) -> None:
    folder, _ = pair
    ours = snapshot(folder, "fsdp", "inside.pt")["LIGHTNING"]
    assert (ours["next_epoch"], ours["next_batch"]) == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("resumed", ["ddp_from_fsdp", "fsdp_from_ddp"])
def test_a_snapshot_resumes_under_the_other_strategy(
    pair: tuple[Path, Outcomes], resumed: str
) -> None:
    folder, _ = pair
    assert_alike(snapshot(folder, "ddp"), snapshot(folder, resumed), within=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_sharded_snapshot_goes_on_in_one_process(
    pair: tuple[Path, Outcomes], script: ModuleType
) -> None:
    folder, (outcome, _) = pair
    last = folder / "one_epoch/last.pt"
    alone = script.trainer(folder, "alone", {"devices": 1}, resume=str(last))
    scores = alone.validate(last)
    for name, value in outcome["one_epoch"]["metrics_val"].items():
        assert scores[f"val_{name}"] == pytest.approx(value, rel=1e-6)
    assert alone.train()["epochs_run"] == 2


@pytest.mark.slow
def test_every_loop_runs_with_one_trainer_in_any_order(pair: tuple[Path, Outcomes]) -> None:
    folder, outcomes = pair
    mine, theirs = (outcome["all_loops"] for outcome in outcomes)
    assert mine == theirs
    assert mine["last"]["val_loss"] < mine["before"]["val_loss"]
    assert mine["last"] == mine["best"]  # the second epoch was the better one
    assert mine["again"]["test_loss"] == mine["last"]["val_loss"]
    maps = np.load(folder / "maps.npy")
    assert maps.shape[1:] == (1, 8, 8)
    assert ((maps > 0) & (maps < 1)).all()
    assert_alike(snapshot(folder, "fsdp"), snapshot(folder, "all_loops"), within=0)


@pytest.mark.slow
def test_the_word_fsdp_is_enough_and_tiles_are_drawn(pair: tuple[Path, Outcomes]) -> None:
    folder, _ = pair
    assert_alike(snapshot(folder, "fsdp"), snapshot(folder, "by_word"), within=1e-6)
    # a picture calls the network, and so every process must
    assert len(list((folder / "by_word/trackers/tiles").glob("*.png"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("run", ["by_author", "from_inside_by_author"])
def test_a_network_that_its_author_has_sharded_stays_so(
    pair: tuple[Path, Outcomes], run: str
) -> None:
    folder, _ = pair
    assert_alike(snapshot(folder, "fsdp"), snapshot(folder, run), within=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["scaled", "swapped", "added"])
def test_gradients_may_be_scaled_and_swapped_between_backward_passes(
    pair: tuple[Path, Outcomes], how: str
) -> None:
    _, outcomes = pair
    for outcome in outcomes:
        assert outcome["gradients"]["size"] > 1e-2
        assert outcome["gradients"][how] < 1e-5


@pytest.mark.slow
def test_every_process_ends_where_one_has_a_weight_that_is_no_number(
    pair: tuple[Path, Outcomes],
) -> None:
    folder, outcomes = pair
    for outcome in outcomes:
        assert "a weight became NaN or infinite in epoch 0" in outcome["broken_weight"]["error"]
    assert not (folder / "broken_weight/best.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "told"),
    [
        ("whole_matrices", "ConfigError: Adafactor cannot step a sharded network"),
        ("weights_only", "ConfigError: the network uses weights of one of its parts without"),
        ("synchronised", "ConfigError: lightning.sync_batchnorm is true, and torch synchronises"),
    ],
)
def test_what_cannot_be_is_one_sentence_in_every_process(
    pair: tuple[Path, Outcomes], run: str, told: str
) -> None:
    _, outcomes = pair
    assert all(outcome[run]["error"].startswith(told) for outcome in outcomes)


@pytest.mark.slow
def test_the_main_process_alone_says_what_is_sharded_and_not_synchronised(
    pair: tuple[Path, Outcomes],
) -> None:
    folder, _ = pair
    mine, theirs = ((folder / f"log-{rank}.txt").read_text() for rank in (0, 1))
    for told in (
        "the network is sharded; processes: 2, parts: 5",
        "on cpu batch normalisation cannot be synchronised: each of the 2 processes",
    ):
        assert told in mine
        assert told not in theirs


@pytest.mark.slow
def test_a_compiled_network_leaves_the_snapshots_of_one_that_is_not(
    script: ModuleType, tmp_path: Path, together: Any
) -> None:
    start_pair(together, tmp_path, *script.COMPILED)
    plain = snapshot(tmp_path, "ddp_plain")
    for compiled in ("ddp_compiled", "fsdp_compiled"):
        found = snapshot(tmp_path, compiled)["MODEL"]["MODEL_STATE"]
        assert list(found) == list(plain["MODEL"]["MODEL_STATE"])
        for name, value in plain["MODEL"]["MODEL_STATE"].items():
            if "parts" not in name:  # a bias before batch normalisation follows rounding errors
                torch.testing.assert_close(found[name], value, rtol=0, atol=1e-4)


class Wrapper(nn.Module):
    """A network inside a network."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def blocks() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.ModuleList([nn.Linear(10, 10)]))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (blocks, ["0", "2.0"]),
        (lambda: Wrapper(blocks()), ["inner.0", "inner.2.0"]),
        (lambda: Wrapper(Wrapper(blocks())), ["inner.inner.0", "inner.inner.2.0", "inner"]),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(10, 10)), ["1"]),
        # torch's attention uses the weights of its last layer without calling it
        (lambda: Wrapper(nn.MultiheadAttention(10, 1)), ["inner"]),
    ],
)
def test_the_parts_are_children_of_some_size(
    build: Callable[[], nn.Module], expected: list[str]
) -> None:
    network = build()
    names = {module: name for name, module in network.named_modules()}
    assert [names[unit] for unit in units(network, min_parameters=100)] == expected


def test_parts_that_share_a_weight_stay_with_the_whole() -> None:
    network = blocks()
    network[2][0].weight = network[0].weight  # type: ignore[index]
    assert units(network, min_parameters=100) == []


def test_a_part_has_at_least_one_parameter() -> None:
    with pytest.raises(ConfigError, match="min_parameters must be at least 1, got 0"):
        ShardedStrategy(min_parameters=0)
