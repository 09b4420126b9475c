"""The maps of a page: prediction and truth, right and wrong pixels, folds, best and worst tiles."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.report.curve_figures import Drawing
from lis2_lightning.report.map_view import SPLITS, MapView
from lis2_lightning.report.pictures import TRUTH
from lis2_lightning.report.tile_scores import NEGATIVE, NO_DATA, POSITIVE, UNLABELLED, Bytes, Crop
from lis2_lightning.report.vector import INK, dress, inline, new_figure

if TYPE_CHECKING:
    from astropy.wcs import WCS

# Okabe and Ito's colours, far apart in lightness too, on light grey.
RIGHT_AND_WRONG: Final = {
    "not counted": "#ffffff",
    "right, negative": "#d3d3d3",
    "right, positive": "#0072b2",
    "wrong, positive predicted": "#e69f00",
    "wrong, positive missed": "#a3195b",
}
FOLDS: Final = {"none": "#808080", "train": "#0072b2", "val": "#e69f00", "test": "#009e73"}
CONTOURS: Final = {"truth": TRUTH["positive"], "prediction": "#56b4e9"}
# shades of an image, and of what lies below colours: finer ones are noise, which compresses badly
_SHADES: Final = 48
_FEW_SHADES: Final = 12


class SkyPlace:
    """Where the pixels of an image lie on the sky, by its FITS keywords; nowhere without them."""

    def __init__(self, header: str) -> None:
        self.wcs = _celestial(header)

    def text(self, row: float, column: float) -> str:
        """The sky coordinates of a pixel, degrees; empty where there are none."""
        if self.wcs is None:
            return ""
        values = self.wcs.pixel_to_world_values(column, row)
        named = zip(_axis_names(self.wcs), values, strict=True)
        return ", ".join(f"{name} {float(value):.5f}°" for name, value in named)


def _celestial(header: str) -> WCS | None:
    """The two axes of the sky; null where the keywords name none, or astropy refuses them."""
    if not header:
        return None
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about dates and units of which a map shows nothing
            wcs = WCS(Header.fromstring(header, sep="\n")).celestial
            wcs.pixel_to_world_values(0, 0)
    except Exception:  # noqa: BLE001 - keywords of anyone's make can make astropy raise anything
        return None
    return wcs if wcs.naxis == 2 else None


class MapPanel:
    """Draws layers over the pixels of a view, in its sky coordinates where it has some."""

    def __init__(self, view: MapView, name: str) -> None:
        self._view = view
        self._name = name
        height, width = view.shape
        self._is_wide = width > 2 * height
        inside = 8.2 if self._is_wide else min(3.5, max(1.6, 7.0 * width / height))
        margins = {"left": 0.75, "right": 0.5}
        high = max(inside * height / width, 0.4)
        self._figure = new_figure(inside + sum(margins.values()), high + 0.6, **margins)
        wcs = SkyPlace(view.header).wcs
        self._is_sky = wcs is not None
        if wcs is not None:
            step = slice(None, None, view.step)
            self.axes: Any = self._figure.add_subplot(projection=wcs.slice((step, step)))
            self._place: dict[str, Any] = {"origin": "lower"}
        else:
            self.axes = self._figure.add_subplot()
            self.axes.locator_params(nbins=5)
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            self._place = {"origin": "upper", "extent": extent}
        self.axes.set_axisbelow(False)  # above what becomes one image layer: axes stay sharp
        self.axes.set_rasterization_zorder(2.2)

    def show(self, values: NDArray[Any], **style: Any) -> Any:
        """Draw values or colours, ``(h, w)`` or ``(h, w, 4)``."""
        return self.axes.imshow(values, aspect="equal", zorder=1, **self._place, **style)

    def contour(self, values: NDArray[Any], level: float, colour: str) -> None:
        """Draw the contour of a level, where it has one."""
        if (values >= level).any() and (values < level).any():
            self.axes.contour(
                values, levels=[level], colors=[colour], linewidths=0.8, zorder=2, **self._place
            )

    def drawing(self, title: str, alt: str, caption: str = "") -> Drawing:
        """The finished figure."""
        if self._is_sky:
            self._dress_sky()
        else:
            self.axes.set(xlabel="column, px", ylabel="row, px")
            dress(self.axes)
        return Drawing(title, inline(self._figure, f"{self._name} {title}", alt), caption)

    def colour_bar(self, shown: Any) -> None:
        """A bar of the values' colours."""
        beside = self.axes.inset_axes((1.02, 0, 0.03, 1))
        bar = self._figure.colorbar(shown, cax=beside)
        bar.ax.tick_params(colors=INK, labelsize=9)
        bar.outline.set_edgecolor(INK)

    def _dress_sky(self) -> None:
        self.axes.set_facecolor("none")
        names = _axis_names(self.axes.wcs)
        for coordinate, name in zip(self.axes.coords, names, strict=True):
            coordinate.set_ticks(color=INK, number=4)
            coordinate.set_ticklabel(color=INK, size=8, exclude_overlapping=True, simplify=False)
            coordinate.set_axislabel(name, color=INK)
        self.axes.coords.frame.set_color(INK)


