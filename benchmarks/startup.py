"""Start-up: imports, and ``lis2 fit`` up to the first step, beside Lightning alone.

Each round starts a process for each side, in turns. The script for Lightning alone imports what a
user of it imports, draws the same image, cuts the same tiles, and trains the same network.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rows

IMPORTS = {
    "from lis2_lightning import Trainer": "from lis2_lightning import Trainer",
    "import lightning.pytorch": "import lightning.pytorch",
}
FIT = """
import sys
from lis2_lightning.__main__ import main
words = ["--config", "configs/quickstart.yaml", "--output_dir", sys.argv[1]]
sys.exit(main(["fit", *words, "--lightning.callbacks", "[{type: first_step.Stop}]"]))
"""
BARE = """
import sys
import lightning.pytorch as pl
import torch
from first_step import Stop
from torch.nn import functional
from torch.utils.data import DataLoader
from lis2_lightning.data.synthetic import SyntheticDataset
from lis2_lightning.models.unet import UNet
class Plain(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = UNet(in_channels=1, out_channels=1, features=8, num_blocks=3)
    def training_step(self, batch):
        labelled = batch["labelled"].float()
        output = self.model(batch["patch"])
        loss = functional.binary_cross_entropy(output, batch["target"], labelled)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss
    validation_step = training_step
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)
cut = dict(height=768, width=768, seed=101, size=32, stride=16, num_folds=5)
train = DataLoader(SyntheticDataset(**cut, folds=[0, 1, 2]), batch_size=32, shuffle=True)
val = DataLoader(SyntheticDataset(**cut, folds=[3]), batch_size=32)
trainer = pl.Trainer(
    max_epochs=12, default_root_dir=sys.argv[1], num_sanity_val_steps=0, callbacks=[Stop()]
)
trainer.fit(Plain(), train, val)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}  # first_step is there
TO_FIRST_STEP = {"lis2 fit": FIT, "a script for Lightning": BARE}


def seconds(code: str) -> float:
    """How long a process takes to run some code."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        words = [sys.executable, "-c", code, folder]
        subprocess.run(words, check=True, capture_output=True, env=ENVIRONMENT)
        return time.perf_counter() - begun


def compare(what: str, sides: dict[str, str], rounds: int, wanted: float) -> rows.Row:
    """Run both sides in turns, and print their medians."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for counted in range(-1, rounds):
        for name, code in sides.items():
            duration = seconds(code)
            if counted >= 0:  # the first round fills the caches
                taken[name].append(duration)
    for name, durations in taken.items():
        print(f"{name:<40}{statistics.median(durations):6.2f} s")
    (_, ours), (peer, theirs) = taken.items()
    return rows.Row.of(what, ours, peer, theirs, unit="s", wanted=wanted)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="counted starts of each side")
    options = parser.parse_args()
    rows.add(
        compare("import of the package", IMPORTS, options.rounds, 1.02),
        compare("`lis2 fit` to the first step", TO_FIRST_STEP, options.rounds, 1.05),
    )


if __name__ == "__main__":
    main()
