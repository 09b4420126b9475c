from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lis2_lightning.errors import DataError
from lis2_lightning.report import pictures as figures
from lis2_lightning.report.pictures import draw_curves, draw_prediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = [
    {
        "epoch": float(epoch),
        "train_loss": 1 / (epoch + 1),
        "val_loss": 2 / (epoch + 1),
        "lr": 10.0 ** -(epoch // 2),
        "train_dice": 0.1 * epoch,
        "val_dice": 0.05 * epoch,
    }
    for epoch in range(6)
]


def picture(path: Path) -> np.ndarray:
    """The pixels, (H, W, 3), from 0 to 1."""
    from matplotlib.image import imread

    return np.asarray(imread(path))[..., :3]


def has_colour(pixels: np.ndarray, colour: tuple[float, float, float]) -> bool:
    return bool((np.abs(pixels - np.array(colour)).max(axis=-1) < 0.01).any())


def rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def arrays(shape: tuple[int, int] = (40, 60)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    target = np.zeros(shape)
    target[10:20] = 1
    labelled = np.zeros(shape, dtype=bool)
    labelled[5:30, 5:50] = True
    return {
        "image": rng.lognormal(50, 1, shape),
        "target": target,
        "labelled": labelled,
        "probability": rng.random(shape, dtype=np.float32),
    }


def collect(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Have figures collected where they would be written."""
    drawn: list[Figure] = []

    def keep(figure: Figure, path: Path) -> Path:
        drawn.append(figure)
        return path

    monkeypatch.setattr(figures, "save", keep)
    return drawn


def test_curves_show_both_splits(tmp_path):
    path = draw_curves(ROWS, tmp_path / "new" / "curves.png")
    assert path == tmp_path / "new" / "curves.png"
    pixels = picture(path)
    assert all(has_colour(pixels, rgb(colour)) for colour in ("#0072B2", "#D55E00"))
    assert [file.name for file in path.parent.iterdir()] == ["curves.png"]


def test_there_is_a_panel_for_the_loss_each_metric_and_the_rate(monkeypatch, tmp_path):
    drawn = collect(monkeypatch)
    draw_curves(ROWS, tmp_path / "curves.png")
    loss, dice, rate = drawn[0].axes
    assert [axes.get_title() for axes in drawn[0].axes] == ["loss", "dice", "learning rate"]
    assert [line.get_label() for line in dice.lines] == ["train", "val"]
    assert np.asarray(loss.lines[1].get_ydata()).tolist() == [row["val_loss"] for row in ROWS]
    assert rate.get_yscale() == "log"


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"epoch": 0.0, "train_loss": 0.5}],
        [{"epoch": 0.0, "train_loss": float("nan"), "val_loss": None, "lr": 0.0}],
        [{"train_loss": 0.5}, {"train_loss": float("inf"), "train_dice": 0.3}],
        [*ROWS[:3], {"epoch": 3.0}],
    ],
)
def test_missing_columns_and_values_are_left_out(rows, tmp_path):
    assert draw_curves(rows, tmp_path / "curves.png").stat().st_size > 0


@pytest.mark.parametrize("shape", [(40, 60), (20, 300), (200, 30), (1, 1)])
def test_a_prediction_shows_positive_negative_and_unlabelled_pixels(shape, tmp_path):
    shown = arrays(shape)
    if shape == (1, 1):
        shown["labelled"][:] = True
    path = draw_prediction(**shown, path=tmp_path / "prediction.png")
    pixels = picture(path)
    for colour in figures.TRUTH.values():
        assert has_colour(pixels, rgb(colour))


def test_an_unlabelled_positive_pixel_is_grey():
    truth = figures._truth(np.array([[1.0, 1.0, 0.0]]), np.array([[False, True, True]]))
    names = ("unlabelled", "positive", "negative")
    assert [tuple(colour) for colour in truth[0]] == [rgb(figures.TRUTH[name]) for name in names]


def test_the_stretch_shows_faint_pixels_whatever_outliers_and_gaps_there_are():
    values = np.linspace(1e21, 2e21, 10_000)
    values[:3] = [np.nan, np.inf, 1e30]
    stretched = figures.stretched(values.reshape(100, 100)).ravel()
    assert np.isnan(stretched[:2]).all()
    assert stretched[2] == 1
    assert 0.6 < stretched[5_000] < 0.9  # linear would be about 0.5, the outlier's scale 0
    assert (np.diff(stretched[3:]) >= 0).all()


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_an_image_of_one_value_is_drawn(value, tmp_path):
    shown = {**arrays(), "image": np.full((40, 60), value)}
    assert draw_prediction(**shown, path=tmp_path / "prediction.png").exists()


def test_what_was_not_predicted_is_not_drawn_as_a_probability(tmp_path):
    shown = arrays()
    shown["probability"][:15] = np.nan
    before = picture(draw_prediction(**arrays(), path=tmp_path / "all.png"))
    after = picture(draw_prediction(**shown, path=tmp_path / "part.png"))
    no_data = rgb(figures._NO_DATA)
    counts = [
        (np.abs(pixels - np.array(no_data)).max(axis=-1) < 0.01).sum() for pixels in (before, after)
    ]
    assert counts[1] > counts[0] + 10_000


def test_a_large_image_is_strided_down_and_keeps_its_coordinates(monkeypatch, tmp_path):
    drawn = collect(monkeypatch)
    draw_prediction(**arrays((3000, 4100)), path=tmp_path / "prediction.png")
    (shown,) = drawn[0].axes[0].images
    assert np.asarray(shown.get_array()).shape == (1000, 1367)
    assert list(shown.get_extent()) == [-0.5, 4099.5, 2999.5, -0.5]


@pytest.mark.parametrize("name", ["image", "target", "labelled", "probability"])
def test_arrays_of_different_shapes_are_one_clear_sentence(name, tmp_path):
    shown = arrays()
    shown[name] = shown[name][None]
    with pytest.raises(DataError, match="must have the same shape"):
        draw_prediction(**shown, path=tmp_path / "prediction.png")
    assert not list(tmp_path.iterdir())


def test_drawing_never_touches_pyplot(tmp_path):
    # the file alone, for Lightning, which its neighbours import, brings pyplot along
    script = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("figures", {figures.__file__!r})
figures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(figures)
assert "matplotlib" not in sys.modules
figures.draw_curves([{{"epoch": 0, "train_loss": 1.0}}], {str(tmp_path / "curves.svg")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")


def test_the_real_maps_are_drawn(lis2_sample, tmp_path):
    from astropy.io import fits

    image, target, background, missing = (
        fits.getdata(lis2_sample / f"sample_{name}.fits")
        for name in ("image", "target", "background", "missing")
    )
    labelled = (target + background) * missing > 0
    path = draw_prediction(image, target, labelled, target, tmp_path / "prediction.png")
    assert 100_000 < path.stat().st_size < 2_000_000
