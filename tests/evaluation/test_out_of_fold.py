"""Maps of many runs as one: which pixel comes from which, and what they score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from lis2_lightning import DataError
from lis2_lightning.data import SyntheticDataset, TileDataset
from lis2_lightning.evaluation.fields import fields_of
from lis2_lightning.evaluation.out_of_fold import folds_of_areas, gather
from lis2_lightning.evaluation.run_maps import RunMaps
from lis2_lightning.evaluation.summary import summarise, write_csv

fits = pytest.importorskip("astropy.io.fits")
HEIGHT, WIDTH, NUM_FOLDS, SEEDS = 600, 96, 3, (4, 5)  # several bands of rows


@pytest.fixture(scope="module", params=["easy", "hard"])
def tiles(request):
    return SyntheticDataset(
        height=HEIGHT, width=WIDTH, seed=3, difficulty=request.param, size=16, num_folds=NUM_FOLDS
    )


@pytest.fixture(scope="module")
def runs(tiles, tmp_path_factory):
    """Maps as trained networks would leave them, with a threshold each."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    truth = np.asarray(tiles.maps.truth)
    made = []
    for fold in range(NUM_FOLDS):
        for seed in SEEDS:
            probs = 1 / (1 + np.exp(-3 * (truth + rng.standard_normal(truth.shape) - 0.7)))
            path = folder / f"{fold}_{seed}.npy"
            np.save(path, np.where(np.isnan(tiles.maps.image), np.nan, probs).astype(np.float32))
            made.append(RunMaps(fold, seed, 0.3 + 0.1 * fold, [path]))
    return made


