"""Files and mappings → checked keys → objects: the one schema in its three spellings."""

from lis2_lightning.config.arguments import spell_arguments
from lis2_lightning.config.files import load_config, merge
from lis2_lightning.config.schema import CHECKPOINT, Schema, describe
from lis2_lightning.config.spelling import to_class_paths, to_lis2

__all__ = [
    "CHECKPOINT",
    "Schema",
    "describe",
    "load_config",
    "merge",
    "spell_arguments",
    "to_class_paths",
    "to_lis2",
]
