"""What a run leaves behind in the program that calls it, and what surrounds it."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lis2_lightning import ConfigError, Trainer, TrainingError
from lis2_lightning.snapshots import read_snapshot

Make = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.usefixtures("no_pictures")


def draws() -> list[float]:
    """The next numbers of the program's generators."""
    numbers = [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: S311, NPY002
    return [float(number) for number in numbers]


def seed() -> None:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the program's own
    torch.manual_seed(5)


@pytest.mark.parametrize("run_seed", [1, None])
def test_a_run_leaves_the_programs_generators_and_environment_alone(
    tiny: Make, monkeypatch: pytest.MonkeyPatch, run_seed: int | None
) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "77")
    seed()
    expected, environment = draws(), dict(os.environ)
    seed()

    trainer = Trainer.from_config(tiny(seed=run_seed))
    if run_seed is not None:  # without a seed, the weights are drawn from the program's generator
        assert draws() == expected
        seed()
    state = torch.get_rng_state()
    for use in (trainer.train, trainer.validate, trainer.test):
        use()
        assert torch.equal(torch.get_rng_state(), state)
    trainer.predict(overwrite=True)

    if run_seed is not None:
        assert draws() == expected
    assert dict(os.environ) == environment


class Killing(Dataset[dict[str, Tensor]]):
    """While a file is there, a worker fails, or the kernel ends it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if torch.utils.data.get_worker_info() is not None and self.mark.exists():
            if self.mark.read_text(encoding="utf-8"):
                raise RuntimeError(self.mark.read_text(encoding="utf-8"))
            os.kill(os.getpid(), signal.SIGKILL)
        return {"patch": torch.full((1, 8, 8), 0.1 * index), "target": torch.ones(1, 8, 8)}


def test_a_killed_worker_is_one_sentence_about_memory_and_the_run_can_be_resumed(
    tmp_path: Path,
) -> None:
    def trainer(epochs: int) -> Trainer:
        return Trainer(
            tmp_path,
            model=nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid()),
            train_dataset=Killing(tmp_path / "mark"),
            batch_size=2,
            num_workers=1,
            epochs=epochs,
            save_last=True,
            resume="auto",
            seed=1,
            lightning={"accelerator": "cpu", "enable_progress_bar": False},
        )

    trainer(1).train()
    (tmp_path / "mark").touch()
    with pytest.raises(
        TrainingError, match=r"^a process that loads data was killed.*memory.*lower num_workers"
    ):
        trainer(2).train()
    assert read_snapshot(tmp_path / "run" / "last.pt")["LIGHTNING"]["next_epoch"] == 1
    (tmp_path / "mark").write_text("a fault of the data set's own", encoding="utf-8")
    with pytest.raises(RuntimeError, match="a fault of the data set's own"):
        trainer(2).train()
    (tmp_path / "mark").unlink()

    assert trainer(2).train()["epochs_run"] == 2


def test_a_damaged_log_is_refused_before_an_epoch_is_trained_and_loses_nothing(
    tiny: Make, tmp_path: Path
) -> None:
    config = tiny(save_last=True, resume="auto", epochs=1)
    Trainer.from_config(config).train()
    folder = tmp_path / "runs" / "tiny"
    log, last = folder / "logs_train.csv", (folder / "last.pt").read_bytes()
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"\n0,", b"\nfirst,"))

    with pytest.raises(ConfigError, match=r"logs_train.csv is no log of a run, or is damaged"):
        Trainer.from_config(config, epochs=2).train()

    assert (folder / "last.pt").read_bytes() == last
    log.write_bytes(b"\xef\xbb\xbf" + whole.replace(b",", b";")[:-1])  # as a spreadsheet does it
    Trainer.from_config(config, epochs=2).train()
    assert log.read_bytes().startswith(whole)
    assert log.read_bytes().count(b"\n") == 3
