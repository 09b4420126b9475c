"""Position encodings: where a tile lies in the large image, as further channels of a network.

The formulas and keys are LIS2's (``lis2/models/encoder.py``). None of the encodings has a weight,
so that they add no name to a network's state dict.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lis2_lightning.errors import ConfigError, DataError


@dataclass(frozen=True)
class VariableEncoding:
    """One variable of a position encoding: one axis of the image, which becomes one channel.

    Attributes:
        index: Which axis of `positions`, from 0: the row in 2-D is 0, the column 1.
        expand_dims: Side of the map which the value fills where no other size is asked for, px.
        scale: What the value is measured in, px; not 0.
        offset: Factor of the pixel coordinate in :class:`SinPositionEncoding`, degrees a pixel.
        unsqueeze: Whether the value fills a map of `expand_dims` where no size is asked for.
        angle: Period of :class:`SinPositionEncoding`, which alone needs it, degrees; not 0.
    """

    index: int
    expand_dims: int = 1
    scale: float = 1.0
    offset: float = 0.0
    unsqueeze: bool = True
    angle: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no encoding can use."""
        if self.index < 0 or self.expand_dims < 1:
            raise ConfigError(
                "a variable of vars_config needs an index of at least 0 and expand_dims of at "
                f"least 1, not index {self.index} and expand_dims {self.expand_dims}"
            )
        if self.scale == 0 or self.angle == 0:
            raise ConfigError(
                f"scale and angle of the variable with index {self.index} of vars_config divide: "
                "neither may be 0"
            )


class PositionEncoding(nn.Module, ABC):
    """The base of position encodings; a further one defines `channels` and `forward`."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """How many channels the encoding adds, `P`."""

    @abstractmethod
    def forward(self, positions: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Encode the positions of a batch of tiles.

        Args:
            positions: First and past-the-last pixel along each axis, `(B, axes, 2)` as
                :class:`~lis2_lightning.tiling.grid.Tile` counts them, or LIS2's `(B, axes, 2, 1)`.
            size: Sides of the map that the encoding is joined to, px; without it the shape is
                the encoding's own.

        Returns:
            `(B, P, *size)`, floating point.

        Raises:
            DataError: The positions have another shape than the encoding needs.
        """


