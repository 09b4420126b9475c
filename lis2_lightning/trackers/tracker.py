"""A tracker: what a configuration says of a place for numbers, before a run is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class Tracker(ABC):
    """Makes a Lightning logger once the run is known; nothing is opened or imported before."""

    @abstractmethod
    def start(self, run_dir: Path, run_name: str) -> Logger:
        """Make the logger of one run.

        Args:
            run_dir: The run's folder.
            run_name: The run's name.

        Raises:
            ConfigError: The package which the tracker needs is not installed.
        """
