"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "lis2_sample"


@pytest.fixture(scope="session")
def lis2_sample() -> Path:
    """The folder with the real maps; the test skips where it is absent."""
    if not SAMPLE.is_dir():
        pytest.skip(f"the real maps are not there: {SAMPLE}")
    return SAMPLE
