"""One of two processes that train the same small runs with several strategies, one after another.

    RANK=0 WORLD_SIZE=2 … python tests/parallel/pair.py a_folder

Started from outside as torchrun does. Each run leaves its folder, and each process a JSON file with
what came of its runs; the tests compare them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset

from lis2_lightning import Trainer
from lis2_lightning.errors import Lis2Error
from lis2_lightning.parallel.sharded import ShardedStrategy
from lis2_lightning.parallel.sharding import shard
from lis2_lightning.trackers import TensorBoard

RANK: Final = int(os.environ.get("RANK", "0"))
Sample = dict[str, Tensor]
Case = Callable[[str], Any]
COMPILED: Final = ("ddp_plain", "ddp_compiled", "fsdp_compiled")


class Blobs(Dataset[Sample]):
    """So many small patches, the same in every process."""

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        patch = torch.randn(1, 8, 8, generator=generator)
        return {"patch": patch, "target": (patch > 0.5).float()}


class Net(nn.Module):
    """Batch statistics, dropout, a frozen layer, a list of parts and a part of no size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
            for _ in range(2)
        )
        self.drop = nn.Dropout(0.2)
        self.frozen = nn.Conv2d(4, 4, 1).requires_grad_(requires_grad=False)
        self.last = nn.Conv2d(4, 1, 1)  # one output channel: the second process has no part of it

    def forward(self, patch: Tensor) -> Tensor:
        x = self.first(patch)
        for part in self.parts:
            x = part(x)
        return torch.sigmoid(self.last(self.frozen(self.drop(x))))


class UsesWeightsOnly(nn.Module):
    """Never calls its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 8, 1)
        self.last = nn.Conv2d(8, 1, 1)

    def forward(self, patch: Tensor) -> Tensor:
        x = torch.nn.functional.conv2d(patch, self.layer.weight, self.layer.bias)
        return torch.sigmoid(self.last(x))


class KeepsInside(pl.Callback):
    """Keeps the ``last.pt`` that was written inside the second epoch."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        folder = Path(trainer.default_root_dir)
        # after its sixth step, before its seventh
        if trainer.global_step == 7 and trainer.is_global_zero:
            shutil.copyfile(folder / "last.pt", folder / "inside.pt")


class BreaksAWeight(pl.Callback):
    """One process gets a weight that is no number."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        weight = next(pl_module.parameters())
        assert isinstance(weight, DTensor)
        if RANK == 1:
            with torch.no_grad():
                weight.to_local()[0] = float("nan")


class ShardsAsItsAuthorLikes(pl.Callback):
    """Shards the network as a whole, before the strategy could."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        network = cast("nn.Module", pl_module.model)
        if not isinstance(network, FSDPModule):
            fully_shard(network, mesh=init_device_mesh("cpu", (2,)))


def sharded() -> ShardedStrategy:
    """With parts, although the network is small."""
    return ShardedStrategy(min_parameters=20)


def trainer(folder: Path, name: str, lightning: Mapping[str, Any], **changes: Any) -> Trainer:
    """A run of two epochs of four batches in each process."""
    torch.manual_seed(RANK)  # without a seed each process would build other weights
    given = {
        "output_dir": folder,
        "run_name": name,
        "model": Net(),
        "train_dataset": Blobs(16),
        "val_dataset": Blobs(8),
        "optimizer": lambda params: torch.optim.AdamW(params, lr=1e-2),
        "epochs": 2,
        "batch_size": 2,
        "num_workers": 0,
        "seed": 7,
        "save_last": True,
        "save_every_n_steps": 3,
        **changes,
    }
    common = {"accelerator": "cpu", "devices": 2, "enable_progress_bar": False}
    return Trainer(**given, lightning={**common, **lightning})