def _axis_names(wcs: WCS) -> list[str]:
    """The names of the axes, as their keywords have them: GLON, GLAT."""
    return [str(kind).partition("-")[0] for kind in wcs.wcs.ctype]


def map_drawings(view: MapView, name: str) -> Iterator[Drawing]:
    """Truth, probability, both as contours on the image, and right and wrong pixels."""
    image_name = view.source
    panel = MapPanel(view, name)
    panel.show(_coloured(view.truth, TRUTH.values()), interpolation="nearest")
    yield panel.drawing("Truth", f"The truth of {image_name}: {_shares(view.truth, TRUTH)}")
    if view.has_map:
        probability = _floats(view.probability)
        panel = MapPanel(view, name)
        shades = _rounded(probability, _SHADES)
        style = {"cmap": "cividis", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
        panel.colour_bar(panel.show(shades, **style))
        share = float((probability >= view.threshold).mean())
        alt = f"The probability of {image_name}; {share:.1%} of it is at least {view.threshold:.3f}"
        yield panel.drawing("Probability", alt)
    panel = MapPanel(view, name)
    panel.show(grey(view.image), interpolation="nearest")
    _contours(panel, view.truth, view.probability, view.threshold)
    what = "truth and prediction" if view.has_map else "the truth"
    yield panel.drawing("Contours on the image", f"Contours of {what} on {image_name}")
    if view.has_map:
        verdict = verdicts(view.truth, view.probability, view.threshold)
        panel = MapPanel(view, name)
        panel.show(_coloured(verdict, RIGHT_AND_WRONG.values()), interpolation="nearest")
        alt = f"Right and wrong pixels of {image_name}: {_shares(verdict, RIGHT_AND_WRONG)}"
        yield panel.drawing("Right and wrong pixels", alt)


def fold_drawing(view: MapView, name: str) -> Drawing:
    """The areas of each split, on the image."""
    panel = MapPanel(view, name)
    colours = _coloured(view.splits, FOLDS.values())
    shade = np.where(view.image == NO_DATA, 0.5, view.image / (NO_DATA - 1))
    colours[..., :3] = 0.45 * colours[..., :3] + 0.55 * _rounded(shade, _FEW_SHADES)[..., None]
    panel.show(colours, interpolation="nearest")
    shares = _shares(view.splits, dict.fromkeys(SPLITS))
    return panel.drawing("Areas of the splits", f"Where each split lies: {shares}")


def tile_drawing(crop: Crop, view: MapView) -> Drawing:
    """A tile: image, truth, probability, and right and wrong pixels, side by side."""
    size = len(crop.image)
    sky = SkyPlace(view.header)
    verdict = verdicts(crop.truth, crop.probability, view.threshold)
    panels = [
        grey(crop.image),
        _coloured(crop.truth, TRUTH.values()),
        _probability_colours(crop.probability),
        _coloured(verdict, RIGHT_AND_WRONG.values()),
    ]
    gap = np.zeros((size, max(1, size // 16), 4))
    strip = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    tp, fp, fn, _ = crop.counts
    bottom, right = crop.top + size - 1, crop.left + size - 1
    place = f"Rows {crop.top} to {bottom}, columns {crop.left} to {right}"
    middle = (size - 1) / 2
    centre = sky.text(crop.top + middle, crop.left + middle)
    numbers = (
        f"{fp + fn} of {sum(crop.counts)} labelled pixels are wrong: {fp} predicted, {fn} missed; "
        f"{tp} positive are right."
    )
    caption = f"Centre {centre}. {numbers}" if centre else numbers
    alt = f"Image, truth, probability and right and wrong pixels of a tile: {place}"
    # as on the sky, the first row is the lowest
    strip = strip if sky.wcs is None else strip[::-1]
    return Drawing(place, pixels(strip, alt), caption)


def pixels(colours: NDArray[np.float64], alt: str) -> str:
    """Colours, ``(h, w, 4)``, as an ``<img>`` element whose pixels stay sharp when enlarged."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, np.rint(colours * 255).astype(np.uint8), format="png")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img class="pixels" src="data:image/png;base64,{data}" alt="{escape(alt)}">'


def _probability_colours(probability: Bytes) -> NDArray[np.float64]:
    from matplotlib import colormaps

    colours = np.asarray(colormaps["cividis"](_floats(probability)))
    colours[probability == NO_DATA] = 0  # transparent
    return colours


def verdicts(truth: Bytes, probability: Bytes, threshold: float) -> Bytes:
    """Of each pixel the index in :data:`RIGHT_AND_WRONG`.

    >>> truth = np.array([0, 1, 1, 2, 2, 2], np.uint8)
    >>> verdicts(truth, np.array([200, 0, 200, 200, 0, 255], np.uint8), 0.5).tolist()
    [0, 1, 3, 2, 4, 0]
    """
    is_chosen = probability >= np.float32(threshold) * (NO_DATA - 1)
    by_truth = np.zeros((3, 2), np.uint8)
    by_truth[NEGATIVE], by_truth[POSITIVE] = (1, 3), (4, 2)
    known = np.where(probability == NO_DATA, UNLABELLED, truth)
    return np.asarray(by_truth[known, is_chosen.astype(np.intp)])


def _contours(panel: MapPanel, truth: Bytes, probability: Bytes, threshold: float) -> None:
    panel.contour((truth == POSITIVE).astype(np.float32), 0.5, CONTOURS["truth"])
    panel.contour(np.nan_to_num(_floats(probability)), threshold, CONTOURS["prediction"])


def _floats(values: Bytes) -> NDArray[np.float32]:
    """Bytes as numbers in [0, 1], NaN without data."""
    numbers = values.astype(np.float32) / np.float32(NO_DATA - 1)
    numbers[values == NO_DATA] = np.nan
    return numbers


def grey(image: Bytes) -> NDArray[np.float64]:
    """An image in few shades of grey, ``(h, w, 4)``; transparent without data."""
    shades = _rounded(image / (NO_DATA - 1), _SHADES)
    alpha = (image != NO_DATA).astype(np.float64)
    return np.stack([shades, shades, shades, alpha], axis=-1).clip(0, 1)


def _rounded(values: NDArray[Any], steps: int) -> NDArray[Any]:
    """Numbers in [0, 1], of which so many steps are told apart."""
    return np.asarray(np.rint(values * steps) / steps)


def _coloured(indices: Bytes, colours: Any) -> NDArray[np.float64]:
    from matplotlib.colors import to_rgba_array

    return np.asarray(to_rgba_array(list(colours)))[indices]


def _shares(indices: Bytes, names: Any) -> str:
    """How much of a map each of its kinds is, in words."""
    counts = np.bincount(indices.reshape(-1), minlength=len(names)) / max(indices.size, 1)
    return ", ".join(
        f"{name} {share:.1%}" for name, share in zip(names, counts, strict=True) if share
    )
