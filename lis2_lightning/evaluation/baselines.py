"""Baselines on the pixels and folds of a network: their parameters come from the other folds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lis2_lightning.errors import ConfigError
from lis2_lightning.evaluation.area_scores import AreaScores
from lis2_lightning.evaluation.fields import Field
from lis2_lightning.evaluation.filters import Filter, Floats, grid, read_filled
from lis2_lightning.parallel import is_main

Chosen = dict[tuple[str, int, int | None], str]


@dataclass(frozen=True, eq=False)
class LabelledPixels:
    """The labelled pixels of all images that lie in a fold, ``(N,)`` each."""

    positive: NDArray[np.bool_]
    areas: NDArray[np.int64]
    folds: NDArray[np.intp]
    masks: Sequence[NDArray[np.bool_]]
    """Which pixels of each image they are, ``(H, W)``."""

    @classmethod
    def of(cls, fields: Sequence[Field]) -> LabelledPixels:
        """Read the truth of all images.

        Raises:
            ConfigError: It has several channels.
        """
        positive, areas, folds, masks = [], [], [], []
        begin = 0
        for field in fields:
            whole = field.band(0, field.shape[0])
            target, labelled = field.read(whole)
            if len(target) > 1:
                raise ConfigError(
                    f"baselines find one kind of object, and the target has {len(target)} channels"
                )
            fold = field.of_pixels(field.folds, whole)
            mask = labelled[0] & (fold >= 0)
            positive.append(target[0][mask] > 0.5)
            areas.append(field.areas_of_pixels(whole, begin)[mask])
            folds.append(fold[mask])
            masks.append(mask)
            begin += field.folds.size
        return cls(np.concatenate(positive), np.concatenate(areas), np.concatenate(folds), masks)


@dataclass(frozen=True, eq=False)
class _Best:
    """The best filter of a method for a fold so far, and what it says of that fold's pixels."""

    dice: float  # on the other folds
    text: str
    probs: Floats
    is_cut: NDArray[np.bool_]


def score_baselines(
    fields: Sequence[Field], *, tested: Sequence[int]
) -> tuple[dict[str, AreaScores], Chosen]:
    """The scores of each baseline on the labelled pixels of some folds.

    For each of them, parameters and threshold are those with the best Dice on all other folds. A
    score in [0, 1] is the share of labelled pixels of the other folds that respond no more: it can
    be compared between folds with different parameters.

    Args:
        fields: The images, each of which is filtered in memory.
        tested: The folds to score.

    Returns:
        Scores by method, and what was chosen by method and fold.

    Raises:
        ConfigError: scikit-image is not installed, or there is no image to filter.
        DataError: An image is too large.
    """
    images = [read_filled(field) for field in fields]
    pixels = LabelledPixels.of(fields)
    best: dict[tuple[str, int], _Best] = {}
    for filter_ in _with_bar(list(grid(images))):
        responses = np.concatenate(
            [
                filter_.respond(image[filter_.channel])[mask]
                for image, mask in zip(images, pixels.masks, strict=True)
            ]
        )
        order = np.argsort(-responses, kind="stable")
        for fold in tested:
            attempt = _attempt(filter_, responses, order, pixels, fold)
            former = best.get((filter_.method, fold))
            if former is None or attempt.dice > former.dice:
                best[filter_.method, fold] = attempt
    num_areas = sum(field.folds.size for field in fields)
    scores: dict[str, AreaScores] = {}
    for (method, fold), item in best.items():
        here = pixels.folds == fold
        own = scores.setdefault(method, AreaScores(num_areas))
        own.add(pixels.areas[here], item.probs, item.is_cut, pixels.positive[here])
    return scores, {(method, fold, None): item.text for (method, fold), item in best.items()}


def _with_bar(filters: list[Filter]) -> Iterable[Filter]:
    hidden = None if is_main() else True  # null: where there is no terminal
    return tqdm(
        filters, desc="baselines", unit="filter", mininterval=1, leave=False, disable=hidden
    )


def _attempt(
    filter_: Filter,
    responses: Floats,
    order: NDArray[np.intp],
    pixels: LabelledPixels,
    fold: int,
) -> _Best:
    """A filter with the threshold that is best on the other folds."""
    others = order[pixels.folds[order] != fold]
    threshold, dice = best_threshold(responses[others], pixels.positive[others])
    held_out = responses[pixels.folds == fold]
    ascending = responses[others][::-1]
    ranks = np.searchsorted(ascending, held_out, side="right") / max(len(ascending), 1)
    text = f"{filter_}, from {threshold:.4g} on"
    return _Best(dice, text, ranks.astype(np.float32), held_out >= threshold)


def best_threshold(descending: Floats, positive: NDArray[np.bool_]) -> tuple[float, float]:
    """The threshold with the highest Dice, and that Dice; a pixel is positive from it on.

    Args:
        descending: Responses from the highest to the lowest, ``(N,)``.
        positive: Whether each pixel truly is, ``(N,)``.

    >>> best_threshold(np.array([9, 7, 7, 1.0], np.float32), np.array([True, True, False, False]))
    (7.0, 0.8)
    """
    if not len(descending):
        return 0.0, 0.0
    hits = np.cumsum(positive)
    dice = 2 * hits / (np.arange(1, len(hits) + 1) + max(hits[-1], 1))
    # pixels of one value lie on the same side of any threshold
    dice[:-1][descending[:-1] == descending[1:]] = -1
    best = int(np.argmax(dice))
    return float(descending[best]), float(dice[best])
