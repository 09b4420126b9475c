"""Files and mappings → checked keys → objects: the one schema in its three spellings."""

from lis2_lightning.config.arguments import read_arguments
from lis2_lightning.config.loading import CHECKPOINT, as_list, load_config, merge
from lis2_lightning.config.schema import Schema, describe
from lis2_lightning.config.spelling import to_class_paths, to_lis2

__all__ = [
    "CHECKPOINT",
    "Schema",
    "as_list",
    "describe",
    "load_config",
    "merge",
    "read_arguments",
    "to_class_paths",
    "to_lis2",
]
