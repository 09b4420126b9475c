"""The network as Lightning trains it: what it is called with, and what a batch adds up to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset

from lis2_lightning import ConfigError, DataError, SegmentationModule, Trainer, UNet
from lis2_lightning.metrics import Dice
from lis2_lightning.metrics.collection import default_metrics

Make = Callable[..., dict[str, Any]]
PATCH = torch.linspace(0, 1, 2 * 64).reshape(2, 1, 8, 8)
BATCH = {"patch": PATCH, "target": (PATCH > 0.6).float(), "positions": torch.ones(2, 2, 2, 1)}


class Named(nn.Module):
    """Names what it wants of a batch."""

    def forward(self, positions: Tensor, patch: Tensor) -> Tensor:
        return patch * positions.mean()


class Everything(nn.Module):
    """Takes a whole batch."""

    def forward(self, **batch: Tensor) -> Tensor:
        assert set(batch) == set(BATCH)
        return batch["patch"]


class BaseOfLis2(nn.Module):
    """Hands on whatever it gets, as LIS2's base model does."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        assert not args
        return self.preprocess(**kwargs)

    def preprocess(self, patch: Tensor, positions: Tensor | None = None, **others: Any) -> Tensor:
        assert positions is not None
        assert set(others) == {"target"}
        return patch


class Optional(nn.Module):
    """Names something that this batch has not."""

    def forward(self, patch: Tensor, weather: Tensor | None = None) -> Tensor:
        assert weather is None
        return patch


class Other(nn.Module):
    """Calls its input as it likes, and takes further arguments."""

    def forward(self, x: Tensor, scale: float = 1.0, **kwargs: Any) -> Tensor:
        assert not kwargs
        return x * scale


def module(network: nn.Module, loss: nn.Module | None = None, **changes: Any) -> SegmentationModule:
    """The Lightning module around a network."""
    options: dict[str, Any] = {"optimizer": partial(torch.optim.SGD, lr=0.1), **changes}
    return SegmentationModule(network, loss=loss or nn.BCELoss(), **options)


@pytest.mark.parametrize(
    "network",
    [
        *(Named(), Everything(), BaseOfLis2(), Optional(), Other(), nn.Identity()),
        *(
            nn.Sequential(nn.Hardtanh(0, 1)),
            AveragedModel(nn.Identity()),
            AveragedModel(Everything()),
        ),
    ],
    ids=lambda network: type(network).__name__,
)
def test_a_network_is_called_with_what_its_forward_names(network: nn.Module) -> None:
    assert torch.equal(module(network)(BATCH), PATCH)


def test_a_network_that_gives_no_tensor_is_named() -> None:
    class Two(nn.Module):
        def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
            return patch, patch

    with pytest.raises(DataError, match="Two returns a tuple"):
        module(Two())(BATCH)


def test_logits_become_probabilities_and_probabilities_stay() -> None:
    logits = torch.tensor([-2.0, 0.0, 2.0])
    expected = torch.tensor([0.1192029, 0.5, 0.8807971])
    assert torch.allclose(
        module(nn.Identity(), nn.BCEWithLogitsLoss()).probabilities(logits), expected
    )
    assert torch.equal(module(nn.Identity()).probabilities(expected), expected)


def test_a_step_without_labelled_pixels_is_a_zero_with_a_gradient() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid())
    nothing = torch.zeros_like(PATCH, dtype=torch.bool)
    loss = module(network).training_step({**BATCH, "labelled": nothing}, 0)
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and bool((p.grad == 0).all()) for p in network.parameters())


def test_only_parameters_that_ask_for_it_are_trained() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    network[0].requires_grad_(requires_grad=False)
    optimizer = module(network).configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [
        id(p) for p in network[1].parameters()
    ]


def test_a_text_is_set_at_once_and_a_part_stays_registered() -> None:
    made = module(nn.Identity())
    made.note = "first"
    made.note = "second"
    made.part = nn.Linear(1, 1)
    assert made.note == "second"
    assert "part.weight" in made.state_dict()
    made.part = None
    assert "part.weight" not in made.state_dict()
    assert made.part is None


def test_the_metrics_of_the_splits_are_apart() -> None:
    tested = module(nn.Identity(), metrics=[Dice()])
    tested.test_step(BATCH, 0)
    assert float(tested.test_scores.compute()["dice"]) > 0.8
    assert int(tested.test_scores.loss.sums[0]) == PATCH.numel()
    assert int(tested.val_scores.loss.sums[0]) == int(tested.train_scores.loss.sums[0]) == 0


