"""Where numbers go: CSV always, services on request."""

# the processes that talk to services import this, too: nothing here may bring torch or Lightning
from lis2_lightning.trackers.choices import CsvLogger, Mlflow, TensorBoard, Tracker, Wandb

__all__ = ["CsvLogger", "Mlflow", "TensorBoard", "Tracker", "Wandb"]
