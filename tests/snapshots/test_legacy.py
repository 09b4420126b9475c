"""Snapshots that LIS2 wrote are read, resumed and converted, and ours are what LIS2 looks for."""

from __future__ import annotations

import inspect
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.optim import lr_scheduler

from lis2_lightning import SnapshotError, Trainer
from lis2_lightning.assembly.assemble import model_config
from lis2_lightning.models import SinPositionEncoding, UNet, VariableEncoding
from lis2_lightning.snapshots import peek, read_snapshot
from lis2_lightning.snapshots.write import convert

Write = Callable[..., dict[str, Any]]
Make = Callable[..., dict[str, Any]]


class CountsBatches(pl.Callback):
    """Counts the training batches of each epoch, and notes the rate each began with."""

    def __init__(self) -> None:
        self.batches: Counter[int] = Counter()
        self.rates: dict[int, float] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self.rates.setdefault(trainer.current_epoch, trainer.optimizers[0].param_groups[0]["lr"])
        self.batches[trainer.current_epoch] += 1


def values_of(value: Any, name: str) -> list[Any]:
    """Everything under a key, wherever it is: how LIS2's reader looks for its entries."""
    values = []
    if isinstance(value, dict):
        for key, inner in value.items():
            values += [inner] if key == name else []
            values += values_of(inner, name)
    elif isinstance(value, list | tuple):
        for inner in value:
            values += values_of(inner, name)
    return values


def objects(value: Any) -> Iterator[Any]:
    """Whatever is neither a plain value nor a tensor."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from objects(inner)
    elif not isinstance(value, str | int | float | bytes | torch.Tensor | type(None)):
        yield value


def test_a_snapshot_of_lis2_has_our_form_when_it_is_read(
    write_lis2: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = write_lis2(tmp_path / "theirs.pt", epochs_run=2)
    assert "configurable" not in sys.modules
    with caplog.at_level(logging.INFO, "lis2_lightning"):
        snapshot = read_snapshot(tmp_path / "theirs.pt")
        read_snapshot(tmp_path / "theirs.pt")  # this is reported only once

    assert list(snapshot) == ["MODEL", "TRAIN_INFO", "GLOBAL_CONFIG", "LIGHTNING"]
    assert set(objects(snapshot)) == set()
    assert snapshot["TRAIN_INFO"]["EPOCHS_RUN"] == 2
    assert snapshot["TRAIN_INFO"]["BEST_LOSS"] == 0.625
    assert snapshot["LIGHTNING"]["next_epoch"] == 3
    assert snapshot["GLOBAL_CONFIG"]["output_dir"] == "runs"
    state = snapshot["MODEL"]["MODEL_STATE"]
    assert list(state) == list(written["weights"])
    assert all(torch.equal(state[name], written["weights"][name]) for name in state)
    assert len(caplog.messages) == 1
    for phrase in ("theirs.pt is a snapshot of LIS2", "logger", "global_config", "output_dir"):
        assert phrase in caplog.messages[0]
    assert "\n" not in caplog.messages[0]


def test_of_the_scheduler_what_torch_knows_is_kept(write_lis2: Write, tmp_path: Path) -> None:
    write_lis2(tmp_path / "theirs.pt", epochs_run=2)
    state = read_snapshot(tmp_path / "theirs.pt")["TRAIN_INFO"]["SCHEDULER_STATE"]
    assert state["milestones"] == Counter({2: 1, 5: 1})
    assert (state["gamma"], state["last_epoch"], state["_last_lr"]) == (0.5, 3, [0.005])
    assert not {"logger", "global_config", "config", "output_dir"} & set(state)


SPECIAL: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 1},
    "MultiStepLR": {"milestones": [1]},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingLR": {"T_max": 3},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.2},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 10},
    "LambdaLR": {"lr_lambda": lambda epoch: 0.9**epoch},
    "MultiplicativeLR": {"lr_lambda": lambda epoch: 0.9**epoch},
}
OF_OTHERS = {"LRScheduler", "_LRScheduler", "SequentialLR", "ChainedScheduler"}


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, value in vars(lr_scheduler).items()
        if inspect.isclass(value)
        and issubclass(value, lr_scheduler.LRScheduler)
        and name not in OF_OTHERS
    ],
)
def test_nothing_that_a_scheduler_of_torch_keeps_is_left_out(
    name: str, write_lis2: Write, tmp_path: Path
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    scheduler = getattr(lr_scheduler, name)(optimizer, **SPECIAL.get(name, {}))
    expected = scheduler.state_dict()

    def replace(content: dict[str, Any]) -> None:
        content["TRAIN_INFO"]["SCHEDULER_STATE"] = expected

    write_lis2(tmp_path / "theirs.pt", change=replace)
    state = read_snapshot(tmp_path / "theirs.pt")["TRAIN_INFO"]["SCHEDULER_STATE"]
    assert state == expected


def shape(value: Any) -> Any:
    """The keys at every depth."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return type(value).__name__


