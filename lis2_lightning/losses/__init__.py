"""Losses over labelled pixels, computed from sums that add up over batches and processes."""

from lis2_lightning.losses.centreline import ClDiceLoss
from lis2_lightning.losses.focal import FocalLoss
from lis2_lightning.losses.masked import MaskedLoss, Sums
from lis2_lightning.losses.overlap import BceDiceLoss, DiceLoss, SumLoss, TverskyLoss

__all__ = [
    "BceDiceLoss",
    "ClDiceLoss",
    "DiceLoss",
    "FocalLoss",
    "MaskedLoss",
    "SumLoss",
    "Sums",
    "TverskyLoss",
]
