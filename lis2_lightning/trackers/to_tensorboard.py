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

from lis2_lightning.trackers.service import Service, Status

_CHANNELS: Final = MappingProxyType({0: 1, 2: 3, 3: 3, 4: 2, 6: 4})  # of PNG's kinds of colour


class ToTensorBoard(Service):
    """Hands over scalars, texts and pictures.

    Args:
        run_dir: The run's folder; the files lie in ``tensorboard`` below it.
        options: None are known.
    """

    is_local = True

    def __init__(self, run_dir: Path, options: Mapping[str, Any]) -> None:
        super().__init__(run_dir, options)
        self._writer: Any = None
        self._last_step = -1

    def open(self, start: Mapping[str, Any]) -> str:
        """Begin another event file; TensorBoard reads all of a folder as one run."""
        from tensorboard.summary.writer.event_file_writer import (  # noqa: PLC0415 - where used
            EventFileWriter,
        )

        self._writer = EventFileWriter(str(self.run_dir / "tensorboard"))
        return str(start["key"])

    def params(self, values: Mapping[str, Any], group: str) -> None:
        """Hand over the configuration as a text."""
        told = yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False, allow_unicode=True)
        indented = "\n".join(f"    {line}" for line in told.splitlines())
        self._text(group or "config", indented)

    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Hand over a row; an epoch that is trained again takes the place of the former one."""
        from tensorboard.compat.proto.event_pb2 import SessionLog  # noqa: PLC0415 - where used

        step = record["step"]
        if "epoch" in values:
            if step <= self._last_step or self._last_step < 0 < step:
                session = SessionLog(status=SessionLog.START)
                self._write(step, record["time"], session_log=session)
            self._last_step = step
        summary = self._summary()
        for name, value in values.items():
            summary.value.add(tag=name, simple_value=value)
        self._write(step, record["time"], summary=summary)

    def summary(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Hand over what came of the run, at its last step."""
        summary = self._summary()
        for name, value in values.items():
            summary.value.add(tag=f"summary/{name}", simple_value=value)
        self._write(max(self._last_step, record["step"]), record["time"], summary=summary)

    def image(self, path: Path, tag: str, record: Mapping[str, Any]) -> None:
        """Hand over a PNG file."""
        encoded = path.read_bytes()
        width, height, _, kind = struct.unpack(">IIBB", encoded[16:26])  # where PNG has them
        summary = self._summary()
        value = summary.value.add(tag=tag)
        value.image.height, value.image.width = height, width
        value.image.colorspace = _CHANNELS[kind]
        value.image.encoded_image_string = encoded
        self._write(record["step"], record["time"], summary=summary)

    def artifact(self, path: Path) -> None:
        """Show a picture; other files lie in the same folder already."""
        if path.suffix == ".png":
            self.image(path, path.stem, {"step": max(self._last_step, 0), "time": _changed(path)})

    def close(self, status: Status) -> str:
        """Note how the run ended, and close the file."""
        self._text("status", status)
        self._writer.close()
        return f"to look at it: tensorboard --logdir {self.run_dir.parent}"

    def _text(self, tag: str, text: str) -> None:
        from tensorboard.compat.proto.tensor_pb2 import TensorProto  # noqa: PLC0415 - where used
        from tensorboard.plugins.text.metadata import create_summary_metadata  # noqa: PLC0415

        summary = self._summary()
        value = summary.value.add(tag=tag, metadata=create_summary_metadata("", ""))
        value.tensor.CopyFrom(TensorProto(dtype=7, string_val=[text.encode()]))  # 7: a string
        value.tensor.tensor_shape.dim.add(size=1)
        self._write(max(self._last_step, 0), None, summary=summary)

    @staticmethod
    def _summary() -> Any:
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 - where used

        return Summary()

    def _write(self, step: int, when: float | None, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415 - where used

        event = Event(wall_time=time.time() if when is None else when, step=step, **content)
        self._writer.add_event(event)
        self._writer.flush()


def _changed(path: Path) -> float:
    return path.stat().st_mtime
