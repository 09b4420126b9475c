from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.base.records import append_record
from lis2_lightning.data import synthetic_maps
from lis2_lightning.report.map_figures import SkyPlace
from lis2_lightning.report.map_view import MapView
from lis2_lightning.report.page import write_page
from lis2_lightning.report.run_record import RunRecord

Finished = tuple[Path, dict[str, Any]]
Make = Callable[..., dict[str, Any]]
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Tags with their attributes, headings, and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f" {data.strip()}"

    def of(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def page(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_page([finished[0]], tmp_path_factory.mktemp("page") / "page.html"))


def test_training_leaves_the_same_page(finished: Finished, page: Page) -> None:
    left = Page(finished[0] / "report.html")
    assert left.open == page.open == []
    assert [tag for tag, _ in left.tags][:40] == [tag for tag, _ in page.tags][:40]


def test_the_counts_on_the_page_give_the_dice_of_the_result(finished: Finished, page: Page) -> None:
    table = page.source[page.source.index('<table class="confusion">') :]
    cells = re.findall(r"<td>([\d,]+)</td>", table[: table.index("</table>")])
    tp, fn, fp, tn = (int(cell.replace(",", "")) for cell in cells)
    scores = finished[1]["metrics_test"]
    assert 2 * tp / (2 * tp + fp + fn) == pytest.approx(scores["dice_at_val_threshold"], abs=1e-6)
    with np.load(finished[0] / "test_results.npz") as file:
        assert tp + fp + fn + tn == file["histogram"].sum()
        assert file["threshold"] == pytest.approx(scores["val_threshold"])


def test_the_page_says_what_was_trained_on_what(finished: Finished, page: Page) -> None:
    environment = json.loads((finished[0] / "environment.json").read_text())
    for text in (
        "Run tiny",
        environment["packages"]["torch"],
        "5 of 5",
        f"{finished[1]['best_loss']:.4g}",
        "SyntheticDataset",
        "validation",
        "lr: 0.02",  # of the configuration
        "test_results.npz",
        "No warning, no interruption",
    ):
        assert text in page.text, text
    assert "Not on this page" not in page.text


def test_the_page_asks_for_nothing_outside_itself(page: Page) -> None:
    for attributes in page.of("a", "link", "img", "image", "use", "script", "iframe"):
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not page.of("script")
    assert "url(http" not in page.source
    assert "default-src 'none'" in page.source


def test_each_picture_has_a_text_and_each_id_is_its_own(page: Page) -> None:
    pictures = page.of("svg")
    assert len(pictures) > 10
    assert all(p["role"] == "img" and len(p["aria-label"] or "") > 10 for p in pictures)
    assert all(len(image["alt"] or "") > 10 for image in page.of("img"))
    ids = Counter(a["id"] for _, a in page.tags if "id" in a)
    assert max(ids.values()) == 1
    linked = {(a["href"] or "").removeprefix("#") for a in page.of("a")}
    assert linked <= ids.keys()


def test_headings_skip_no_level(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_and_curves_have_contrast_in_light_dark_and_print(page: Page) -> None:
    palettes = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", page.source, re.DOTALL)
    ]
    assert len(palettes) == 3
    for palette in palettes:
        for ground in ("paper", "panel"):
            for name in ("ink", "soft", "link", *(f"series-{n}" for n in range(1, 9))):
                dark, light = sorted((luminance(palette[name]), luminance(palette[ground])))
                least = 3 if name.startswith("series") and ground == "panel" else 4.5
                assert (light + 0.05) / (dark + 0.05) >= least, (name, ground, palette[name])


def test_a_name_of_the_configuration_is_text_not_code(copied: Path) -> None:
    with (copied / "config.yaml").open("a", encoding="utf-8") as file:
        file.write("note: <script>alert(1)</script>\n")
    page = Page(write_page([copied]))
    assert not page.of("script")
    assert "<script>alert(1)</script>" in page.text


def test_what_a_run_does_not_have_is_a_sentence(copied: Path) -> None:
    for name in ("test_results.npz", "report_map.npz", "environment.json", "events.jsonl"):
        (copied / name).unlink()
    (copied / "logs_train.csv").write_text("epoch,train_loss\n", encoding="utf-8")
    page = Page(write_page([copied]))
    for text in ("no environment.json", "no curves", "no precision", "no maps", "not noted"):
        assert text in page.text
    assert not page.of("svg", "img")
    headings = re.findall(r"<h2[^>]*>([^<]*)", page.source)
    assert headings == ["What was trained on what", "On the way", "Files", "Not on this page"]


def test_what_was_lost_on_the_way_is_told(copied: Path) -> None:
    events = copied / "events.jsonl"
    append_record(events, "warning", text="the disk is slow & full")
    append_record(events, "stopped", reason="SIGTERM in epoch 3")
    append_record(events, "start", epoch=3, batch=2, processes=1, data={})
    with events.open("a", encoding="utf-8") as file:
        file.write('{"kind": "epoch"}\n{"kind": "unheard of", "time": 0}\n')
        file.write('{"kind": "warning", "te')  # a crash cut it short
    (copied / "trackers").mkdir()
    append_record(copied / "trackers" / "mlflow.jsonl", "row", values={})
    text = Page(write_page([copied])).text
    for sentence in (
        "warning: the disk is slow & full",
        "the run stopped: SIGTERM in epoch 3",
        "the run was resumed in epoch 3, batch 2",
        "Tracker mlflow: 1 rows have not arrived",
    ):
        assert sentence in text


def test_several_runs_share_a_page_that_tells_their_differences(
    finished: Finished, copied: Path, tmp_path: Path
) -> None:
    text = (copied / "config.yaml").read_text(encoding="utf-8").replace("lr: 0.02", "lr: 0.5")
    (copied / "config.yaml").write_text(text, encoding="utf-8")
    page = Page(write_page([finished[0], copied], tmp_path / "both.html"))
    table = page.source[page.source.index("<caption>Keys") :]
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', table[: table.index("</table>")])
    assert [name for name, _ in rows] == ["optimizer.lr"]
    assert re.findall(r"<td[^>]*>(.*?)</td>", rows[0][1]) == ["0.02", "0.5"]
    assert {"tiny", "copied"} <= set(re.findall(r"<h4>(.*?)</h4>", page.source))
    assert "validation) from" in str([a["aria-label"] for a in page.of("svg")])


def test_any_name_of_a_run_stands_in_the_legend(copied: Path, tmp_path: Path) -> None:
    other = copied.rename(copied.with_name("_a $x$ & <b>"))
    third = Path(shutil.copytree(other, tmp_path / "plain"))
    page = Page(write_page([other, third], tmp_path / "both.html"))
    assert "_a $x$ & <b> (validation)" in page.text
    assert not page.of("b")


def test_runs_of_one_name_are_told_apart_by_their_folders(copied: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(copied, tmp_path / "elsewhere" / "copied"))
    page = Page(write_page([copied, other], tmp_path / "both.html"))
    assert "The configurations are the same" in page.text
    assert str(other) in page.text


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("report", [True, False])
def test_training_writes_a_page_unless_report_is_false(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, report: bool
) -> None:
    asked: list[list[Path]] = []
    monkeypatch.setattr("lis2_lightning.report.run_pictures.write_page", asked.append)
    Trainer.from_config(tiny(report=report, epochs=1)).train()
    assert asked == ([[tmp_path / "runs" / "tiny"]] if report else [])


@pytest.mark.usefixtures("no_pictures")
def test_a_page_that_cannot_be_written_does_not_fail_the_run(
    tiny: Make, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    def full(_: list[Path]) -> None:
        raise ConfigError("report.html cannot be written: the disk is full")

    monkeypatch.setattr("lis2_lightning.report.run_pictures.write_page", full)
    info = Trainer.from_config(tiny(epochs=1)).train()
    assert info["epochs_run"] == 1
    assert "no report of the run: report.html cannot be written: the disk is full" in said.text


def test_a_trainer_that_has_not_trained_has_no_page(tiny: Make) -> None:
    trainer = Trainer.from_config(tiny())
    with pytest.raises(ConfigError, match="is no folder"):
        trainer.report()
    assert not Path(trainer.output_dir).exists()


@pytest.fixture(scope="module")
def sky_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a FITS image with a position on the sky."""
    from astropy.io import fits

    folder = tmp_path_factory.mktemp("sky")
    maps = synthetic_maps(96, 128, seed=3)
    header = fits.Header(
        {
            "CTYPE1": "GLON-CAR",
            "CTYPE2": "GLAT-CAR",
            "CRVAL1": 30.0,
            "CRVAL2": 0.0,
            "CRPIX1": 64.5,
            "CRPIX2": 48.5,
            "CDELT1": -0.01,
            "CDELT2": 0.01,
            "CUNIT1": "deg",
            "CUNIT2": "deg",
        }
    )
    fits.writeto(folder / "image.fits", maps.image, header)
    for name in ("target", "background"):
        fits.writeto(folder / f"{name}.fits", getattr(maps, name))
    data = {
        "type": "TileDataset",
        "image": str(folder / "image.fits"),
        "target": str(folder / "target.fits"),
        "background": str(folder / "background.fits"),
        "size": 16,
        "num_folds": 2,
    }
    Trainer.from_config(
        {
            "output_dir": str(folder),
            "run_name": "sky",
            "model": {"type": "unet", "features": 2, "num_blocks": 1},
            "train_dataset": {**data, "folds": [0]},
            "val_dataset": {**data, "folds": [1]},
            "epochs": 1,
            "seed": 1,
            "num_workers": 0,
            "lightning": {"enable_progress_bar": False, "accelerator": "cpu"},
        }
    ).train()
    return folder / "sky"


@pytest.mark.slow
def test_tiles_have_the_sky_coordinates_of_their_centres(sky_run: Path) -> None:
    from astropy.io import fits
    from astropy.wcs import WCS

    view = MapView.load(sky_run)
    assert view is not None
    assert view.scored == "val"
    wcs = WCS(fits.getheader(sky_run.parent / "image.fits"))
    page = Page(sky_run / "report.html")
    assert view.worst
    for crop in view.worst:
        longitude, latitude = wcs.pixel_to_world_values(crop.left + 7.5, crop.top + 7.5)
        text = f"GLON {longitude:.5f}°, GLAT {latitude:.5f}°"
        assert SkyPlace(view.header).text(crop.top + 7.5, crop.left + 7.5) == text
        assert text in page.text
    assert {">GLON</text>", ">GLAT</text>"} <= set(re.findall(r">\w+</text>", page.source))
    assert "Scores of the validation pixels" in page.text


def test_a_position_that_is_none_leaves_the_axes_in_pixels() -> None:
    assert SkyPlace("CTYPE1  = 'WRONG---XXX'").text(1, 2) == ""
    assert SkyPlace("").text(1, 2) == ""


def test_a_record_knows_how_long_epochs_took(finished: Finished) -> None:
    record = RunRecord.read(finished[0])
    assert sorted(record.seconds) == [0, 1, 2, 3, 4]
    assert all(seconds > 0 for seconds in record.seconds.values())


@pytest.mark.slow
def test_a_large_image_is_shown_with_its_map_once_it_was_mapped(
    tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lis2_lightning.report.run_pictures.DRAWN_PIXELS", 1)
    first = Trainer.from_config(tiny(epochs=1))
    first.train()
    folder = Path(first.output_dir) / "tiny"
    assert "no prediction yet" in Page(first.report()).text
    trainer = Trainer.from_snapshot(folder / "best.pt")
    trainer.predict(output=folder.parent / "elsewhere.npy")  # is not the run's own
    assert "no prediction yet" in Page(trainer.report()).text
    trainer.predict()
    page = Page(trainer.report())
    assert "no prediction yet" not in page.text
    assert "Right and wrong pixels" in page.text
