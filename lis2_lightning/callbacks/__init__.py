"""Callbacks: what LIS2 specifies and Lightning does otherwise or not at all."""

from lis2_lightning.callbacks.early_stopping import LossEarlyStopping

__all__ = ["LossEarlyStopping"]
