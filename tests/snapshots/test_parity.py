"""Runs go on from LIS2's snapshots, and LIS2 from ours, with the losses that LIS2 would have.

LIS2 is a slow and obvious loop here, with a network that registers its parts in LIS2's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import Dataset

from lis2_lightning import SnapshotError, Trainer
from lis2_lightning.models import LinPositionEncoding, UNet, VariableEncoding
from lis2_lightning.snapshots import read_snapshot, write_snapshot
from lis2_lightning.snapshots.compare import differences

Batches = list[dict[str, Tensor]]
Opened = dict[str, Any]
pytestmark = pytest.mark.usefixtures("no_pictures")


class Theirs(nn.Module):
    """LIS2's U-Net with two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders, self.pools = nn.ModuleList(), nn.ModuleList([nn.MaxPool2d(2)] * 2)
        self.decoders, self.upconvs = nn.ModuleList(), nn.ModuleList()
        self.encoders.extend([block(1, 3), block(3, 6)])
        self.bottleneck = block(6, 12)
        for channels in (6, 3):
            self.upconvs.append(nn.ConvTranspose2d(2 * channels, channels, 2, 2))
            self.decoders.append(block(2 * channels, channels))
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, patch: Tensor, **_: Tensor) -> Tensor:
        first = self.encoders[0](patch)
        second = self.encoders[1](self.pools[0](first))
        lowest = self.bottleneck(self.pools[1](second))
        up = self.decoders[0](torch.cat((self.upconvs[0](lowest), second), dim=1))
        up = self.decoders[1](torch.cat((self.upconvs[1](up), first), dim=1))
        probabilities: Tensor = self.conv(up).sigmoid()
        return probabilities


