"""Position encodings: where a tile lies in the large image, as further channels of a network.

Formulas and keys are LIS2's (``lis2/models/encoder.py``). The encodings have no weights, so they
add nothing to a network's state dict.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lis2_lightning.errors import ConfigError, DataError


@dataclass(frozen=True)
class VariableEncoding:
    """One variable of a position encoding: an axis of the image that becomes a channel.

    Attributes:
        index: The axis of `positions`, from 0: in 2-D the row is 0, the column 1.
        expand_dims: Default side of the map filled with the value, px.
        scale: Unit of the value, px; not 0.
        offset: Factor of the pixel coordinate in :class:`SinPositionEncoding`, degrees per pixel.
        unsqueeze: Whether the value fills a map of `expand_dims` by default.
        angle: Period of :class:`SinPositionEncoding`, degrees; not 0.
    """

    index: int
    expand_dims: int = 1
    scale: float = 1.0
    offset: float = 0.0
    unsqueeze: bool = True
    angle: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.index < 0 or self.expand_dims < 1:
            raise ConfigError(
                "a variable of vars_config needs an index of at least 0 and expand_dims of at "
                f"least 1, not index {self.index} and expand_dims {self.expand_dims}"
            )
        if self.scale == 0 or self.angle == 0:
            raise ConfigError(
                f"scale and angle of the variable with index {self.index} of vars_config must not "
                "be 0"
            )


class PositionEncoding(nn.Module, ABC):
    """The base of position encodings; a subclass defines `channels` and `forward`."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """The number of channels that the encoding adds, `P`."""

    @property
    def lis2_config(self) -> dict[str, Any] | None:
        """The encoding in LIS2's spelling with every argument, or null where LIS2 has none."""
        return None

    @abstractmethod
    def forward(self, positions: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Encode the positions of a batch of tiles as `(B, P, *size)`, floating point.

        Args:
            positions: First and past-the-last pixel along each axis, `(B, axes, 2)`, or LIS2's
                `(B, axes, 2, 1)`.
            size: Sides of the map that the encoding is joined to, px; by default the encoding's
                own.
        """


class _VariablesEncoding(PositionEncoding):
    """The base of encodings with one channel per variable."""

    def __init__(self, vars_config: list[VariableEncoding]) -> None:
        super().__init__()
        if not vars_config:
            raise ConfigError("vars_config is empty: a position encoding needs a variable")
        # as in LIS2, channels follow the axes, not the configuration
        self.variables = sorted(vars_config, key=lambda variable: variable.index)
        if len({variable.unsqueeze for variable in vars_config}) > 1:
            raise ConfigError("unsqueeze must be the same for all variables of vars_config")
        if len({variable.expand_dims for variable in vars_config}) > 1:
            raise ConfigError("expand_dims must be the same for all variables of vars_config")

    @property
    def channels(self) -> int:
        """One per variable."""
        return len(self.variables)

    @property
    def lis2_config(self) -> dict[str, Any]:
        """The encoding in LIS2's spelling with every argument."""
        described = [
            {key: value for key, value in asdict(variable).items() if value is not None}
            for variable in self.variables
        ]
        return {"type": type(self).__name__, "vars_config": described}

    @abstractmethod
    def encode(self, start: Tensor, variable: VariableEncoding) -> Tensor:
        """Encode the first pixel of each tile along one axis, `(B,)` px, to `(B,)`."""

    def forward(self, positions: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Encode the first pixel of each tile along each variable's axis.

        `positions` may also be the first pixels alone, `(B, axes)`. Without `size` the result is,
        as in LIS2, `(B, P, expand_dims, expand_dims)` under `unsqueeze`, else `(B, P)`. It is
        float32, exact for pixels below 16 million.
        """
        starts = _starts(positions)
        last = self.variables[-1].index
        if last >= starts.shape[1]:
            raise DataError(
                f"the position encoding has a variable with index {last}, but positions of shape "
                f"{tuple(positions.shape)} have {starts.shape[1]} axes"
            )
        codes = [self.encode(starts[:, variable.index], variable) for variable in self.variables]
        return spread(torch.stack(codes, dim=1), self._own_size() if size is None else size)

    def _own_size(self) -> Sequence[int]:
        first = self.variables[0]
        return (first.expand_dims, first.expand_dims) if first.unsqueeze else ()


class LinPositionEncoding(_VariablesEncoding):
    """The first pixel divided by `scale`: in [0, 1] if the scale is the image's side.

    Args:
        vars_config: The variables, with one `unsqueeze` and one `expand_dims`; the channels follow
            their axes.

    >>> lin = LinPositionEncoding([VariableEncoding(index=1, scale=400.0)])
    >>> lin(torch.tensor([[[0, 32], [100, 132]]]), size=(1, 2))
    tensor([[[[0.2500, 0.2500]]]])
    """

    def encode(self, start: Tensor, variable: VariableEncoding) -> Tensor:
        """The first pixels, `(B,)` px, divided by the scale."""
        return start / variable.scale


class SinPositionEncoding(_VariablesEncoding):
    """``|cos(2 π (scale - start × offset + angle) / angle)|``, from 0 to 1, LIS2's formula.

    Args:
        vars_config: As for :class:`LinPositionEncoding`, each with an `angle`.

    >>> sin = SinPositionEncoding([VariableEncoding(index=0, scale=8.0, offset=1.0, angle=8.0)])
    >>> sin(torch.tensor([[[1, 33], [0, 32]]]), size=(1, 1)).flatten()  # an eighth of the circle
    tensor([0.7071])
    """

    def __init__(self, vars_config: list[VariableEncoding]) -> None:
        super().__init__(vars_config)
        for variable in self.variables:
            _angle(variable)

    def encode(self, start: Tensor, variable: VariableEncoding) -> Tensor:
        """The absolute cosine for the first pixels, `(B,)` px."""
        angle = _angle(variable)
        # whole periods are removed in Python's float64: float32 would lose digits of the angle
        phase = variable.scale % angle - start * variable.offset
        return torch.cos(phase * (2 * torch.pi / angle)).abs()


class IdentityPositionEncoding(PositionEncoding):
    """The positions as they are.

    Args:
        num_channels: Numbers per tile, at least 1. LIS2's `positions` of a 2-D image have 4: first
            and past-the-last row, then column.

    >>> identity = IdentityPositionEncoding()
    >>> identity(torch.tensor([[[0, 32], [8, 40]]]), size=(1, 1)).flatten()
    tensor([ 0., 32.,  8., 40.])
    """

    def __init__(self, num_channels: int = 4) -> None:
        super().__init__()
        if num_channels < 1:
            raise ConfigError(f"num_channels must be at least 1, not {num_channels}")
        self.num_channels = num_channels

    @property
    def channels(self) -> int:
        """The numbers per tile."""
        return self.num_channels

    @property
    def lis2_config(self) -> dict[str, Any]:
        """The encoding in LIS2's spelling; `num_channels` is known here alone."""
        return {"type": type(self).__name__, "num_channels": self.num_channels}

    def forward(self, positions: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Return `num_channels` numbers per tile, or maps `(B, P, *sides)`, as `(B, P, *size)`.

        Numbers fill the map; maps are averaged down (or repeated up) to it. Without `size` the
        positions are unchanged, as in LIS2.
        """
        if size is None:
            return positions
        if positions.shape[1:].numel() == self.channels:
            return spread(_as_float(positions).flatten(1), size)
        if positions.ndim == 2 + len(size) and positions.shape[1] == self.channels:
            return resize(_as_float(positions), size)
        raise DataError(
            f"positions of shape {tuple(positions.shape)} do not have {self.channels} channels: "
            "set num_channels of IdentityPositionEncoding to the numbers per tile"
        )


def spread(values: Tensor, size: Sequence[int]) -> Tensor:
    """Expand values to maps, without copying: `(B, P)` to `(B, P, *size)`."""
    return values.reshape(*values.shape, *(1 for _ in size)).expand(*values.shape, *size)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps by averaging areas: `(B, P, *sides)` to `(B, P, *size)`.

    >>> resize(torch.tensor([[[1.0, 3.0, 5.0, 7.0]]]), (2,))
    tensor([[[2., 6.]]])
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return nn.functional.interpolate(maps, size=list(size), mode="area")


def _starts(positions: Tensor) -> Tensor:
    """The first pixel along each axis, `(B, axes)`."""
    if positions.ndim < 2:
        raise DataError(f"positions must have shape (B, axes, 2), not {tuple(positions.shape)}")
    starts = positions if positions.ndim == 2 else positions.flatten(2)[..., 0]
    return _as_float(starts)


def _as_float(positions: Tensor) -> Tensor:
    return positions.to(torch.float32)  # from integers, or float64 of LIS2's HDF5


def _angle(variable: VariableEncoding) -> float:
    if variable.angle is None:
        raise ConfigError(
            f"SinPositionEncoding needs an angle for the variable with index {variable.index} "
            "of vars_config"
        )
    return variable.angle
