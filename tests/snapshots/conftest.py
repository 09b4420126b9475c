"""Files to read: whole ones, LIS2's, and whatever somebody may have put together."""

from __future__ import annotations

import io
import logging
import pickle  # noqa: TID251 - what LIS2 writes, and what nobody should
import sys
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from lis2_lightning.models import UNet
from lis2_lightning.snapshots import to_snapshot, write_snapshot
from lis2_lightning.snapshots.outline import Outline, read_outline
from lis2_lightning.snapshots.read import opened

LIS2_CONFIG = {
    "run_name": "theirs",
    "output_dir": Path("runs"),
    "model": {"type": "unet", "features": 2, "num_blocks": 1},
    "optimizer": {"type": "Adam", "lr": 0.01},
    "scheduler": {"type": "MultiStepLR", "milestones": [2, 5], "gamma": 0.5},
    "epoch": 4,
    "batch_size": 4,
    "save_last": True,
    "trackers": {},
    "metrics": [{"type": "dice"}],
}


def equal(left: Any, right: Any) -> bool:
    """Whether nested values are the same: types, keys and their order, bits of tensors."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        alike = left.dtype == right.dtype and left.shape == right.shape
        return alike and left.stride() == right.stride() and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return repr(left) == repr(right)  # so that NaN is NaN and 1 is not 1.0


@pytest.fixture(scope="session")
def same() -> Callable[[Any, Any], bool]:
    """Whether nested values are the same, bit for bit."""
    return equal


def small(next_epoch: int = 1, next_batch: int = 0, **states: Any) -> dict[str, Any]:
    """A small snapshot with every kind of value."""
    weight = torch.arange(12.0).reshape(3, 4)
    checkpoint = {
        "state_dict": {"model.weight": weight, "model.view": weight.T[1:], "loss.k": weight[0]},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []}],
        "lr_schedulers": [{"last_epoch": 3}],
        "loops": {"fit_loop": {}},
        "callbacks": {"Some": {"none": None, "text": "\u00d7", "pair": (1, 2.5), "far": 1 << 40}},
        **states,
    }
    return to_snapshot(
        checkpoint,
        model_config={"type": "unet"},
        global_config={"epochs": 9, "model": {"type": "unet"}},
        best_loss=0.5,
        next_epoch=next_epoch,
        next_batch=next_batch,
    )


@pytest.fixture
def snapshot() -> Callable[..., dict[str, Any]]:
    """Make a small snapshot."""
    return small


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A small snapshot's file."""
    path = tmp_path / "last.pt"
    write_snapshot(small(), path)
    return path


def outline(path: Path) -> Outline:
    """What a file holds, but for its tensors."""
    with opened(path) as file:
        return read_outline(file)


@pytest.fixture(scope="session")
def outlined() -> Callable[[Path], Outline]:
    """Judge all of a file but the bytes of its tensors."""
    return outline


class Archive:
    """A zip file as torch writes them, with what a test wants in it."""

    def __init__(self, program: bytes, storages: Mapping[str, bytes] | None = None) -> None:
        self.entries = {
            "data.pkl": program,
            "version": b"3\n",
            "byteorder": sys.byteorder.encode(),
            **{f"data/{key}": content for key, content in (storages or {}).items()},
        }

    def write(self, path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
        """Write the file."""
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in self.entries.items():
                archive.writestr(name if name.startswith(("/", "..")) else f"a/{name}", content)
        return path


@pytest.fixture(scope="session")
def archive() -> type[Archive]:
    """Make a zip file as torch writes them."""
    return Archive


class Described:
    """Stands for a tensor in a pickle that is written by hand."""

    def __init__(self, key: str, length: int, size: Any, stride: Any) -> None:
        self.arguments = key, length, size, stride

    def __reduce__(self) -> Any:
        _, _, size, stride = self.arguments
        arguments = Stored(*self.arguments[:2]), 0, size, stride, False, NoHooks()
        return torch._utils._rebuild_tensor_v2, arguments


class Stored:
    """Stands for a storage."""

    def __init__(self, key: str, length: int) -> None:
        self.arguments = key, length


class NoHooks(dict[Any, Any]):
    """Stands for the empty mapping of a tensor's hooks."""

    def __reduce__(self) -> Any:
        from collections import OrderedDict

        return OrderedDict, ()


class Pickler(pickle.Pickler):
    """Writes what torch's would write."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Stored):
            key, length = value.arguments
            return "storage", torch.FloatStorage, key, "cpu", length
        return None


@pytest.fixture(scope="session")
def pickled() -> Callable[[Any], bytes]:
    """Pickle a value as torch does."""

    def make(value: Any) -> bytes:
        file = io.BytesIO()
        Pickler(file, 2).dump(value)
        return file.getvalue()

    return make


@contextmanager
def configurable() -> Iterator[types.ModuleType]:
    """The package that LIS2 keeps its configuration with, for as long as a file is written."""
    module = types.ModuleType("configurable")

    class GlobalConfig:
        def __init__(self, config: Mapping[str, Any]) -> None:
            self.config = dict(config)

    GlobalConfig.__module__, GlobalConfig.__qualname__ = "configurable", "GlobalConfig"
    vars(module)["GlobalConfig"] = GlobalConfig
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "configurable", module)
        yield module


class LoadedScheduler(torch.optim.lr_scheduler.MultiStepLR):
    """A scheduler on which hangs what hangs on LIS2's."""

    def __init__(self, optimizer: Any, config: Mapping[str, Any], made: Any) -> None:
        self.logger = logging.getLogger("lis2.scheduler")
        self.global_config = made
        self.config = {"type": "MultiStepLR", "log_dir": Path("runs") / "logs"}
        self.output_dir = Path("/data/runs")
        self.name = "MultiStepLR"
        super().__init__(optimizer, config["milestones"], config["gamma"])


def lis2(
    path: Path,
    *,
    epochs_run: int = 2,
    prefix: str = "",
    optimizer: str = "Adam",
    change: Callable[[dict[str, Any]], None] | None = None,
    **config: Any,
) -> dict[str, Any]:
    """Write what LIS2 writes after some epochs; gives the weights and the rate they end with."""
    whole = {**deepcopy(LIS2_CONFIG), **config}
    torch.manual_seed(5)
    network = UNet(features=2, num_blocks=1)
    steps = getattr(torch.optim, optimizer)(network.parameters(), lr=0.01)
    with configurable() as module:
        scheduler = LoadedScheduler(steps, whole["scheduler"], module.GlobalConfig(whole))
        for _ in range(epochs_run + 1):
            for _ in range(4):
                for parameter in network.parameters():
                    parameter.grad = torch.randn_like(parameter)
                steps.step()
            scheduler.step()
        state = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
        content = {
            "MODEL": {
                "MODEL_CONFIG": whole["model"],
                "MODEL_STATE": type(network.state_dict())(state),
            },
            "TRAIN_INFO": {
                "EPOCHS_RUN": epochs_run,
                "BEST_LOSS": torch.tensor(0.625),
                "OPTIMIZER_STATE": steps.state_dict(),
                "SCHEDULER_STATE": scheduler.state_dict(),
            },
            "GLOBAL_CONFIG": whole,
        }
        if change is not None:
            change(content)
        torch.save(content, path)
    return {"weights": network.state_dict(), "lr": steps.param_groups[0]["lr"]}


@pytest.fixture(scope="session")
def write_lis2() -> Callable[..., dict[str, Any]]:
    """Write a snapshot as LIS2 does."""
    return lis2
