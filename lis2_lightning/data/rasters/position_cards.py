"""The keywords of a FITS header that say where an image lies, and what of them a map keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Cards = dict[str, tuple[Any, str]]
CARRIED = re.compile(
    r"(WCSAXES|LONPOLE|LATPOLE|RADESYS|EQUINOX|MJD-OBS|DATE-OBS|MJD-AVG|DATE-AVG|WCSNAME"
    r"|RESTFRQ|RESTWAV|SPECSYS|SSYSOBS|VELOSYS|ZSOURCE|SSYSSRC|VELANGL)[A-Z]?"
    r"|RESTFREQ|VELREF|EPOCH|TIMESYS|MJDREF|OBSGEO-[XYZ]"
    r"|(A|B|AP|BP)_(ORDER|DMAX|\d_\d)|BMAJ|BMIN|BPA|BEAM|OBJECT|TELESCOP|INSTRUME"
)
OF_AXIS = re.compile(r"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME|PV|PS)(\d+)((?:_\d+)?)([A-Z]?)")
OF_AXES = re.compile(r"(CD|PC)(\d+)_(\d+)([A-Z]?)")


def position_cards(header: Any, sides: Sequence[int], leading: Sequence[int | slice] = ()) -> Cards:
    """Pick the keywords that place an image on the sky and on its other axes, and its beam.

    An axis of which one plane is read keeps its position, with its reference pixel moved; an axis
    of channels has none in a map. With SIP, only the two axes of the image are kept: astropy reads
    SIP of two axes only.

    Args:
        header: Of the whole cube.
        sides: Lengths of the axes before height and width.
        leading: What is read of them.
    """
    first = _kept_axes(header, sides, leading)
    number = {axis: new for new, axis in enumerate(sorted(first), start=1)}
    cards: Cards = {}
    for card in header.cards:
        keyword = _renumbered(card.keyword, number)
        if keyword is not None:
            cards[keyword] = (card.value, card.comment)
        if keyword is not None and keyword.startswith("WCSAXES"):
            cards[keyword] = (len(first), card.comment)
    if len(first) > 2:  # a map has two axes of pixels; the keyword must come before the others
        cards = {"WCSAXES": (len(first), "axes of the position"), **cards}
    _move(cards, {number[axis]: pixel for axis, pixel in first.items() if pixel})
    return cards


def _kept_axes(header: Any, sides: Sequence[int], leading: Sequence[int | slice]) -> dict[int, int]:
    """The numbers of the axes whose position is kept, and the pixel of each that is read."""
    num_axes = len(sides) + 2
    first = {1: 0, 2: 0}
    if "A_ORDER" not in header:
        for axis, side, index in zip(range(num_axes, 2, -1), sides, leading, strict=True):
            if side == 1 or not isinstance(index, slice):
                first[axis] = 0 if isinstance(index, slice) else index
        beyond = max([num_axes, *(header[key] for key in header if key.startswith("WCSAXES"))])
        first |= dict.fromkeys(range(num_axes + 1, beyond + 1), 0)
    return first


def _move(cards: Cards, pixels: Mapping[int, int]) -> None:
    """Move the reference pixels of some axes, in all versions of the position."""
    versions = {match[4] for key in cards if (match := OF_AXIS.fullmatch(key))}
    for axis, pixel in pixels.items():
        for version in versions:
            keyword = f"CRPIX{axis}{version}"
            value, comment = cards.get(keyword, (0.0, ""))
            cards[keyword] = (value - pixel, comment)


def _renumbered(keyword: str, number: Mapping[int, int]) -> str | None:
    """The keyword with the numbers of its axes in a map; null if it says nothing of those."""
    if match := OF_AXES.fullmatch(keyword):
        row, column = number.get(int(match[2])), number.get(int(match[3]))
        return f"{match[1]}{row}_{column}{match[4]}" if row and column else None
    if match := OF_AXIS.fullmatch(keyword):
        axis = number.get(int(match[2]))
        return f"{match[1]}{axis}{match[3]}{match[4]}" if axis else None
    return keyword if CARRIED.fullmatch(keyword) else None


def of_two_axes(cards: Cards) -> Cards:
    """Those keywords that place the two axes of an image."""
    two = {1: 1, 2: 2}
    return {
        key: card
        for key, card in cards.items()
        if not key.startswith("WCSAXES") and _renumbered(key, two) == key
    }
