"""Networks in plain ``torch.nn``, with LIS2's architecture and weight names."""

from __future__ import annotations

from lis2_lightning.models.encodings import (
    IdentityPositionEncoding,
    LinPositionEncoding,
    PositionEncoding,
    SinPositionEncoding,
    VariableEncoding,
)
from lis2_lightning.models.unet import UNet

__all__ = [
    "IdentityPositionEncoding",
    "LinPositionEncoding",
    "PositionEncoding",
    "SinPositionEncoding",
    "UNet",
    "VariableEncoding",
]
