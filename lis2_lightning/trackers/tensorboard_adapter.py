"""Writes TensorBoard's event files."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lis2_lightning.trackers.adapter import Adapter


class TensorboardAdapter(Adapter):
    """Writes scalars, texts and pictures to ``tensorboard`` in the run's folder."""

    _writer: Any = None
    _last_step = -1

    def open(self, start: Mapping[str, Any], purge_step: int | None = None) -> None:  # noqa: ARG002 - Adapter's
        """Begin another event file; TensorBoard reads all of a folder as one run."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional, slow

        self._writer = SummaryWriter(str(self.run_dir / "tensorboard"), purge_step=purge_step)

    def params(self, values: Mapping[str, Any], group: str) -> None:
        """Write the configuration as a text."""
        text = yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False, allow_unicode=True)
        self._writer.add_text(group or "config", textwrap.indent(text, "    "), self._step)

    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Write a row; an epoch that is trained again replaces the earlier one."""
        step = record["step"]
        if "epoch" in values:
            if step <= self._last_step or self._last_step < 0 < step:
                self._writer.close()
                self.open(record, purge_step=step)
            self._last_step = step
        for name, value in values.items():
            self._writer.add_scalar(name, value, step, record["time"])
        self._writer.flush()

    def summary(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Write the run's final scores at its last step."""
        scores = {f"summary/{name}": value for name, value in values.items()}
        self.row(scores, {**record, "step": max(self._last_step, record["step"])})

    def file(self, path: Path, record: Mapping[str, Any]) -> None:
        """Show a picture; other files lie in the same folder already."""
        if path.suffix != ".png":
            return
        import numpy as np  # noqa: PLC0415 - only pictures need both
        from PIL import Image  # noqa: PLC0415

        pixels = np.asarray(Image.open(path).convert("RGB"))
        tag, step = record.get("tag", path.stem), record.get("step", self._step)
        self._writer.add_image(tag, pixels, step, record["time"], dataformats="HWC")
        self._writer.flush()

    def close(self, record: Mapping[str, Any]) -> str:
        """Write how the run ended, and close the file."""
        self._writer.add_text("status", record["status"], self._step)
        self._writer.close()
        return f"view it with: tensorboard --logdir {self.run_dir.parent}"

    @property
    def _step(self) -> int:
        return max(self._last_step, 0)
