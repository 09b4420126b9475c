"""From a trained network to a map of the whole image, and to pictures."""

from lis2_lightning.inference.figures import draw_curves, draw_prediction
from lis2_lightning.inference.segmenter import Map, Segmenter
from lis2_lightning.inference.stitch import Stitcher

__all__ = ["Map", "Segmenter", "Stitcher", "draw_curves", "draw_prediction"]
