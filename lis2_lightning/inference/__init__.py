"""From a trained network to a map of the whole image."""

from lis2_lightning.inference.job import Map, MapJob
from lis2_lightning.inference.map_files import MapRequest, check_path
from lis2_lightning.inference.other_image import data_of_image, for_image
from lis2_lightning.inference.predictions import Predictions

__all__ = [
    "Map",
    "MapJob",
    "MapRequest",
    "Predictions",
    "check_path",
    "data_of_image",
    "for_image",
]
