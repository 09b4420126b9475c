"""What a page says of a run, or of several: figures, tables and sentences, for the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import yaml

from lis2_lightning.base.files import shown, size_text
from lis2_lightning.base.records import Record
from lis2_lightning.report.curve_figures import learning_drawings, score_drawings, time_drawing
from lis2_lightning.report.map_figures import (
    CONTOURS,
    FOLDS,
    RIGHT_AND_WRONG,
    fold_drawing,
    map_drawings,
    tile_drawing,
)
from lis2_lightning.report.pictures import TRUTH
from lis2_lightning.report.run_record import SPLIT_NAMES, RunRecord, flat
from lis2_lightning.report.vector import spoken

_SCORE_NAMES: Final = {
    "val_threshold": "threshold, best on validation",
    "dice_at_val_threshold": "test dice at the threshold",
}
KEYS: Final[Mapping[str, Mapping[str, str]]] = {
    "truth": TRUTH,
    "verdicts": RIGHT_AND_WRONG,
    "folds": {SPLIT_NAMES.get(name, name): colour for name, colour in FOLDS.items()},
    "contours": CONTOURS,
}
Rows = dict[str, str]


def of_run(record: RunRecord) -> dict[str, Any]:
    """What the page of one run shows; what the run does not have is empty, and told as missing."""
    view = record.view
    sections: dict[str, Any] = {
        "learning": list(learning_drawings([record])),
        "scores": list(score_drawings([record])),
        "confusion": record.confusion,
        "maps": [] if view is None else list(map_drawings(view, record.name)),
        "folds": None if view is None else fold_drawing(view, record.name),
        "worst": [] if view is None else [tile_drawing(c, view) for c in view.worst],
        "best": [] if view is None else [tile_drawing(c, view) for c in view.best],
        "times": time_drawing(record),
    }
    return {
        "name": record.name,
        "status": _status(record),
        "cards": _cards(record),
        "facts": _facts(record),
        "data": _data(record),
        "config": yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True),
        "packages": {str(k): str(v) for k, v in _dict(record.environment, "packages").items()},
        "split": "validation" if not record.config.get("test_dataset") else "test",
        "cut": f"{record.cut:.3f}",
        "view": view,
        "scored": "" if view is None else _scored(record),
        "files": [(name, size_text(size)) for name, size in record.files],
        "lost": list(_lost(record)),
        "missing": list(_missing(record, sections)),
        **sections,
    }


def of_runs(records: Sequence[RunRecord]) -> dict[str, Any]:
    """What the page of several runs shows."""
    records = _distinct(records)
    maps = [
        (record.name, list(map_drawings(record.view, record.name)))
        for record in records
        if record.view is not None
    ]
    without = [record.name for record in records if record.view is None]
    unscored = [record.name for record in records if record.histogram is None]
    return {
        "names": [record.name for record in records],
        "differences": differences(records),
        "scores": _table([_results(record) for record in records]),
        "learning": list(learning_drawings(records)),
        "curves": list(score_drawings(records)),
        "maps": maps,
        "map_titles": list(dict.fromkeys(d.title for _, drawings in maps for d in drawings)),
        "missing": [
            *(f"{name} has no map of its image." for name in without),
            *(f"{name} has no curves: its test counted no scores." for name in unscored),
        ],
    }


def _distinct(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs, of which those with one name have the path of their folder as their name."""
    names = [record.name for record in records]
    return [
        replace(record, name=shown(record.folder)) if names.count(record.name) > 1 else record
        for record in records
    ]


