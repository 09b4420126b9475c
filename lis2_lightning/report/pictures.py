"""Pictures of a run: its curves, and a prediction beside the image and the truth.

Matplotlib's object interface needs no display and leaves a notebook's own figures alone. The
colours are those of Okabe and Ito (2008), safe for colour-blind readers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.base.files import written
from lis2_lightning.base.labelled import known_where
from lis2_lightning.errors import DataError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
GREY: Final = "#444444"
_SPLITS: Final = {"train": BLUE, "val": VERMILION}

# of the truth, in the order of its codes: far apart in lightness as well as in hue
TRUTH: Final = {"unlabelled": "#c7c7c7", "negative": "#0d305c", "positive": "#fab519"}
_NO_DATA: Final = "#9ecae1"

_MAX_SIDE: Final = 2000  # px drawn along the longer side


def draw_curves(rows: Sequence[Mapping[str, float | None]], path: str | os.PathLike[str]) -> Path:
    """Draw loss, metrics and learning rate over the epochs, and return the path.

    Args:
        rows: One row per epoch, as in ``logs_train.csv``: `epoch`, `train_loss`, `val_loss`, `lr`,
            `train_<metric>`, `val_<metric>`. Missing columns and values that are null or not finite
            are skipped.
        path: The file; its suffix selects the format.
    """
    columns = _columns(rows)
    epochs = columns.pop("epoch", np.arange(len(rows), dtype=np.float64))
    rates = columns.pop("lr", None)
    names = _curve_names(columns)
    figure, panels = new_panels(len(names) + (rates is not None))
    for axes, name in zip(panels, names, strict=False):
        _draw_curve(axes, name, epochs, columns)
    if rates is not None:
        _draw_rates(panels[-1], epochs, rates)
    lines = {line.get_label(): line for axes in panels[: len(names)] for line in axes.lines}
    add_legend(figure, list(lines.values()))
    return save(figure, path)


def draw_prediction(
    image: NDArray[Any],
    target: NDArray[Any],
    labelled: NDArray[Any],
    probability: NDArray[Any],
    path: str | os.PathLike[str],
) -> Path:
    """Draw an image, its truth and a network's prediction side by side, and return the path.

    Panels of images wider than twice their height are stacked. Images of more than 2000 px along a
    side are subsampled.

    Args:
        image: `(H, W)`, in any unit, NaN where nothing was observed; it is drawn with an asinh
            stretch between its 1st and 99.7th percentile.
        target: `(H, W)`, above 0.5 on positive pixels.
        labelled: Where the truth is known, `(H, W)`, true = counts; the rest is grey.
        probability: In [0, 1], `(H, W)`; NaN where nothing was predicted.
        path: The file; its suffix selects the format.

    Raises:
        DataError: The arrays differ in shape, or are not images.
    """
    shapes = {np.shape(array) for array in (image, target, labelled, probability)}
    if len(shapes) > 1 or len(shape := shapes.pop()) != 2 or not all(shape):
        raise DataError(
            "image, target, labelled and probability must have the same shape (H, W), not "
            f"{np.shape(image)}, {np.shape(target)}, {np.shape(labelled)}, {np.shape(probability)}"
        )
    step = math.ceil(max(shape) / _MAX_SIDE)
    drawn = (slice(None, None, step), slice(None, None, step))
    grid, size = _layout(shape[0], shape[1])
    figure = new_figure(*size)
    panels = [figure.add_subplot(*grid, place) for place in (1, 2, 3)]
    _show(panels[0], "image (asinh stretch)", stretched(image[drawn]), shape, cmap="gray")
    _show(panels[1], "truth", _truth(target[drawn], labelled[drawn]), shape)
    probabilities = probability[drawn].astype(np.float32)
    shown = _show(panels[2], "probability", probabilities, shape, cmap="cividis")
    _add_colour_bar(figure, panels[2], shown)
    _add_colour_legend(figure)
    return save(figure, path)


def _show(
    axes: Axes, title: str, values: NDArray[Any], shape: tuple[int, ...], cmap: str | None = None
) -> AxesImage:
    """Draw values in [0, 1], or colours, over pixel coordinates."""
    extent = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)
    shown = axes.imshow(values, cmap=cmap, vmin=0, vmax=1, extent=extent, aspect="equal")
    axes.set_title(title)
    axes.set_facecolor(_NO_DATA)  # shows through where values are NaN
    return shown


def _columns(rows: Sequence[Mapping[str, float | None]]) -> dict[str, NDArray[np.float64]]:
    """The columns in order of first occurrence; NaN for missing and infinite values."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = {name: np.array([row.get(name) for row in rows], dtype=np.float64) for name in names}
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in table.items()}


