"""The warm-up that docs/recipes.md shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from lis2_lightning import Trainer
from tests.test_readme import ROOT, blocks


@pytest.mark.usefixtures("no_pictures")
def test_the_learning_rate_of_the_page_rises_with_every_step(
    tiny: Callable[..., dict[str, Any]],
) -> None:
    (text,) = [t for t in blocks(ROOT / "docs/recipes.md", "yaml") if "LinearLR" in t]
    trainer = Trainer.from_config(tiny(**yaml.safe_load(text), epochs=1))
    trainer.fit()
    num_steps = trainer.lightning.global_step
    assert 1 < num_steps < 200
    assert trainer.optimizer is not None
    rate = trainer.optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(3e-3 * (0.1 + 0.9 * num_steps / 200))
