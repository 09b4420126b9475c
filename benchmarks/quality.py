"""How good the network is, beside filters that need no training: the figures of the README.

    python benchmarks/quality.py --seeds 3 --jobs 2
    python benchmarks/quality.py --config configs/fits.yaml --seeds 3

A cross-validation with several seeds scores each labelled pixel once, by a network that was not
trained on it. Printed are the Dice of the mean map with its 95 % interval (a bootstrap over areas),
mean and standard deviation over seeds and over folds, and by how much the network surpasses each
filter, with an interval. The runs stay in ``--output``, and the same command goes on with them.
"""

from __future__ import annotations

import argparse

from lis2_lightning import CrossValidation
from lis2_lightning.evaluation.summary import Summary


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/cross_validate.yaml")
    parser.add_argument("--output", default="runs")
    parser.add_argument("--name", default="quality")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int)
    words = parser.parse_args()
    runs = CrossValidation.from_config(
        words.config,
        num_folds=words.folds,
        seeds=words.seeds,
        output_dir=words.output,
        run_name=words.name,
    )
    print(table(runs.run(jobs=words.jobs)))


def table(summary: Summary) -> str:
    """A line of Markdown for each method."""
    lines = [
        f"{summary.num_folds} folds, {summary.num_areas} labelled areas",
        "",
        "| method | Dice | over seeds | over folds | network minus method |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method in summary.methods:
        row, spread = summary.row(method), summary.spread(method)["dice_at_threshold"]
        value, (low, high) = row.figures["dice_at_threshold"], row.intervals["dice_at_threshold"]
        cells = [method, f"{value:.3f} ({low:.3f} to {high:.3f})"]
        for over in ("seeds", "folds"):
            mean, std = spread[f"mean_over_{over}"], spread[f"std_over_{over}"]
            cells.append("" if mean is None or std is None else f"{mean:.3f} ± {std:.3f}")
        difference = summary.differences.get(method)
        cells.append(
            ""
            if difference is None
            else f"{difference[0]:+.3f} ({difference[1][0]:+.3f} to {difference[1][1]:+.3f})"
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
