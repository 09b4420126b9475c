"""What losses, averages and augmentations gain: a cross-validation of each, as a table.

    python benchmarks/recipes.py --image demo --seeds 3 --folds 5
    python benchmarks/recipes.py --image demo --rows default ema --folds 3 --seeds 1

Every row trains the configuration of ``configs/`` with a few other keys, on each fold and with each
seed, one run after the other. What is trained already is not trained again, so that the same
command goes on where it was stopped. The table is written anew after each row, to ``recipes.csv``
and ``recipes.md`` in the output folder. A row takes about 6 minutes on one core.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lis2_lightning import CrossValidation
from lis2_lightning.config import load_config
from lis2_lightning.evaluation.summary import Summary

ROOT: Final = Path(__file__).parents[1]
IMAGES: Final = {"demo": "configs/cross_validate.yaml", "sample": "configs/fits.yaml"}
SAMPLE: Final = ROOT / "../shared/data/lis2_sample"  # as configs/fits.yaml names it
FLIPS: Final = [{"type": f"Random{side}Flip"} for side in ("Horizontal", "Vertical")]
ROTATION: Final = {"type": "RandomRotation", "degrees": 180}
AUGMENTATIONS: Final = "data.train.data_augmentations"
FIGURES: Final = {"dice_at_threshold": "Dice", "average_precision": "AP"}
DEFAULT: Final = "default"


def recipes(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The keys of each row that differ from a configuration's."""
    lr, epochs = float(config["optimizer"]["lr"]), int(config["epochs"])
    one_cycle = {"type": "OneCycleLR", "max_lr": lr, "total_steps": epochs, "pct_start": 0.25}
    swa = {"type": "StochasticWeightAveraging", "swa_lrs": lr / 3, "swa_epoch_start": 0.75}
    return {
        DEFAULT: {},
        "focal": {"loss": {"type": "focal_loss"}},
        "tversky": {"loss": {"type": "tversky_loss"}},
        "cldice": {"loss": {"type": "cl_dice_loss"}},
        "dice": {"loss": {"type": "dice_loss"}},
        "bce_dice": {"loss": {"type": "bce_dice_loss"}},
        "warm-up": {"scheduler": one_cycle},
        "ema": {"ema": 0.99},  # a run has some hundred steps
        "swa": {"lightning": {"callbacks": [swa]}},
        "constant rate": {"scheduler": None},
        "rotations": {AUGMENTATIONS: [*FLIPS, ROTATION]},
        "no augmentation": {AUGMENTATIONS: []},
        "tta": {"tta": True},
    }


def main() -> None:
    """Train and score the rows, and print the table."""
    options = parse()
    rows: list[dict[str, Any]] = []
    for image in options.image:
        if image == "sample" and not SAMPLE.is_dir():
            print("the real maps are not there: image 'sample' is left out")
            continue
        config = load_config(ROOT / IMAGES[image], is_for_all=True)
        for name in options.rows:
            summary = score(image, name, config, options)
            rows.append({"image": image, "recipe": name, **figures(summary)})
            write(rows, options.output)
    print((options.output / "recipes.md").read_text())


def parse() -> argparse.Namespace:
    """The flags."""
    known = list(recipes({"optimizer": {"lr": 1}, "epochs": 1}))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image", nargs="+", choices=IMAGES, default=list(IMAGES))
    parser.add_argument("--rows", nargs="+", choices=known, default=known)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5, help="at least 3")
    parser.add_argument("--epochs", type=int, help="fewer, to try the script")
    parser.add_argument("--output", type=Path, default=Path("runs/recipes"))
    return parser.parse_args()


def score(image: str, name: str, config: Mapping[str, Any], options: argparse.Namespace) -> Summary:
    """Cross-validate one row; finished runs are read."""
    epochs = options.epochs or config["epochs"]
    changes = recipes({**config, "epochs": epochs})[name]
    folder = options.output / f"{image}-{options.folds}-folds-{options.seeds}-seeds"
    place = {"output_dir": str(folder), "run_name": name.replace(" ", "_")}
    validation = CrossValidation.from_config(
        dict(config),
        num_folds=options.folds,
        seeds=options.seeds,
        **{**changes, **place, "epochs": epochs, "report": False},
    )
    for fold in range(options.folds):
        validation.run_fold(fold)
    return validation.collect(baselines=False)


def figures(summary: Summary) -> dict[str, float | None]:
    """Mean and standard deviation over seeds, and the figures of the mean map of all seeds."""
    of_map, spread = summary.row("network").figures, summary.spread("network")
    row: dict[str, float | None] = {}
    for name in FIGURES:
        mean = spread[name]["mean_over_seeds"]
        row[name] = of_map[name] if mean is None else mean
        row[f"{name}_std"] = spread[name]["std_over_seeds"]
        row[f"{name}_of_mean_map"] = of_map[name]
    return row


def write(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write both tables; a gain is over the default of the same image."""
    with (folder / "recipes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    lines = ["| image | recipe | Dice | gain | AP | Dice of the mean map |", "|" + " --- |" * 6]
    base = {row["image"]: row["dice_at_threshold"] for row in rows if row["recipe"] == DEFAULT}
    for row in rows:
        dice = row["dice_at_threshold"]
        gain = f"{dice - base[row['image']]:+.3f}" if row["image"] in base else "-"
        texts = [
            *(row["image"], row["recipe"], with_spread(row, "dice_at_threshold"), gain),
            *(with_spread(row, "average_precision"), f"{row['dice_at_threshold_of_mean_map']:.3f}"),
        ]
        lines.append(f"| {' | '.join(texts)} |")
    (folder / "recipes.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def with_spread(row: Mapping[str, Any], name: str) -> str:
    """Mean and standard deviation over seeds."""
    std = row[f"{name}_std"]
    return f"{row[name]:.3f}" + ("" if std is None else f" ± {std:.3f}")


if __name__ == "__main__":
    main()
