"""From a trained network to a map of the whole image."""

from lis2_lightning.inference.segmenter import Map, Segmenter

__all__ = ["Map", "Segmenter"]