def cases(folder: Path) -> dict[str, Case]:
    """What is run, in this order: a function of the run's name for each."""

    def train(strategy: Any, lightning: Mapping[str, Any] | None = None, **changes: Any) -> Case:
        def run(name: str) -> Any:
            # a strategy belongs to one trainer
            chosen = {"strategy": strategy if isinstance(strategy, str) else strategy()}
            return trainer(folder, name, {**chosen, **(lightning or {})}, **changes).train()

        return run

    runs: dict[str, Case] = {}
    for name, strategy in (("ddp", "ddp"), ("fsdp", sharded)):
        clipped = {"gradient_clip_val": 0.05, "accumulate_grad_batches": 2}
        runs |= {
            name: train(strategy, {"callbacks": [KeepsInside()]}),
            f"{name}_clipped": train(strategy, clipped, optimizer=torch.optim.SGD),
            f"{name}_mixed": train(strategy, {"precision": "bf16-mixed"}),
            f"{name}_half": train(strategy, {"precision": "bf16-true"}),
            f"{name}_from_one": train(strategy, resume=str(folder / "one/last.pt")),
        }
    inside = {name: str(folder / name / "inside.pt") for name in ("ddp", "fsdp")}
    return runs | {
        "one_epoch": train(sharded, epochs=1),
        "from_epoch": train(sharded, resume=str(folder / "one_epoch/last.pt")),
        "from_inside": train(sharded, resume=inside["fsdp"]),
        "ddp_from_fsdp": train("ddp", resume=inside["fsdp"]),
        "fsdp_from_ddp": train(sharded, resume=inside["ddp"]),
        "by_word": train("fsdp", trackers=[TensorBoard()]),
        "by_author": train(sharded, {"callbacks": [ShardsAsItsAuthorLikes()]}, model=seeded()),
        "from_inside_by_author": train(
            sharded,
            {"callbacks": [ShardsAsItsAuthorLikes()]},
            model=seeded(1),
            resume=inside["fsdp"],
        ),
        "gradients": lambda _: gradients(),
        "all_loops": lambda run: all_loops(trainer(folder, run, {"strategy": sharded()}), folder),
        "broken_weight": train(sharded, {"callbacks": [BreaksAWeight()]}),
        "whole_matrices": train("fsdp", optimizer=torch.optim.Adafactor),
        "synchronised": train("ddp", {"sync_batchnorm": True}),
        "weights_only": train(lambda: ShardedStrategy(5), model=UsesWeightsOnly()),
        # apart: the compiler takes its minute
        "ddp_compiled": train("ddp", compile=True, model=without_dropout()),
        "ddp_plain": train("ddp", model=without_dropout()),
        "fsdp_compiled": train(sharded, compile=True, model=without_dropout()),
    }


def seeded(seed: int = 0) -> Net:
    """With the same weights in every process."""
    torch.manual_seed(seed)
    return Net()


def without_dropout() -> Net:
    """A compiler draws other random numbers."""
    net = seeded()
    net.drop.p = 0.0
    return net


def gradients() -> dict[str, float]:
    """How far gradients of a sharded network are off those of one that is not."""
    network = without_dropout()
    shard(network, init_device_mesh("cpu", (2,)), min_parameters=20)
    trained = [p for p in network.parameters() if p.requires_grad]
    first, second = (torch.stack([Blobs(8)[4 * k + r]["patch"] for k in (0, 1)]) for r in (0, 1))

    def off(found: Sequence[Tensor | None], expected: Sequence[Tensor]) -> float:
        whole = [cast("DTensor", gradient).full_tensor() for gradient in found]
        return max(float((a - b).abs().max()) for a, b in zip(whole, expected, strict=True))

    mine = (first, second)[RANK]
    network(mine).mean().backward()
    for parameter in trained:
        cast("Tensor", parameter.grad).mul_(0.25)
    network(mine).square().sum().backward()
    means, sums = mean_gradients(Tensor.mean), mean_gradients(lambda y: y.square().sum())
    scaled = off([p.grad for p in trained], [a / 4 + b for a, b in zip(means, sums, strict=True)])

    network.zero_grad()
    output = network(mine)
    output.mean().backward(retain_graph=True)
    kept = [p.grad for p in trained]
    for parameter in trained:
        parameter.grad = None
    output.square().sum().backward(retain_graph=True)
    swapped = max(off(kept, means), off([p.grad for p in trained], sums))
    for parameter, gradient in zip(trained, kept, strict=True):
        parameter.grad = gradient
    output.square().sum().backward()
    added = off([p.grad for p in trained], [a + b for a, b in zip(means, sums, strict=True)])
    size = min(float(gradient.abs().max()) for gradient in (*means[-2:], *sums[-2:]))
    return {"scaled": scaled, "swapped": swapped, "added": added, "size": size}


def mean_gradients(loss: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """The mean over both processes' batches of a whole network's gradients."""
    found: list[list[Tensor]] = []
    for r in (0, 1):
        network = without_dropout()
        patch = torch.stack([Blobs(8)[4 * k + r]["patch"] for k in (0, 1)])
        trained = [p for p in network.parameters() if p.requires_grad]
        found.append(list(torch.autograd.grad(loss(network(patch)), trained)))
    return [(a + b) / 2 for a, b in zip(*found, strict=True)]


def all_loops(given: Trainer, folder: Path) -> Any:
    """Every loop of one trainer, in the order that is hardest for it."""
    before = given.validate(None)
    given.train()
    last, best = given.validate(None), given.validate("best")
    maps = given.predict("last")
    if RANK == 0:
        np.save(folder / "maps.npy", np.stack(maps))
    given.fit()  # epochs are done: it trains none
    return {"before": before, "last": last, "best": best, "again": given.test("last")}


def main(folder: Path, wanted: list[str]) -> None:
    """Run every case, and write what came of it."""
    outcomes: dict[str, Any] = {}
    for name, run in cases(folder).items():
        if name not in (wanted or set(cases(folder)) - set(COMPILED)):
            continue
        try:
            outcomes[name] = run(name)
        except Lis2Error as error:
            outcomes[name] = {"error": f"{type(error).__name__}: {error}"}
        text = json.dumps(outcomes, default=str)
        (folder / f"outcomes-{RANK}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
