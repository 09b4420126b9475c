"""Losses over the labelled pixels: sums, from which whoever knows all of them gets the value."""

from lis2_lightning.losses.masked import MaskedLoss, Sums
from lis2_lightning.losses.overlap import BceDiceLoss, DiceLoss, SumLoss

__all__ = ["BceDiceLoss", "DiceLoss", "MaskedLoss", "SumLoss", "Sums"]
