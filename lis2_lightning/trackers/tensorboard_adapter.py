"""Writes TensorBoard's event files, with its own writer and without torch."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from lis2_lightning.trackers.adapter import Adapter, Status

_CHANNELS: Final = MappingProxyType({0: 1, 2: 3, 3: 3, 4: 2, 6: 4})  # by PNG's colour type


class TensorboardAdapter(Adapter):
    """Writes scalars, texts and pictures to ``tensorboard`` in the run's folder."""

    _writer: Any = None
    _last_step = -1

    def open(self, start: Mapping[str, Any]) -> None:  # noqa: ARG002 - Adapter's signature
        """Begin another event file; TensorBoard reads all of a folder as one run."""
        from tensorboard.summary.writer.event_file_writer import (  # noqa: PLC0415 - optional
            EventFileWriter,
        )

        self._writer = EventFileWriter(str(self.run_dir / "tensorboard"))

    def params(self, values: Mapping[str, Any], group: str) -> None:
        """Write the configuration as a text."""
        text = yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False, allow_unicode=True)
        self._text(group or "config", "\n".join(f"    {line}" for line in text.splitlines()))

    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Write a row; an epoch that is trained again replaces the earlier one."""
        from tensorboard.compat.proto.event_pb2 import SessionLog  # noqa: PLC0415 - optional

        step = record["step"]
        if "epoch" in values:
            if step <= self._last_step or self._last_step < 0 < step:
                session = SessionLog(status=SessionLog.START)
                self._write(step, record["time"], session_log=session)
            self._last_step = step
        scalars = [{"tag": name, "simple_value": value} for name, value in values.items()]
        self._write(step, record["time"], summary={"value": scalars})

    def summary(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Write the run's final scores at its last step."""
        scores = {f"summary/{name}": value for name, value in values.items()}
        self.row(scores, {**record, "step": max(self._last_step, record["step"])})

    def file(self, path: Path, record: Mapping[str, Any]) -> None:
        """Show a picture; other files lie in the same folder already."""
        if path.suffix != ".png":
            return
        encoded = path.read_bytes()
        width, height, _, colour_type = struct.unpack(">IIBB", encoded[16:26])  # PNG's header
        image = {"width": width, "height": height, "encoded_image_string": encoded}
        image["colorspace"] = _CHANNELS[colour_type]
        value = {"tag": record.get("tag", path.stem), "image": image}
        step = record.get("step", max(self._last_step, 0))
        self._write(step, record["time"], summary={"value": [value]})

    def close(self, status: Status) -> str:
        """Write how the run ended, and close the file."""
        self._text("status", status)
        self._writer.close()
        return f"view it with: tensorboard --logdir {self.run_dir.parent}"

    def _text(self, tag: str, text: str) -> None:
        from tensorboard.plugins.text.metadata import (  # noqa: PLC0415 - optional
            create_summary_metadata,
        )

        shape = {"dim": [{"size": 1}]}
        tensor = {"dtype": "DT_STRING", "string_val": [text.encode()], "tensor_shape": shape}
        metadata = create_summary_metadata("", "")
        value = {"tag": tag, "metadata": metadata, "tensor": tensor}
        self._write(max(self._last_step, 0), time.time(), summary={"value": [value]})

    def _write(self, step: int, when: float, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415 - optional

        self._writer.add_event(Event(wall_time=when, step=step, **content))
        self._writer.flush()
