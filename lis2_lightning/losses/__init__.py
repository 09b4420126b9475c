"""Losses over labelled pixels, computed from sums that add up over batches and processes."""

from lis2_lightning.losses.masked import MaskedLoss, Sums
from lis2_lightning.losses.overlap import BceDiceLoss, DiceLoss, SumLoss

__all__ = ["BceDiceLoss", "DiceLoss", "MaskedLoss", "SumLoss", "Sums"]
