from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from lis2_lightning import Trainer
from lis2_lightning.assembly import assemble

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def messages(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[str]]:
    """What has been logged, without the level."""
    monkeypatch.setattr(logging.getLogger("lis2_lightning"), "propagate", True)
    return lambda: caplog.messages


@pytest.fixture
def _bfloat16_in_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "has_bfloat16", lambda _: True)


@pytest.mark.usefixtures("_bfloat16_in_hardware")
@pytest.mark.parametrize(
    ("written", "used", "expected"),
    [
        ("bf16", "bf16-mixed", []),
        ("64", "64-true", []),
        (32, "32-true", []),
        (None, "32-true", []),
        ("16", "bf16-mixed", ["16 does not exist on the CPU: bf16-mixed is used"]),
        ("16-mixed", "bf16-mixed", ["16-mixed does not exist on the CPU: bf16-mixed is used"]),
    ],
)
def test_a_precision_that_lightning_replaces_is_reported_by_us_alone(
    tiny: Make, messages: Callable[[], list[str]], written: Any, used: str, expected: list[str]
) -> None:
    lightning = {**tiny()["lightning"], "precision": written}

    trainer = Trainer.from_config(tiny(lightning=lightning))

    assert trainer.lightning.precision == used  # a warning of Lightning's would fail the test
    reported = [message for message in messages() if "precision" in message]
    assert reported == [f"lightning.precision {text}" for text in expected]


def test_bfloat16_in_software_is_warned_of(
    tiny: Make, messages: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "has_bfloat16", lambda _: False)
    lightning = {**tiny()["lightning"], "precision": "bf16-mixed"}
    _ = Trainer.from_config(tiny(lightning=lightning)).lightning
    (warning,) = [message for message in messages() if "precision" in message]
    assert "bfloat16 in software, which is many times slower" in warning
