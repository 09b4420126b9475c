"""The pictures of a run."""

from lis2_lightning.report.pictures import draw_curves, draw_prediction

__all__ = ["draw_curves", "draw_prediction"]
