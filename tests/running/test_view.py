"""What a trainer shows of itself can be read, and not assigned to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lis2_lightning import ConfigError, Trainer

Make = Callable[..., dict[str, Any]]


def test_what_a_trainer_was_built_with_can_be_read(tiny: Make, tmp_path: Path) -> None:
    trainer = Trainer.from_config(tiny(test_dataset=None))
    assert trainer.output_dir == str(tmp_path / "runs")
    assert (trainer.run_name, trainer.epochs, trainer.batch_size) == ("tiny", 2, 4)
    assert trainer.device == torch.device("cpu")
    assert trainer.train_dataset is trainer.data.train
    assert trainer.val_dataset is trainer.data.val
    assert trainer.test_dataset is None


@pytest.mark.parametrize("name", ["epochs", "run_name", "train_dataset", "model", "best_loss"])
def test_an_assignment_that_would_have_no_effect_is_refused(tiny: Make, name: str) -> None:
    trainer = Trainer.from_config(tiny())
    before = getattr(trainer, name)
    with pytest.raises(ConfigError, match=rf"assigning to {name} of a trainer has no effect.*from"):
        setattr(trainer, name, 5)
    assert getattr(trainer, name) == before


def test_a_change_of_folder_after_the_trainer_is_built_changes_nothing(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = Trainer.from_config(tiny(output_dir="here", lightning={"fast_dev_run": True}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    trainer.lightning.fast_dev_run = False  # type: ignore[attr-defined]
    trainer.test(None)
    assert (tmp_path / "here/tiny/test_results.csv").is_file()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert trainer.global_config["output_dir"] == "here"  # as it was written