@pytest.fixture(scope="module")
def gathered(tiles, runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "out_of_fold.npy"
    return (*gather(fields_of(tiles), runs, [path]), np.load(path))


def expected_maps(tiles, runs):
    """The out-of-fold map of each seed, pixel by pixel, and the thresholds."""
    (field,) = fields_of(tiles)
    maps = {seed: np.zeros((HEIGHT, WIDTH), np.float32) for seed in SEEDS}
    thresholds = np.zeros((HEIGHT, WIDTH))
    rows, columns = field.areas.row_edges, field.areas.column_edges
    for (row, column), fold in np.ndenumerate(field.folds):
        here = np.s_[rows[row] : rows[row + 1], columns[column] : columns[column + 1]]
        for run in runs:
            if run.fold == fold:
                maps[run.seed][here] = np.load(run.paths[0])[here]
                thresholds[here] = run.threshold
    return maps, thresholds.astype(np.float32)


def test_each_pixel_comes_from_the_run_that_did_not_train_on_it(tiles, runs, gathered):
    maps, _ = expected_maps(tiles, runs)
    mean = np.mean([maps[seed] for seed in SEEDS], axis=0, dtype=np.float64)
    np.testing.assert_array_equal(gathered[2], mean.astype(np.float32))


def test_the_figures_are_those_of_scikit_learn_on_the_map(tiles, runs, gathered):
    by_seed, of_map, map_ = gathered
    maps, thresholds = expected_maps(tiles, runs)
    target, labelled = (part[0] for part in tiles.read_maps()[1:])
    positive = target[labelled] > 0
    for scores, probs in ((of_map, map_), *((by_seed[seed], maps[seed]) for seed in SEEDS)):
        figures = scores.figures(np.ones(scores.num_areas, np.int64))
        values = probs[labelled]
        assert scores.num_pixels.sum() == labelled.sum()
        assert figures["dice"] == pytest.approx(f1_score(positive, values >= 0.5), abs=1e-12)
        assert figures["dice_at_threshold"] == pytest.approx(
            f1_score(positive, values >= thresholds[labelled]), abs=1e-12
        )
        ap, auc = average_precision_score(positive, values), roc_auc_score(positive, values)
        assert figures["average_precision"] == pytest.approx(ap, abs=1e-9)
        assert figures["roc_auc"] == pytest.approx(auc, abs=1e-9)


def test_the_summary_has_every_fold_and_seed_with_their_spread(tiles, gathered, tmp_path):
    by_seed, of_map, _ = gathered
    folds = folds_of_areas(fields_of(tiles))
    methods = {"network": (of_map, by_seed), "Sato": (by_seed[4], {})}
    summary = summarise(methods, folds, chosen={("Sato", 1, None): "sigma 2 px"}, num_draws=50)
    assert [(row.fold, row.seed) for row in summary.rows if row.method == "network"] == [
        (None, None),
        *((fold, 4) for fold in (None, 0, 1, 2)),
        *((fold, 5) for fold in (None, 0, 1, 2)),
    ]
    row = summary.row("network")
    spread = summary.spread("network")["dice_at_threshold"]
    of_seeds = [by_seed[seed].figures(np.ones(len(folds), np.int64)) for seed in SEEDS]
    dice = [figures["dice_at_threshold"] for figures in of_seeds]
    assert spread["mean_over_seeds"] == pytest.approx(np.mean(dice))
    assert spread["std_over_seeds"] == pytest.approx(np.std(dice, ddof=1))
    of_folds = [
        np.mean(
            [s.figures((folds == k).astype(int))["dice_at_threshold"] for s in by_seed.values()]
        )
        for k in range(NUM_FOLDS)
    ]
    assert spread["std_over_folds"] == pytest.approx(np.std(of_folds, ddof=1))
    low, high = row.intervals["dice_at_threshold"]
    assert low < row.figures["dice_at_threshold"] < high
    # the same areas are drawn for both: of one method with itself nothing is left
    same = summarise({"network": (of_map, {}), "Sato": (of_map, {})}, folds, chosen={}, num_draws=9)
    assert same.differences["Sato"] == (0.0, (0.0, 0.0))
    write_csv(summary.rows, tmp_path / "figures.csv")
    lines = (tmp_path / "figures.csv").read_text().splitlines()
    assert len(lines) == 1 + 9 + 4
    assert lines[0].startswith("method,fold,seed,num_pixels,num_positive,chosen,dice,")
    assert any(line.startswith("Sato,1,,") and ",sigma 2 px," in line for line in lines)
    table = summary.table()
    assert table.splitlines()[1].startswith("network")
    assert "network - Sato" in table


def test_the_map_of_a_fits_image_says_where_it_lies(tmp_path: Path):
    header = fits.Header({"CTYPE1": "GLON-CAR", "CRVAL1": 30.25, "CDELT1": -0.003})
    fits.PrimaryHDU(np.ones((48, 48), np.float32), header).writeto(tmp_path / "image.fits")
    target = np.eye(48, dtype=np.float32)
    tiles = TileDataset(str(tmp_path / "image.fits"), target=target, size=8, num_folds=3)
    runs = []
    for fold in range(3):
        path = tmp_path / f"{fold}.npy"
        np.save(path, np.full((48, 48), fold / 4, np.float32))
        runs.append(RunMaps(fold, 0, 0.5, [path]))
    gather(fields_of(tiles), runs, [tmp_path / "map.fits"])
    with fits.open(tmp_path / "map.fits") as (hdu,):
        assert (hdu.header["CRVAL1"], hdu.header["FOLDS"]) == (30.25, 3)
        assert set(np.unique(hdu.data)) == {0, 0.25, 0.5}


def test_a_labelled_pixel_without_a_probability_is_refused(tiles, runs, tmp_path):
    path = tmp_path / "nan.npy"
    np.save(path, np.full((HEIGHT, WIDTH), np.nan, np.float32))
    broken = [RunMaps(0, 4, 0.5, [path]), *(run for run in runs if run.fold and run.seed == 4)]
    with pytest.raises(DataError, match=r"no probability at a labelled pixel between rows 0 and"):
        gather(fields_of(tiles), broken, None)
