"""The picture of a division into folds: which area of the image each of them holds."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.report.pictures import add_legend, new_figure, save, stretched

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito (2008); further folds repeat them
_COLOURS: Final = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999",
)  # fmt: skip
_MOST_NUMBERS: Final = 400  # areas that have their fold written in them


def draw_folds(
    image: NDArray[np.float32],
    shape: tuple[int, int],
    edges: tuple[NDArray[np.int64], NDArray[np.int64]],
    folds: NDArray[np.intp],
    path: str | os.PathLike[str],
) -> Path:
    """Draw the fold of each area over the image, and return the path.

    Args:
        image: The image or a coarse version of it, ``(h, w)``, in any unit.
        shape: Height and width of the image, px.
        edges: Where rows and columns of areas begin, and the last one ends, px.
        folds: The fold of each area, ``(rows, columns)``; -1 for none.
        path: The file; its suffix selects the format.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    width = min(8.0, max(4.0, 8.0 * shape[1] / shape[0]))
    figure = new_figure(width, width * shape[0] / shape[1] + 0.6)
    axes = figure.add_subplot()
    extent = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)
    axes.imshow(stretched(image), cmap="gray", vmin=0, vmax=1, extent=extent)
    names = [int(fold) for fold in np.unique(folds) if fold >= 0]
    palette = np.zeros((max(names) + 2, 4))  # the last, which -1 selects, shows nothing
    for fold in names:
        palette[fold] = (*to_rgb(_COLOURS[fold % len(_COLOURS)]), 0.45)
    rows, columns = edges
    axes.pcolormesh(columns - 0.5, rows - 0.5, palette[folds], edgecolors="white", linewidth=0.3)
    if folds.size <= _MOST_NUMBERS:
        _number_areas(axes, rows, columns, folds)
    handles = [
        Patch(facecolor=_COLOURS[fold % len(_COLOURS)], alpha=0.6, label=f"fold {fold}")
        for fold in names
    ]
    add_legend(figure, handles)
    return save(figure, path)


def _number_areas(
    axes: Axes, rows: NDArray[np.int64], columns: NDArray[np.int64], folds: NDArray[np.intp]
) -> None:
    size = max(4, round(60 / math.sqrt(folds.size)))
    for (row, column), fold in np.ndenumerate(folds):
        if fold >= 0:
            middle = columns[column : column + 2].mean(), rows[row : row + 2].mean()
            axes.text(*middle, str(fold), ha="center", va="center", fontsize=size, color="white")
