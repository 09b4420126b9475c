"""This package's messages on a screen: above the bars, and in colour on a terminal alone."""

from __future__ import annotations

import logging
import os
from typing import TextIO

from tqdm import tqdm


class ScreenHandler(logging.StreamHandler[TextIO]):
    """Shows warnings in yellow, and the end of a message that its record names ``mark`` in green.

    A file, a pipe, a notebook and a terminal under ``NO_COLOR`` get the text alone.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The message as it is shown."""
        text, mark = super().format(record).rstrip(), getattr(record, "mark", "")
        if os.environ.get("NO_COLOR") or not self.stream.isatty():
            return text
        if record.levelno >= logging.WARNING:
            return f"\x1b[33m{text}\x1b[0m"
        return f"{text.removesuffix(mark)}\x1b[32m{mark}\x1b[0m" if mark else text

    def emit(self, record: logging.LogRecord) -> None:
        """Show a message, and draw the bars again below it."""
        with tqdm.external_write_mode(self.stream):
            super().emit(record)