class Squares(Dataset[dict[str, Tensor]]):
    """Bright squares on a dark ground, with positions: learnt in a few steps."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        target = torch.zeros(1, 16, 16)
        target[:, index : index + 6, 4:12] = 1
        patch = 0.2 + 0.6 * target
        return {"patch": patch, "target": target, "positions": torch.ones(2, 2, 1) * index}


def trained(
    folder: Path, network: nn.Sequential, loss: nn.Module, **changes: Any
) -> dict[str, Any]:
    """Train on squares."""
    for p in network.parameters():
        nn.init.constant_(p, 0.1)
    options: dict[str, Any] = {
        "model": network,
        "loss": loss,
        "train_dataset": Squares(),
        "optimizer": partial(torch.optim.Adam, lr=0.2),
        "epochs": 25,
        "batch_size": 4,
        "num_workers": 0,
        "lightning": {"enable_progress_bar": False, "accelerator": "cpu"},
    }
    return Trainer(folder, "squares", **{**options, **changes}).train()


@pytest.mark.usefixtures("no_pictures")
def test_logits_give_a_sensible_dice(tmp_path: Path) -> None:
    info = trained(tmp_path, nn.Sequential(nn.Conv2d(1, 1, 1)), nn.BCEWithLogitsLoss())
    assert info["metrics_train"]["dice"] > 0.95
    assert info["metrics_train"]["roc_auc"] > 0.99


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_learn_as_well(tmp_path: Path, precision: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid())
    quiet = {"enable_progress_bar": False, "accelerator": "cpu", "precision": precision}
    info = trained(tmp_path, network, nn.BCELoss(), lightning=quiet)
    assert info["metrics_train"]["dice"] > 0.95


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's own
def test_a_compiled_network_has_the_same_names(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid())
    with torch.compiler.set_stance("force_eager"):
        info = trained(tmp_path, network, nn.BCELoss(), compile=True, epochs=1)
    stored = torch.load(info["final_model_path"], weights_only=True)  # noqa: TID251 - as LIS2 does
    assert list(stored["MODEL"]["MODEL_STATE"]) == ["0.weight", "0.bias"]


MONAI: dict[str, dict[str, Any]] = {
    "UNet": {"spatial_dims": 2, "channels": [4, 8], "strides": [2]},
    "SegResNet": {"spatial_dims": 2, "init_filters": 8},
}


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", MONAI)
def test_a_network_of_monai_trains_by_its_import_path(
    tiny: Make, tmp_path: Path, read_log: Callable[[Path], list[dict[str, float]]], name: str
) -> None:
    channels = {"in_channels": 1, "out_channels": 1}
    model = {"class_path": f"monai.networks.nets.{name}", "init_args": {**channels, **MONAI[name]}}
    optimizer = {"type": "Adam", "lr": 0.01}
    options = tiny(model=model, loss={"type": "BCEWithLogitsLoss"}, optimizer=optimizer, epochs=3)
    trainer = Trainer.from_config(options)
    trainer.train()
    assert type(trainer.model).__name__ == name
    rows = read_log(tmp_path / "runs/tiny/logs_train.csv")
    assert rows[2]["train_loss"] < rows[1]["train_loss"] < rows[0]["train_loss"]
    again = Trainer.from_snapshot(tmp_path / "runs/tiny/best.pt", epochs=4)
    assert again.train()["epochs_run"] == 4


@pytest.mark.usefixtures("no_pictures")
def test_a_scheduler_that_ends_in_the_middle_is_one_sentence(tmp_path: Path) -> None:
    class Ends(torch.optim.lr_scheduler.StepLR):
        def step(self, epoch: int | None = None) -> None:
            if self.last_epoch == 2:
                raise ValueError("Tried to step 3 times")
            super().step(epoch)

    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid())
    with pytest.raises(ConfigError, match=r"^the scheduler cannot go on: Tried to step 3 times$"):
        trained(tmp_path, network, nn.BCELoss(), scheduler=partial(Ends, step_size=1), epochs=9)


def test_logits_pass_a_sigmoid_and_other_outputs_are_cut_to_probabilities() -> None:
    output = torch.tensor([-2.0, 0.25, 3.0, float("nan")])
    for loss, expected in (
        (nn.BCEWithLogitsLoss(), output.sigmoid()),
        (nn.BCELoss(), torch.tensor([0.0, 0.25, 1.0, float("nan")])),
        (nn.MSELoss(), torch.tensor([0.0, 0.25, 1.0, float("nan")])),
    ):
        probabilities = module(Other(), loss).probabilities(output)
        assert torch.equal(probabilities.nan_to_num(9), expected.nan_to_num(9))


class Reads(TorchDispatchMode):
    """Counts the values that are read back from the device: a GPU would be waited for."""

    num = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.num += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_step_reads_no_value_back_from_the_device() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Sigmoid())
    own = module(network, metrics=default_metrics())
    own._trainer = cast("pl.Trainer", SimpleNamespace(accumulate_grad_batches=1))
    batch = {**BATCH, "labelled": torch.ones_like(PATCH, dtype=torch.bool)}
    with Reads() as reads:
        for number in range(3):
            own.backward(own.training_step(batch, number))
            own.validation_step(batch, number)
        assert reads.num == 0
        float(batch["target"].sum())  # as this would be noticed
    assert reads.num == 1


def test_weights_in_channels_last_train_to_the_same_numbers() -> None:
    losses = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        network = UNet(in_channels=1, out_channels=1, features=2, num_blocks=1)
        own = module(network, channels_last=channels_last)
        weights = [p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1]
        assert all(
            p.is_contiguous(memory_format=torch.channels_last) == channels_last
            for p in weights
            if p.shape[2] > 1
        )
        losses.append(own.loss(own(BATCH), BATCH["target"])[1].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