def _curve_names(columns: Mapping[str, object]) -> list[str]:
    """The curves' names without their split, the loss first."""
    prefixes = tuple(f"{split}_" for split in _SPLITS)
    names = [name.split("_", 1)[1] for name in columns if name.startswith(prefixes)]
    return list(dict.fromkeys(["loss", *names]))


def _draw_curve(
    axes: Axes, name: str, epochs: NDArray[np.float64], columns: Mapping[str, NDArray[np.float64]]
) -> None:
    for split, colour in _SPLITS.items():
        values = columns.get(f"{split}_{name}")
        if values is not None and not np.isnan(values).all():
            axes.plot(
                epochs, values, color=colour, marker=_marker(epochs), ms=3.5, lw=1.5, label=split
            )
    axes.set_title(name.replace("_", " "))
    _dress_epochs(axes, epochs)


def _draw_rates(axes: Axes, epochs: NDArray[np.float64], rates: NDArray[np.float64]) -> None:
    """Draw the learning rate, on a logarithmic axis if it changes more than tenfold."""
    axes.step(epochs, rates, where="mid", color=GREY, marker=_marker(epochs), ms=3.5, lw=1.5)
    positive = rates[rates > 0]
    if len(positive) and positive.max() > 10 * positive.min():
        axes.set_yscale("log")
    axes.set_title("learning rate")
    _dress_epochs(axes, epochs)


def _marker(epochs: NDArray[np.float64]) -> str:
    return "o" if len(epochs) <= 30 else ""  # a single point has no line


def _dress_epochs(axes: Axes, epochs: NDArray[np.float64]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    axes.set_xlabel("epoch")
    dress(axes)


def dress(axes: Axes) -> None:
    """A pale grid and no frame."""
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _layout(height: int, width: int) -> tuple[tuple[int, int], tuple[float, float]]:
    """Rows and columns of panels, and the figure's width and height in inches."""
    if width <= 2 * height:
        across = min(4.2, max(8.4 * width / height, 1.8))
        return (1, 3), (round(3 * across + 1.1, 2), round(across * height / width + 0.8, 2))
    return (3, 1), (12.0, round(3 * max(10.5 * height / width, 0.9) + 1.7, 2))


def stretched(image: NDArray[Any]) -> NDArray[np.float32]:
    """The image in [0, 1], with an asinh stretch that keeps faint structures visible."""
    values = np.array(image, dtype=np.float64)
    finite = np.isfinite(values)
    values[~finite] = np.nan
    if not finite.any():
        return values.astype(np.float32)
    low, high = np.percentile(values[finite], (1.0, 99.7))
    softening = 10.0  # linear in the lowest tenth, logarithmic above
    scaled = np.clip((values - low) / max(high - low, np.finfo(np.float64).tiny), 0.0, 1.0)
    stretched: NDArray[np.float64] = np.arcsinh(softening * scaled) / np.arcsinh(softening)
    return stretched.astype(np.float32)


def _truth(target: NDArray[Any], labelled: NDArray[Any]) -> NDArray[np.float64]:
    """The truth as colours, `(H, W, 3)`, which can be interpolated, unlike classes."""
    from matplotlib.colors import to_rgb

    known = known_where(np.asarray(labelled), "labelled")
    positive = np.asarray(target) > 0.5
    colours = np.array([to_rgb(colour) for colour in TRUTH.values()])
    return np.asarray(colours[np.where(known, np.where(positive, 2, 1), 0)])


def _add_colour_bar(figure: Figure, axes: Axes, shown: AxesImage) -> None:
    """Add a colour bar as high as its panel, without moving the panel."""
    share = 0.12 / (figure.get_size_inches()[0] * axes.get_position().width)  # 0.12 inches
    figure.colorbar(shown, cax=axes.inset_axes((1.0 + share, 0.0, share, 1.0)))


def _add_colour_legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    meanings = {**dict(reversed(TRUTH.items())), "no data": _NO_DATA}
    handles = [Patch(facecolor=colour, label=name) for name, colour in meanings.items()]
    add_legend(figure, handles)


def add_legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Add a legend below all panels."""
    figure.legend(
        handles=handles, loc="outside lower center", ncols=max(len(handles), 1), frameon=False
    )


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, which belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def new_panels(num: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels for curves, at most three side by side."""
    across = 2 if num == 4 else min(num, 3)
    down = math.ceil(num / across)
    figure = new_figure(4.0 * across, 2.9 * down + 0.2)
    return figure, [figure.add_subplot(down, across, place + 1) for place in range(num)]


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure in the format of its name."""
    target = Path(path)
    with written(target) as file:
        figure.savefig(file, format=target.suffix.lstrip(".").lower() or "png")
    return target