class _VariablesEncoding(PositionEncoding):
    """What the encodings of single variables share: the variables, and how they fill a map."""

    def __init__(self, vars_config: list[VariableEncoding]) -> None:
        super().__init__()
        if not vars_config:
            raise ConfigError("vars_config is empty: a position encoding needs a variable")
        # in LIS2 the order of the channels follows the axes, not the configuration
        self.variables = sorted(vars_config, key=lambda variable: variable.index)
        if len({variable.unsqueeze for variable in vars_config}) > 1:
            raise ConfigError("unsqueeze must be the same for all variables of vars_config")
        if len({variable.expand_dims for variable in vars_config}) > 1:
            raise ConfigError("expand_dims must be the same for all variables of vars_config")

    @property
    def channels(self) -> int:
        """How many channels the encoding adds: one a variable."""
        return len(self.variables)

    @abstractmethod
    def encode(self, start: Tensor, variable: VariableEncoding) -> Tensor:
        """Encode the first pixel of each tile along one axis, `(B,)` px, to `(B,)`."""

    def forward(self, positions: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Encode the first pixel of each tile along each variable's axis.

        Args:
            positions: `(B, axes, 2)`, LIS2's `(B, axes, 2, 1)`, or the first pixels alone,
                `(B, axes)`; px.
            size: Sides of the map that the encoding is joined to, px.

        Returns:
            `(B, P, *size)`; without `size`, as in LIS2, `(B, P, expand_dims, expand_dims)` under
            `unsqueeze` and `(B, P)` else. float32: it holds every pixel below 16 million exactly.

        Raises:
            DataError: `positions` has no such axis.
        """
        starts = _starts(positions)
        last = self.variables[-1].index
        if last >= starts.shape[1]:
            raise DataError(
                f"the position encoding has a variable with index {last}, but positions of shape "
                f"{tuple(positions.shape)} hold {starts.shape[1]} axes"
            )
        codes = [self.encode(starts[:, variable.index], variable) for variable in self.variables]
        return spread(torch.stack(codes, dim=1), self._own_size() if size is None else size)

    def _own_size(self) -> Sequence[int]:
        first = self.variables[0]
        return (first.expand_dims, first.expand_dims) if first.unsqueeze else ()


class LinPositionEncoding(_VariablesEncoding):
    """The first pixel over `scale`: for a scale of the image's side, from 0 to 1.

    Args:
        vars_config: The variables; the channels follow their axes.

    Raises:
        ConfigError: There is no variable, or they differ in `unsqueeze` or `expand_dims`.

    >>> lin = LinPositionEncoding([VariableEncoding(index=1, scale=400.0)])
    >>> lin(torch.tensor([[[0, 32], [100, 132]]]), size=(1, 2))
    tensor([[[[0.2500, 0.2500]]]])
    """

    def encode(self, start: Tensor, variable: VariableEncoding) -> Tensor:
        """Divide the first pixels, `(B,)` px, by the scale."""
        return start / variable.scale


class SinPositionEncoding(_VariablesEncoding):
    """``|cos(2 π (scale - start × offset + angle) / angle)|``, from 0 to 1, LIS2's formula.

    Args:
        vars_config: The variables, each with an `angle`; the channels follow their axes.

    Raises:
        ConfigError: There is no variable, they differ in `unsqueeze` or `expand_dims`, or one has
            no angle.

    >>> sin = SinPositionEncoding([VariableEncoding(index=0, scale=8.0, offset=1.0, angle=8.0)])
    >>> sin(torch.tensor([[[1, 33], [0, 32]]]), size=(1, 1)).flatten()  # an eighth of the circle
    tensor([0.7071])
    """

    def __init__(self, vars_config: list[VariableEncoding]) -> None:
        super().__init__(vars_config)
        for variable in self.variables:
            _angle(variable)

    def encode(self, start: Tensor, variable: VariableEncoding) -> Tensor:
        """Give the cosine's size for the first pixels, `(B,)` px."""
        angle = _angle(variable)
        # whole periods are taken off in Python's float64: float32 would lose the angle's digits
        phase = variable.scale % angle - start * variable.offset
        return torch.cos(phase * (2 * torch.pi / angle)).abs()


class IdentityPositionEncoding(PositionEncoding):
    """The positions as they are.

    Args:
        num_channels: How many channels they make. Four numbers a tile, as in LIS2's `positions`
            of a 2-D image (first and past-the-last row, then column), make 4.

    Raises:
        ConfigError: The number of channels is below 1.

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
        """How many channels the encoding adds."""
        return self.num_channels

    def forward(self, positions: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Give the positions back.

        Args:
            positions: `num_channels` numbers a tile in any shape, or maps `(B, P, *sides)`.
            size: Sides of the map that the encoding is joined to, px. Numbers fill it; maps of
                other sides are averaged down (or repeated up) to it.

        Returns:
            `(B, P, *size)`; without `size` the positions untouched, as in LIS2.

        Raises:
            DataError: The positions are neither so many numbers nor maps of so many channels.
        """
        if size is None:
            return positions
        if positions.shape[1:].numel() == self.channels:
            return spread(_as_float(positions).flatten(1), size)
        if positions.ndim == 2 + len(size) and positions.shape[1] == self.channels:
            return resize(_as_float(positions), size)
        raise DataError(
            f"positions of shape {tuple(positions.shape)} make no {self.channels} channels: set "
            "num_channels of IdentityPositionEncoding to the numbers of one tile"
        )


def spread(values: Tensor, size: Sequence[int]) -> Tensor:
    """Fill maps with values, without taking memory: `(B, P)` to `(B, P, *size)`.

    >>> spread(torch.ones(2, 3), (4, 5)).shape
    torch.Size([2, 3, 4, 5])
    """
    return values.reshape(*values.shape, *(1 for _ in size)).expand(*values.shape, *size)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bring maps to other sides by averaging areas: `(B, P, *sides)` to `(B, P, *size)`.

    >>> resize(torch.tensor([[[1.0, 3.0, 5.0, 7.0]]]), (2,))
    tensor([[[2., 6.]]])
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return nn.functional.interpolate(maps, size=list(size), mode="area")


def _starts(positions: Tensor) -> Tensor:
    """The first pixel along each axis, `(B, axes)`."""
    if positions.ndim < 2:
        raise DataError(f"positions must have the shape (B, axes, 2), not {tuple(positions.shape)}")
    starts = positions if positions.ndim == 2 else positions.flatten(2)[..., 0]
    return _as_float(starts)


def _as_float(positions: Tensor) -> Tensor:
    """Whole numbers and float64 (LIS2's HDF5) in the networks' own type."""
    return positions.to(torch.float32)


def _angle(variable: VariableEncoding) -> float:
    if variable.angle is None:
        raise ConfigError(
            f"SinPositionEncoding needs an angle for the variable with index {variable.index} "
            "of vars_config"
        )
    return variable.angle
