"""What a run looks like: its pictures."""

from lis2_lightning.report.pictures import draw_curves, draw_prediction

__all__ = ["draw_curves", "draw_prediction"]
