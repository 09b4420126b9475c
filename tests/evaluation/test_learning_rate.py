"""A suggested learning rate, of which only a picture stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.mark.slow
def test_a_rate_is_suggested_and_only_a_picture_stays(
    tiny: Callable[..., dict[str, Any]],
    tmp_path: Path,
    typed: Callable[..., tuple[int, str, str]],
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(yaml.safe_dump(tiny(trackers=["CsvLogger"])))
    code, output, error = typed("find-lr", "--config", "c.yaml", "--output", "lr.png")
    assert code == 0, error
    flag, rate = output.splitlines()[0].split()
    assert flag == "--optimizer.lr"
    assert 1e-6 < float(rate) < 1.0
    assert {path.name for path in tmp_path.rglob("*")} == {"c.yaml", "lr.png"}
