"""Matplotlib figures as SVG inside a page, which takes its colours from the page's style.

Text stays text, and each colour of a figure stands for a variable of the style, so that one drawing
serves light and dark pages and print.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that nothing else draws, and the variables of the style that replace them.
INK: Final = "#010201"
FAINT: Final = "#020301"
SERIES: Final = tuple(f"#0{number}0501" for number in range(1, 9))
_VARIABLES: Final = {
    INK: "var(--ink)",
    FAINT: "var(--grid)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)},
}
DASHES: Final = ("-", "--", "-.", ":")
DPI: Final = 150  # of image layers
_METADATA: Final = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_GROUP_ID: Final = re.compile(r'<g id="[^"]*"')
_HEAD: Final = re.compile(r"<svg[^>]*>")


def new_figure(width: float, height: float, *, left: float = 0.6, right: float = 0.12) -> Figure:
    """A figure of this size with these margins, inches, on a transparent ground.

    The margins are fixed: Matplotlib takes longer to find its own than to draw.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="none")
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, bottom=0.5 / height, top=1 - 0.1 / height
    )
    return figure


def dress(axes: Axes) -> None:
    """Draw frame, ticks and labels in the page's colours."""
    axes.set_facecolor("none")
    axes.tick_params(colors=INK, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(10)
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_linewidth(0.8)


def inline(figure: Figure, name: str, alt: str) -> str:
    """The figure as an ``<svg>`` element; `name` keeps its ids apart from those of others.

    The element is an image to a screen reader, which reads `alt`.
    """
    import matplotlib as mpl

    text = io.StringIO()
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "DejaVu Sans"}
    with mpl.rc_context(style):
        figure.savefig(text, format="svg", facecolor="none", metadata={"Date": None})
    svg = text.getvalue()
    svg = _METADATA.sub("", svg[svg.index("<svg") :])
    svg = _GROUP_ID.sub("<g", svg)  # equal in all figures, and nothing refers to them
    svg = svg.replace("'DejaVu Sans'", "sans-serif")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    size = re.search(r'viewBox="([^"]*)"', svg)
    head = f'<svg viewBox="{size[1] if size else ""}" role="img" aria-label="{escape(alt)}">'
    return _HEAD.sub(lambda _: head, svg, count=1)


def spoken(name: str) -> str:
    """The name of a value as words.

    >>> spoken("roc_auc"), spoken("average_precision")
    ('ROC AUC', 'average precision')
    """
    return name.replace("_", " ").replace("roc auc", "ROC AUC")
