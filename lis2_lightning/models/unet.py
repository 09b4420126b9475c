"""The U-Net of LIS2, in one, two or three dimensions, with the same weight names.

The architecture is that of Ronneberger, Fischer and Brox, "U-Net" (2015), with padded convolutions
and batch normalisation, as ``lis2/models/base_unet.py`` builds it.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.models.encodings import PositionEncoding, resize

_CONVOLUTIONS: Final = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: Final = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS: Final = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOLS: Final = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}

# The weight that a position encoding widens, and its axis of input channels.
_WIDENED: Final = {
    "before": ("encoders.0.0.weight", 1),
    "middle": ("upconvs.0.weight", 0),  # a transposed convolution has its input channels first
    "after": ("conv.weight", 1),
}


class UNet(nn.Module):
    """A U-Net that predicts a probability for every pixel.

    Each of `num_blocks` blocks of two 3-wide convolutions (padding 1, batch normalisation, ReLU)
    is followed by a max-pool of 2; the channels start at `features` and double with each block. On
    the way up, a transposed convolution of stride 2 is joined with the block of the same size, as
    (upsampled, skip). The last layers are a 1-wide convolution and a sigmoid.

    The state dict has LIS2's names, so that weights can be exchanged. A position encoding appends
    its channels and widens one layer, whose weight then differs in shape from LIS2's, which
    (as published) ignores the encoding because of a faulty comparison. LIS2's weights still load:
    the additional channels get zeros, which gives the same result.

    Args:
        in_channels: Channels of the image, without those of the encoding.
        out_channels: Channels of the result.
        features: Channels of the first block.
        num_blocks: How often the size is halved.
        dim: Dimensions of the image: 1, 2 or 3; 2 by default.
        dimension: LIS2's other name for `dim`.
        encoder: A position encoding.
        encoder_cat_position: Where its channels join: `before` the first block, in the `middle`
            after the bottleneck, or `after` the last block; `before` by default.
        encoder_pos: LIS2's other name for `encoder_cat_position`.

    >>> UNet(features=4, num_blocks=2)(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 1, 32, 32])
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 1,
        features: int = 64,
        num_blocks: int = 4,
        dim: int | None = None,
        dimension: int | None = None,
        encoder: PositionEncoding | None = None,
        encoder_cat_position: Literal["before", "middle", "after"] | None = None,
        encoder_pos: Literal["before", "middle", "after"] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = _at_least_one("in_channels", in_channels)
        self.out_channels = _at_least_one("out_channels", out_channels)
        self.features = _at_least_one("features", features)
        self.num_blocks = _at_least_one("num_blocks", num_blocks)
        self.dim: int = _either("dim", dim, "dimension", dimension, allowed=(1, 2, 3), default=2)
        self.encoder_cat_position: str = _either(
            "encoder_cat_position",
            encoder_cat_position,
            "encoder_pos",
            encoder_pos,
            allowed=tuple(_WIDENED),
            default="before",
        )
        self.encoder = encoder
        self._build()
        # a function, so that the network can be copied and pickled
        self.register_load_state_dict_pre_hook(_widen)  # type: ignore[no-untyped-call]  # torch's

    @property
    def lis2_config(self) -> dict[str, Any]:
        """The network in LIS2's spelling with every argument, which LIS2 requires.

        An encoding of another class than those of this package is left out.
        """
        names = ("in_channels", "out_channels", "features", "num_blocks", "dim")
        config = {"type": "unet", **{name: getattr(self, name) for name in names}}
        config["encoder_cat_position"] = self.encoder_cat_position
        encoder = None if self.encoder is None else self.encoder.lis2_config
        return config if encoder is None else {**config, "encoder": encoder}

    @property
    def least_side(self) -> int:
        """The least side of an image, px: that of one pixel in the innermost block."""
        return int(2**self.num_blocks)

    def extra_channels(self, place: str) -> int:
        """The channels that the position encoding adds at a place: before, middle or after."""
        if self.encoder is None or place != self.encoder_cat_position:
            return 0
        return self.encoder.channels

    def forward(self, patch: Tensor, positions: Tensor | None = None) -> Tensor:
        """Predict the probability of every pixel.

        Args:
            patch: `(B, in_channels, *sides)`, each side a multiple of `2 ** num_blocks` px.
            positions: Positions of the tiles for the encoding; ignored without one.

        Returns:
            Probabilities in [0, 1], `(B, out_channels, *sides)`; never in half precision.

        Raises:
            DataError: The patch does not fit the network, or the encoding has no positions.
        """
        self._check(patch)
        x = self._join("before", patch, positions)
        skips = []
        for block in self.encoders:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self._join("middle", self.bottleneck(x), positions)
        for upconv, block in zip(self.upconvs, self.decoders, strict=True):
            x = block(torch.cat((upconv(x), skips.pop()), dim=1))
        logits = self.conv(self._join("after", x, positions))
        # the 8 to 11 bits of half precision cannot resolve probabilities near 1
        return torch.sigmoid(logits if logits.dtype == torch.float64 else logits.float())

    def _build(self) -> None:
        """Make the layers in LIS2's order, so that a seed gives the same initial weights.

        They are registered in another order, LIS2's as well: states of an optimizer are numbered
        by it.
        """
        dim = self.dim
        widths = [self.features * 2**depth for depth in range(self.num_blocks + 1)]
        inputs = [self.in_channels + self.extra_channels("before"), *widths]
        self.encoders = nn.ModuleList(
            _block(dim, inputs[depth], widths[depth]) for depth in range(self.num_blocks)
        )
        self.pool = _POOLS[dim](kernel_size=2, stride=2)
        self.decoders, self.upconvs = nn.ModuleList(), nn.ModuleList()
        self.bottleneck = _block(dim, widths[-2], widths[-1])
        for depth in reversed(range(self.num_blocks)):
            extra = self.extra_channels("middle") if depth == self.num_blocks - 1 else 0
            self.upconvs.append(
                _TRANSPOSED[dim](widths[depth + 1] + extra, widths[depth], kernel_size=2, stride=2)
            )
            self.decoders.append(_block(dim, 2 * widths[depth], widths[depth]))
        self.conv = _CONVOLUTIONS[dim](
            self.features + self.extra_channels("after"), self.out_channels, kernel_size=1
        )

    def _join(self, place: str, x: Tensor, positions: Tensor | None) -> Tensor:
        """Append the encoding's channels: `(B, C + P, *sides)`."""
        if self.encoder is None or place != self.encoder_cat_position:
            return x
        if positions is None:
            raise DataError(
                "the U-Net has a position encoding, but the batch has no positions: use a dataset "
                "with 'positions', or omit encoder"
            )
        size = x.shape[2:]
        code = resize(self.encoder(positions, size), size)
        return torch.cat((x, code.to(x.dtype)), dim=1)

    def _check(self, patch: Tensor) -> None:
        shape = tuple(patch.shape)
        if len(shape) != self.dim + 2 or shape[1] != self.in_channels:
            raise DataError(
                f"a patch of shape {shape} does not fit a U-Net with dim {self.dim} and "
                f"in_channels {self.in_channels}: it takes (batch, {self.in_channels}"
                f"{', px' * self.dim}), without the channels of a position encoding"
            )
        step = 2**self.num_blocks
        if any(side % step or not side for side in shape[2:]):
            raise DataError(
                f"a patch of {' x '.join(map(str, shape[2:]))} px does not fit a U-Net with "
                f"num_blocks {self.num_blocks}: each side must be a multiple of {step} px"
            )
        if self.training and shape[0] * math.prod(side // step for side in shape[2:]) == 1:
            raise DataError(
                "a training batch of one patch with one pixel at the bottleneck cannot be "
                "normalised: use another batch_size, a larger tile or fewer num_blocks than "
                f"{self.num_blocks}"
            )


def _block(dim: int, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        _CONVOLUTIONS[dim](inputs, outputs, kernel_size=3, padding=1),
        _NORMS[dim](outputs),
        nn.ReLU(inplace=True),  # nothing else reads the normalised values
        _CONVOLUTIONS[dim](outputs, outputs, kernel_size=3, padding=1),
        _NORMS[dim](outputs),
        nn.ReLU(inplace=True),
    )


def _widen(module: UNet, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Pad weights from a network without a position encoding with zeros."""
    extra = module.extra_channels(module.encoder_cat_position)
    name, axis = _WIDENED[module.encoder_cat_position]
    weight = state.get(prefix + name)
    if not extra or weight is None:
        return
    width = module.get_parameter(name).shape[axis]
    if weight.shape[axis] == width - extra:
        shape = list(weight.shape)
        shape[axis] = extra
        state[prefix + name] = torch.cat((weight, weight.new_zeros(shape)), dim=axis)


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"{name} of the U-Net must be at least 1, not {value}")
    return value


def _either(
    name: str, value: Any, alias: str, other: Any, *, allowed: tuple[Any, ...], default: Any
) -> Any:
    """The value of an argument with two names."""
    if value is not None and other is not None and value != other:
        raise ConfigError(
            f"{name} and {alias} are two names of one key, but got {value!r} and {other!r}: "
            "omit one of them"
        )
    chosen = default if value is None and other is None else (other if value is None else value)
    if chosen not in allowed:
        raise ConfigError(
            f"{name} of the U-Net must be one of {', '.join(map(repr, allowed))}, not {chosen!r}"
        )
    return chosen
