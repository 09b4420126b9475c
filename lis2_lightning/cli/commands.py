"""The commands that take a configuration, each with what it does in one line."""

from __future__ import annotations

from typing import Final

RUNS: Final = {
    "fit": "Train, score the best snapshot on the test set, and leave every file.",
    "validate": "Measure a snapshot on the validation set.",
    "test": "Measure a snapshot on the test set.",
    "predict": "Map the whole image with a snapshot.",
    "plan": "Show what each key becomes, and write the equal configuration for Lightning alone.",
    "verify-resume": "Try whether a run of this configuration goes on exactly when interrupted.",
}
