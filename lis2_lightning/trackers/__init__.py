"""Where numbers go: CSV always, services on request."""

from lis2_lightning.trackers.base import Tracker
from lis2_lightning.trackers.csv import CsvLogger, CsvRows, read_rows
from lis2_lightning.trackers.services import Mlflow, TensorBoard, Wandb

__all__ = ["CsvLogger", "CsvRows", "Mlflow", "TensorBoard", "Tracker", "Wandb", "read_rows"]