def test_the_counters_are_those_that_lightning_writes_at_the_end_of_an_epoch(
    write_lis2: Write, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    ours = read_snapshot(finished[0] / "save_2.pt")["LIGHTNING"]["checkpoint"]
    write_lis2(tmp_path / "theirs.pt", epochs_run=2)
    theirs = read_snapshot(tmp_path / "theirs.pt")["LIGHTNING"]["checkpoint"]
    assert theirs["epoch"] == ours["epoch"] == 2
    assert theirs["pytorch-lightning_version"] == ours["pytorch-lightning_version"]
    assert shape(theirs["loops"]) == shape(ours["loops"])
    fit, expected = theirs["loops"]["fit_loop"], ours["loops"]["fit_loop"]
    assert fit["epoch_progress"] == expected["epoch_progress"]
    assert set(theirs["callbacks"]["EpochLog"]) == set(ours["callbacks"]["EpochLog"])
    best = "BestSnapshot"
    assert set(theirs["callbacks"][best]) == set(ours["callbacks"][best])
    # four steps an epoch in that run and in what the fixture writes
    assert theirs["global_step"] == ours["global_step"] == 12
    assert fit["epoch_loop.batch_progress"] == expected["epoch_loop.batch_progress"]


@pytest.mark.usefixtures("no_pictures")
def test_a_run_goes_on_from_it_with_the_next_epoch_and_skips_no_batch(
    write_lis2: Write, tiny: Make, tmp_path: Path
) -> None:
    path = tmp_path / "theirs.pt"
    written = write_lis2(path, epochs_run=2, output_dir=tmp_path / "runs")
    data = {key: value for key, value in tiny().items() if key.endswith("_dataset")}
    trainer = Trainer.from_snapshot(
        path, **data, epochs=7, lightning=tiny()["lightning"], num_workers=0, seed=1
    )
    counts = CountsBatches()
    trainer.lightning.callbacks.append(counts)  # type: ignore[attr-defined]  # set by Lightning
    info = trainer.train()

    num_batches = -(-len(trainer.data.train) // 4)  # type: ignore[arg-type]  # a data set has a length
    assert counts.batches == dict.fromkeys((3, 4, 5, 6), num_batches)
    # the milestones are 2 and 5, the rate is halved at each
    assert counts.rates == {3: 0.005, 4: 0.005, 5: 0.0025, 6: 0.0025}
    assert counts.rates[3] == written["lr"]
    assert info["epochs_run"] == 7
    assert info["best_loss"] <= 0.625
    last = peek(tmp_path / "runs/theirs/last.pt")
    assert last.next_epoch == 7


def test_a_converted_file_is_one_of_ours(
    write_lis2: Write, tmp_path: Path, same: Callable[[Any, Any], bool]
) -> None:
    old, new = tmp_path / "theirs.pt", tmp_path / "ours.pt"
    write_lis2(old)
    before = old.read_bytes()
    dropped = convert(old, new)
    assert "SCHEDULER_STATE.logger" in dropped
    loaded = torch.load(new, weights_only=True)  # noqa: TID251 - the reference
    assert same(loaded, read_snapshot(old))
    assert same(loaded, read_snapshot(new))
    assert old.read_bytes() == before


def test_a_conversion_overwrites_nothing_and_takes_only_files_of_lis2(
    write_lis2: Write, tmp_path: Path, whole: Path
) -> None:
    write_lis2(tmp_path / "theirs.pt")
    before = whole.read_bytes()
    with pytest.raises(SnapshotError, match=r"last\.pt exists already: choose another name"):
        convert(tmp_path / "theirs.pt", whole)
    assert whole.read_bytes() == before
    with pytest.raises(SnapshotError, match=r"last\.pt has our form already"):
        convert(whole, tmp_path / "new.pt")
    assert not (tmp_path / "new.pt").exists()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_the_names_of_wrappers_are_taken_off_the_weights(
    write_lis2: Write, tmp_path: Path, prefix: str
) -> None:
    written = write_lis2(tmp_path / "theirs.pt", prefix=prefix)
    state = read_snapshot(tmp_path / "theirs.pt")["MODEL"]["MODEL_STATE"]
    UNet(features=2, num_blocks=1).load_state_dict(state)
    assert list(state) == list(written["weights"])


def test_a_part_of_the_network_may_be_called_as_a_wrapper_is(
    write_lis2: Write, tmp_path: Path
) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["MODEL"]["MODEL_STATE"] = {"module.w": torch.ones(1), "head.w": torch.ones(1)}

    write_lis2(tmp_path / "theirs.pt", change=rename)
    state = read_snapshot(tmp_path / "theirs.pt")["MODEL"]["MODEL_STATE"]
    assert list(state) == ["module.w", "head.w"]


def test_a_run_without_a_scheduler_and_with_sgd_is_read_too(
    write_lis2: Write, tmp_path: Path
) -> None:
    def plain(content: dict[str, Any]) -> None:
        content["TRAIN_INFO"]["SCHEDULER_STATE"] = None
        content["GLOBAL_CONFIG"]["output_dir"] = "runs"

    write_lis2(tmp_path / "theirs.pt", optimizer="SGD", change=plain)
    snapshot = read_snapshot(tmp_path / "theirs.pt")
    assert snapshot["TRAIN_INFO"]["SCHEDULER_STATE"] is None
    assert snapshot["LIGHTNING"]["checkpoint"]["global_step"] == 0
    header = peek(tmp_path / "theirs.pt")
    assert (header.next_epoch, header.best_loss) == (3, 0.625)


def test_what_lis2_does_not_write_is_refused_by_its_name(write_lis2: Write, tmp_path: Path) -> None:
    def strange(content: dict[str, Any]) -> None:
        content["TRAIN_INFO"]["SCHEDULER_STATE"]["rate"] = Decimal("0.1")

    write_lis2(tmp_path / "theirs.pt", change=strange)
    with pytest.raises(
        SnapshotError, match=r"theirs\.pt cannot be read safely: .*'decimal.Decimal'"
    ):
        read_snapshot(tmp_path / "theirs.pt")


def test_an_entry_that_is_missing_is_named(write_lis2: Write, tmp_path: Path) -> None:
    for key in ("EPOCHS_RUN", "BEST_LOSS", "OPTIMIZER_STATE", "SCHEDULER_STATE"):
        path = tmp_path / f"{key}.pt"
        write_lis2(path, change=lambda content, key=key: content["TRAIN_INFO"].pop(key))
        with pytest.raises(SnapshotError, match=rf"{key}\.pt is no snapshot: {key} is missing"):
            read_snapshot(path)


def test_a_file_of_torch_before_its_zip_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"MODEL": {}}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(SnapshotError, match=r"old\.pt is no snapshot: it is no zip file"):
        read_snapshot(path)


def test_lis2_finds_its_entries_once_each_and_in_its_spelling(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    for name in ("best.pt", "last.pt", "save_2.pt"):
        loaded = torch.load(finished[0] / name, weights_only=True)  # noqa: TID251 - as LIS2 does
        (config,), (state,) = values_of(loaded, "MODEL_CONFIG"), values_of(loaded, "MODEL_STATE")
        assert config == {
            "type": "unet", "in_channels": 1, "out_channels": 1, "features": 2, "num_blocks": 1,
            "dim": 2, "encoder_cat_position": "before",
        }  # fmt: skip
        assert list(state) == list(UNet(features=2, num_blocks=1).state_dict())
        assert not any(key.startswith(("model.", "module.", "_orig_mod.")) for key in state)
        assert all(isinstance(value, torch.Tensor) for value in state.values())


NETWORK = UNet(features=2, num_blocks=1)
SPELLINGS: dict[str, Any] = {
    "an object": NETWORK,
    "another name": {"type": "base_unet", "features": 2, "num_blocks": 1, "dimension": 2},
    "a path": {
        "class_path": "lis2_lightning.models.unet.UNet",
        "init_args": {"features": 2, "num_blocks": 1},
    },
}


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_lis2_finds_the_network_however_it_was_given(
    tiny: Make, tmp_path: Path, spelling: str
) -> None:
    Trainer.from_config(tiny(model=SPELLINGS[spelling], epochs=1)).train()
    config = read_snapshot(tmp_path / "runs/tiny/best.pt")["MODEL"]["MODEL_CONFIG"]
    assert config == NETWORK.lis2_config
    assert {"in_channels", "out_channels", "features", "num_blocks", "dim"} <= set(config)
    compiled: Any = torch.compile(NETWORK, backend="eager")
    assert model_config(compiled, {"object": "of torch"}) == config


def test_what_lis2_finds_builds_the_network_again_with_its_encoding(tiny: Make) -> None:
    variables = [VariableEncoding(0, scale=9.0, angle=3.0), VariableEncoding(1, angle=4.0)]
    network = UNet(features=2, num_blocks=3, dim=1, encoder=SinPositionEncoding(variables))
    config = network.lis2_config
    assert config["encoder"]["vars_config"][1] == {
        "index": 1, "expand_dims": 1, "scale": 1.0, "offset": 0.0, "unsqueeze": True, "angle": 4.0
    }  # fmt: skip
    built = Trainer.from_config(tiny(model=config)).model
    assert isinstance(built, UNet)
    assert built.lis2_config == config