def block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class Lis2:
    """LIS2's training: a network, its optimizer and a scheduler that steps after each epoch."""

    def __init__(self, network: nn.Module, kind: str, lr: float, step_size: int = 2) -> None:
        self.network = network
        self.optimizer = getattr(torch.optim, kind)(network.parameters(), lr=lr)
        self.scheduler = StepLR(self.optimizer, step_size, gamma=0.5)

    def train(self, batches: Batches) -> float:
        """One epoch; the mean of the batches' losses, weighted by their labelled pixels."""
        self.network.train()
        total = count = 0.0
        for batch in batches:
            loss = self.loss(batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item() * int(batch["labelled"].sum())
            count += int(batch["labelled"].sum())
        self.scheduler.step()
        return total / count

    @torch.no_grad()
    def validate(self, batches: Batches) -> float:
        """The mean of the batches' losses."""
        self.network.eval()
        return sum(self.loss(batch).item() for batch in batches) / len(batches)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        counts = batch["labelled"] == 1
        output = self.network(**batch)[counts]
        return nn.functional.binary_cross_entropy(output, batch["target"][counts])

    def write(self, path: Path, epoch: int, config: dict[str, Any] | None = None) -> None:
        content = {
            "MODEL": {"MODEL_CONFIG": {"type": "unet"}, "MODEL_STATE": self.network.state_dict()},
            "TRAIN_INFO": {
                "EPOCHS_RUN": epoch,
                "BEST_LOSS": torch.tensor(0.7),
                "OPTIMIZER_STATE": self.optimizer.state_dict(),
                "SCHEDULER_STATE": self.scheduler.state_dict(),
            },
            "GLOBAL_CONFIG": config or {"optimizer": {"type": type(self.optimizer).__name__}},
        }
        torch.save(content, path)

    def read(self, path: Path) -> None:
        content = torch.load(path, weights_only=True)  # noqa: TID251 - as LIS2 does
        info = content["TRAIN_INFO"]
        self.network.load_state_dict(content["MODEL"]["MODEL_STATE"])
        self.optimizer.load_state_dict(info["OPTIMIZER_STATE"])
        self.scheduler.load_state_dict(info["SCHEDULER_STATE"])


class Patches(Dataset[dict[str, Tensor]]):
    """Patches with some pixels labelled."""

    def __init__(self, seed: int, *, labelled: float = 1.0) -> None:
        random = torch.Generator().manual_seed(seed)
        images = torch.rand(16, 1, 16, 16, generator=random)
        self.samples = [
            {
                "patch": image,
                "target": (image > 0.6).float(),
                "labelled": torch.rand(image.shape, generator=random) < labelled,
                "positions": torch.tensor([[0.0, 16.0], [0.0, 16.0]]),
            }
            for image in images
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.samples[index]


class Recorder(pl.Callback):
    """Keeps the batches of every epoch, so that LIS2 can be given the same ones."""

    def __init__(self) -> None:
        self.epochs: dict[int, Batches] = {}

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.epochs.setdefault(trainer.current_epoch, []).append(dict(batch))


@pytest.fixture
def ours(tmp_path: Path) -> Callable[..., tuple[Trainer, Recorder]]:
    """Make a trainer of the same network, and a record of what it trains on."""

    def make(network: nn.Module, kind: str, lr: float, **keys: Any) -> tuple[Trainer, Recorder]:
        recorder = Recorder()
        settings: dict[str, Any] = {
            "run_name": "ours",
            "epochs": 6,
            "save_last": True,
            "optimizer": partial(getattr(torch.optim, kind), lr=lr),
            **keys,
        }
        trainer = Trainer(
            output_dir=tmp_path,
            model=network,
            train_dataset=Patches(1, labelled=0.7),
            val_dataset=Patches(2),
            scheduler=partial(StepLR, step_size=2, gamma=0.5),
            batch_size=4,
            num_workers=0,
            seed=3,
            metrics=[],
            lightning={
                "accelerator": "cpu", "enable_progress_bar": False, "callbacks": [recorder]
            },
            **settings,
        )  # fmt: skip
        return trainer, recorder

    return make


@pytest.fixture
def rows(
    tmp_path: Path, read_log: Callable[[Path], list[dict[str, float]]]
) -> Callable[[str], Any]:
    """The losses of a run's epochs."""
    return lambda name: read_log(tmp_path / name / "logs_train.csv")


def network() -> UNet:
    return UNet(features=3, num_blocks=2)


def alike() -> tuple[Theirs, UNet]:
    """LIS2's network and ours with the same weights."""
    torch.manual_seed(0)
    theirs, own = Theirs(), network()
    own.load_state_dict(theirs.state_dict())
    return theirs, own


def batches(dataset: Patches) -> Batches:
    parts = [dataset.samples[i : i + 4] for i in range(0, len(dataset), 4)]
    return [{key: torch.stack([s[key] for s in part]) for key in part[0]} for part in parts]


def test_the_parts_have_lis2s_order_and_a_seed_gives_its_weights() -> None:
    torch.manual_seed(5)
    theirs = Theirs().state_dict()
    torch.manual_seed(5)
    own = network().state_dict()
    assert list(own) == list(theirs)
    assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_six_epochs_have_lis2s_losses(ours: Any, rows: Any) -> None:
    theirs, own = alike()
    trainer, recorder = ours(own, "SGD", 0.05)
    trainer.train()
    lis2, val = Lis2(theirs, "SGD", 0.05), batches(Patches(2))
    for epoch, row in enumerate(rows("ours")):
        assert row["train_loss"] == pytest.approx(lis2.train(recorder.epochs[epoch]), abs=1e-6)
        assert row["val_loss"] == pytest.approx(lis2.validate(val), abs=1e-6)
    assert epoch == 5


def test_a_run_of_lis2_goes_on_with_lis2s_next_losses(ours: Any, rows: Any, tmp_path: Path) -> None:
    lis2 = Lis2(Theirs(), "Adam", 0.01)
    for _ in range(3):
        lis2.train(batches(Patches(1, labelled=0.7)))
    lis2.write(tmp_path / "theirs.pt", epoch=2)
    trainer, recorder = ours(network(), "Adam", 0.01, resume=str(tmp_path / "theirs.pt"))
    trainer.train()
    assert list(recorder.epochs) == [3, 4, 5]
    for row, seen in zip(rows("ours"), recorder.epochs.values(), strict=True):
        assert row["lr"] == lis2.optimizer.param_groups[0]["lr"]
        assert row["train_loss"] == pytest.approx(lis2.train(seen), abs=1e-7)


def test_lis2_goes_on_with_a_run_of_ours(ours: Any, rows: Any, tmp_path: Path) -> None:
    trainer, _ = ours(network(), "Adam", 0.01, epochs=3)
    trainer.train()
    lis2 = Lis2(Theirs(), "Adam", 0.01)
    lis2.read(tmp_path / "ours" / "last.pt")
    trainer, recorder = ours(network(), "Adam", 0.01, resume="auto")
    trainer.train()
    for row, seen in zip(rows("ours")[3:], recorder.epochs.values(), strict=True):
        assert row["train_loss"] == pytest.approx(lis2.train(seen), abs=1e-7)


def earlier(own: UNet) -> UNet:
    """The network with its parts in the order that our first snapshots have."""
    for name in ("bottleneck", "upconvs", "decoders", "conv"):
        part = own.get_submodule(name)
        delattr(own, name)
        own.add_module(name, part)
    return own


def in_groups(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Weight decay for biases alone."""
    every = list(parameters)
    biases, others = ([p for p in every if (p.ndim == 1) is flat] for flat in (True, False))
    decay: dict[str, Any] = {"params": biases, "weight_decay": 0.1}
    return torch.optim.Adam([{"params": others, "name": "weights"}, decay])


@pytest.mark.parametrize(
    "keys", [{}, {"optimizer": torch.optim.Adafactor}, {"optimizer": in_groups}]
)
def test_an_earlier_snapshot_of_ours_goes_on_bit_for_bit(
    ours: Any, tmp_path: Path, keys: dict[str, Any]
) -> None:
    _, own = alike()
    ours(earlier(own), "Adam", 0.01, epochs=3, **keys)[0].train()
    order = list(read_snapshot(tmp_path / "ours" / "last.pt")["MODEL"]["MODEL_STATE"])
    assert order.index("bottleneck.0.weight") < order.index("upconvs.0.weight")
    ours(network(), "Adam", 0.01, resume="auto", **keys)[0].train()
    _, whole = alike()
    ours(whole, "Adam", 0.01, run_name="whole", **keys)[0].train()
    resumed, expected = (read_snapshot(tmp_path / name / "last.pt") for name in ("ours", "whole"))
    for part in ("MODEL", "TRAIN_INFO"):
        assert differences(resumed[part], expected[part]) == []


def change(path: Path, edit: Callable[[Opened], None]) -> str:
    content = read_snapshot(path)
    edit(content["TRAIN_INFO"]["OPTIMIZER_STATE"])
    write_snapshot(content, path.with_name("changed.pt"))
    return str(path.with_name("changed.pt"))


def swap(state: Opened) -> None:
    state["state"][0], state["state"][1] = state["state"][1], state["state"][0]


MISFITS: dict[str, tuple[Callable[[Opened], Any], str]] = {
    "shapes": (
        swap,
        r"does not fit the network: exp_avg of encoders\.0\.0\.weight is 3, and the parameter is "
        r"3 x 1 x 3 x 3: use the network that it was written with, or set weights to the snapshot",
    ),
    "fewer": (
        lambda state: state["param_groups"][0]["params"].pop(),
        r"the snapshot's optimizer has 45 parameters, this run's has 46: train the same ones",
    ),
    "another kind": (
        lambda state: state["param_groups"][0].pop("betas"),
        r"the snapshot's optimizer state is not that of Adam, it has no betas",
    ),
    "no state": (
        lambda state: state.pop("state"),
        r"cannot be used \(KeyError: 'state'\): set weights",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_state_that_does_not_fit_is_one_sentence(ours: Any, tmp_path: Path, name: str) -> None:
    ours(network(), "Adam", 0.01, epochs=1)[0].train()
    edit, sentence = MISFITS[name]
    path = change(tmp_path / "ours" / "last.pt", edit)
    trainer, _ = ours(network(), "Adam", 0.01, run_name="next", resume=path)
    with pytest.raises(SnapshotError, match=sentence):
        trainer.train()


def test_a_position_encoding_widens_a_weight_beyond_lis2s_state(ours: Any, tmp_path: Path) -> None:
    lis2 = Lis2(Theirs(), "Adam", 0.01)
    lis2.train(batches(Patches(1)))
    lis2.write(tmp_path / "theirs.pt", epoch=0)
    encoder = LinPositionEncoding([VariableEncoding(index=0)])
    model = UNet(features=3, num_blocks=2, encoder=encoder, encoder_cat_position="after")
    trainer, _ = ours(model, "Adam", 0.01, resume=str(tmp_path / "theirs.pt"))
    with pytest.raises(SnapshotError, match=r"exp_avg of conv\.weight is 1 x 3 x 1 x 1"):
        trainer.train()


class Homemade(torch.optim.Adam):
    """An optimizer that LIS2 knows by its name, and we do not."""


class HomemadeRate(StepLR):
    """A scheduler of that kind."""


def config_of_a_user(tmp_path: Path) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path),
        "run_name": "theirs",
        "model": {"type": "TheirNetwork", "depth": 4},
        "train_dataset": {"type": "TheirDataset", "folder": "/data"},
        "val_dataset": {"type": "TheirDataset", "folder": "/data"},
        "optimizer": {"type": "Homemade", "lr": 0.01},
        "scheduler": {"type": "HomemadeRate", "step_size": 2, "gamma": 0.5},
        "epoch": 3,
        "batch_size": 4,
    }


def test_a_file_that_names_unknown_classes_goes_on_with_the_objects(
    rows: Any, tmp_path: Path
) -> None:
    lis2, recorder = Lis2(Theirs(), "Adam", 0.01), Recorder()
    lis2.train(batches(Patches(1)))
    lis2.write(tmp_path / "theirs.pt", epoch=0, config=config_of_a_user(tmp_path))
    Trainer.from_snapshot(
        tmp_path / "theirs.pt",
        model=network(),
        train_dataset=Patches(1),
        val_dataset=Patches(2),
        optimizer=partial(Homemade, lr=0.01),
        scheduler=partial(HomemadeRate, step_size=2, gamma=0.5),
        lightning={"enable_progress_bar": False, "callbacks": [recorder]},
        num_workers=0,
    ).train()
    for row, seen in zip(rows("theirs"), recorder.epochs.values(), strict=True):
        assert row["train_loss"] == pytest.approx(lis2.train(seen), abs=1e-7)
    assert list(recorder.epochs) == [1, 2]


def test_a_file_that_names_unknown_classes_can_be_measured(ours: Any, tmp_path: Path) -> None:
    lis2 = Lis2(Theirs(), "Adam", 0.01)
    lis2.train(batches(Patches(1)))
    lis2.write(tmp_path / "theirs.pt", epoch=0, config=config_of_a_user(tmp_path))
    trainer, _ = ours(network(), "SGD", 0.05)
    loss = trainer.validate(tmp_path / "theirs.pt")["val_loss"]
    assert loss == pytest.approx(lis2.validate(batches(Patches(2))), abs=1e-6)
