"""A single run and the baselines on the pixels that the run is tested on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lis2_lightning.evaluation.area_scores import AreaScores
from lis2_lightning.evaluation.baselines import score_baselines
from lis2_lightning.evaluation.fields import fields_of_splits
from lis2_lightning.evaluation.out_of_fold import folds_of_areas, gather
from lis2_lightning.evaluation.run_maps import BEST, RunMaps, threshold_of
from lis2_lightning.evaluation.summary import NETWORK, Summary, summarise
from lis2_lightning.running.mapping import map_paths
from lis2_lightning.trainer import Trainer


def score_splits(trainer: Trainer) -> Summary:
    """Score the baselines on the labelled pixels of the test areas, each once.

    Their parameters are chosen on the areas of training and validation. Where the run's folder
    holds its map, the network is scored too, from the map.

    Raises:
        ConfigError: scikit-image is not installed, or there are no tiles of one division.
        DataError: An image is too large.
    """
    data = trainer.data
    fields = fields_of_splits([data.train, data.val], data.test)
    folder = Path(trainer.output_dir, trainer.run_name)
    paths = map_paths(folder, "prediction", [field.image for field in fields])
    methods: dict[str, tuple[AreaScores, Mapping[int, AreaScores]]] = {}
    if (folder / BEST).is_file() and all(path.is_file() for path in paths):
        run = RunMaps(0, 0, threshold_of(folder / BEST), paths)
        _, scores = gather(fields, [run], None)
        methods[NETWORK] = scores, {}
    of_baselines, chosen = score_baselines(fields, tested=[0])
    methods |= {name: (own, {}) for name, own in of_baselines.items()}
    return summarise(methods, folds_of_areas(fields), chosen=chosen)
