"""From a trained network to a map of the whole image."""

from lis2_lightning.inference.map_file import check_map_path, default_map_path, write_maps
from lis2_lightning.inference.other_image import data_of_image, for_image
from lis2_lightning.inference.segmenter import Map, Segmenter

__all__ = [
    "Map",
    "Segmenter",
    "check_map_path",
    "data_of_image",
    "default_map_path",
    "for_image",
    "write_maps",
]