def differences(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """The keys in which the configurations of runs differ, with the value of each run."""
    rows = _table([flat(record.config) for record in records])
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _table(columns: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """Mappings as rows: a key, and the value of each; a dash where one has none."""
    keys = dict.fromkeys(key for column in columns for key in column)
    return [(key, [column.get(key, "-") for column in columns]) for key in keys]


def _results(record: RunRecord) -> Rows:
    info = _dict(record.result, "info")
    rows = {f"best {record.monitor}": _number(info.get("best_loss"))}
    done, planned = info.get("epochs_run", len(record.rows)), record.config.get("epochs")
    rows["epochs"] = str(done) if planned is None else f"{done} of {planned}"
    rows["ended"] = _status(record)
    scores = {_SCORE_NAMES.get(k, f"test {spoken(k)}"): v for k, v in record.scores.items()}
    return rows | {name: _number(value) for name, value in scores.items()}


def _cards(record: RunRecord) -> Rows:
    """The figures that are read first."""
    rows = _results(record)
    rows.pop("ended")
    return {key: value for key, value in rows.items() if value != "-"}


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _status(record: RunRecord) -> str:
    if record.result:
        return str(record.result.get("ended", "is over"))
    stopped = record.of_kind("stopped")
    return f"stopped: {stopped[-1]['reason']}" if stopped else "not over, or killed"


def _facts(record: RunRecord) -> Rows:
    """Where, when and with what a run was trained."""
    environment = record.environment
    seconds = record.result.get("seconds")
    devices = ", ".join(map(str, environment.get("devices") or []))
    command = environment.get("command")
    facts = {
        "run folder": str(record.folder.resolve()),
        "started": environment.get("started"),
        "training time": f"{seconds:.1f} s" if isinstance(seconds, int | float) else None,
        "command": " ".join(map(str, command)) if isinstance(command, list) else command,
        "seed": record.config.get("seed"),
        "git commit": environment.get("git_commit"),
        "processes": environment.get("world_size"),
        "hardware": " ".join(
            str(environment[key]) for key in ("accelerator", "processor") if key in environment
        )
        + (f", {devices}" if devices else ""),
        "system": environment.get("platform"),
        "Python": environment.get("python"),
    }
    return {key: str(value) for key, value in facts.items() if value not in {None, ""}}


def _data(record: RunRecord) -> list[Rows]:
    """A row for each image of each split."""
    starts = record.of_kind("start")
    return [
        {
            "split": SPLIT_NAMES.get(split, split),
            "data set": str(data.get("class", "-")),
            "samples": str(data.get("samples", "-")),
            "image": str(image.get("source", "-")),
            "size, px": " x ".join(map(str, image.get("shape", []))) or "-",
            "tile, px": str(image.get("size", "-")),
            "digest": str(image.get("digest", "-")),
        }
        for split, data in _dict(starts[-1] if starts else {}, "data").items()
        for image in data.get("images") or [{}]
    ]


def _dict(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _scored(record: RunRecord) -> str:
    """Which tiles the best and worst ones were chosen from."""
    view = record.view
    if view is None or not view.num_tiles:
        return ""
    some = "all" if view.num_scored == view.num_tiles else f"{view.num_scored} of"
    return f"{some} {view.num_tiles} {SPLIT_NAMES[view.scored]} tiles"


def _missing(record: RunRecord, sections: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each part that the run has nothing for."""
    if not record.environment:
        yield "There is no environment.json, so command and versions are unknown."
    if not sections["learning"]:
        yield "There are no curves over epochs: logs_train.csv has no row."
    if record.histogram is None:
        yield (
            "There are no precision, ROC and calibration curves: nothing was tested yet, or no "
            "metric counts scores (average_precision does)."
        )
    view = record.view
    if view is None:
        yield "There are no maps: the run is not about a single image, or is not over."
    elif not view.has_map:
        folder = shown(record.folder)
        predict = f"lis2 predict --ckpt_path {folder}"
        yield f"There is no prediction yet: {predict} makes it, and lis2 report adds it."
    elif not view.worst and not view.best:
        yield "The map covers no labelled pixel, so there are no best and worst tiles."
    if not record.seconds:
        yield "How long epochs took was not noted."


def _lost(record: RunRecord) -> Iterator[str]:
    """What went wrong on the way, in order of time; then what trackers have not received."""
    for event in record.events:
        if text := _event(event):
            when = datetime.fromtimestamp(float(event["time"]), UTC)
            yield f"{when:%Y-%m-%d %H:%M:%S} UTC: {text}"
    for tracker in record.trackers:
        if tracker["left"] or tracker["error"]:
            error = f" ({tracker['error']})" if tracker["error"] else ""
            yield (
                f"Tracker {tracker['name']}: {tracker['left']} rows have not arrived{error}; "
                f"lis2 sync {shown(record.folder)} delivers them."
            )


def _event(event: Record) -> str:
    """An event in words; empty where nothing was lost."""
    if event["kind"] == "warning":
        return f"warning: {event['text']}"
    if event["kind"] == "stopped":
        return f"the run stopped: {event['reason']}"
    if event["kind"] == "start" and (event["epoch"] or event["batch"]):
        inside = f", batch {event['batch']}" if event["batch"] else ""
        return f"the run was resumed in epoch {event['epoch']}{inside}"
    return ""
