"""What every process of a run would say is said once, by the main one."""

from __future__ import annotations

import logging
import warnings
from typing import Final

from lis2_lightning.parallel.processes import is_main

_TALKATIVE: Final = ("lis2_lightning", "lightning", "lightning.pytorch", "lightning.fabric")


def only_main_speaks() -> None:
    """Keep every process but the main one from telling more than how it failed.

    Warnings and messages below an error go, for the main process has the same to tell. It holds
    for the rest of the process: what a user's data set warns of comes before and after the loops,
    too.
    """
    if is_main():
        return
    warnings.simplefilter("ignore")
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
