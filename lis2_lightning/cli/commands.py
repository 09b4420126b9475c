"""The commands that take a configuration, each with what it does and its own key."""

from __future__ import annotations

from typing import Final

TRAINER_COMMANDS: Final = {
    "fit": "Train, score the best snapshot on the test set, and leave every file.",
    "validate": "Measure a snapshot on the validation set.",
    "test": "Measure a snapshot on the test set.",
    "predict": "Map the whole image with a snapshot.",
    "plan": "Show what each key becomes, and write the equivalent configuration for Lightning.",
    "verify-resume": "Check that a run of this configuration resumes exactly when interrupted.",
}
# the key that a command has besides the documented ones
OWN_KEYS: Final = {
    "fit": ("ckpt_path", "Snapshot to resume from; the same as resume."),
    **dict.fromkeys(
        ("validate", "test", "predict"),
        ("ckpt_path", "best, last or the path of a snapshot; best by default."),
    ),
    "plan": ("lightning_yaml", "File to write: the equivalent configuration for LightningCLI."),
    "verify-resume": ("batches", "Batches in an epoch; 4 by default."),
}
