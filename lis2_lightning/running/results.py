"""What a run leaves at its end: the stored result, and a table."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lis2_lightning.assembly.assemble import Assembly
from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.files import atomic
from lis2_lightning.base.tables import table
from lis2_lightning.training.module import AT_THRESHOLD, THRESHOLD

_log = logging.getLogger("lis2_lightning")
TEST: Final = "test_results.csv"
_RESULT: Final = "result.json"


def final_info(
    settings: Settings, built: Assembly, test_scores: Mapping[str, float]
) -> dict[str, Any]:
    """The result of a run, as ``Trainer.get_final_info`` returns it."""
    return {
        "best_loss": built.best.best_loss,
        "epochs_run": built.log.epochs_run,
        "run_name": settings.run_name,
        "output_dir": str(settings.output_dir),
        "final_model_path": _existing(settings.run_dir / "best.pt"),
        "last_model_path": _existing(settings.run_dir / "last.pt"),
        "metrics_train": _split(built.log.row, "train_"),
        "metrics_val": _split(built.log.row, "val_"),
        "metrics_test": _split(test_scores, "test_"),
    }


def _existing(path: Path) -> str | None:
    return str(path) if path.is_file() else None


def _split(values: Mapping[str, float | None], prefix: str) -> dict[str, float]:
    return {
        key.removeprefix(prefix): value
        for key, value in values.items()
        if key.startswith(prefix) and value is not None
    }


def stored(settings: Settings) -> dict[str, Any]:
    """The result of a run that is over; empty where it is to be resumed or started again."""
    path = settings.run_dir / _RESULT
    if settings.resume is False or not path.is_file():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    info: dict[str, Any] = record["info"]
    if not record["stopped_early"] and info["epochs_run"] < settings.epochs:
        return {}
    _log.info("%s is complete: its stored result is returned", settings.run_dir)
    _log.info("%s", _summary(settings, info, record["seconds"]))
    return info


def store(settings: Settings, built: Assembly, info: Mapping[str, Any], seconds: float) -> None:
    """Store a run's result, which marks it as over, and show it, in the main process."""
    if not built.lightning.is_global_zero:
        return
    stopped_early = _stopped_early(built)
    record = {"info": dict(info), "stopped_early": stopped_early, "seconds": round(seconds, 3)}
    with atomic(settings.run_dir / _RESULT) as file:
        file.write(json.dumps(record, indent=2).encode() + b"\n")
    _log.info("%s", _summary(settings, info, seconds))


def remove_temporary(settings: Settings, built: Assembly) -> None:
    """Remove a ``last.pt`` that no key asked for, once the run that it kept is over."""
    is_over = _stopped_early(built) or built.log.epochs_run >= settings.epochs
    is_wanted = settings.save_last or settings.save_every_n_steps or settings.save_every_minutes
    if is_over and not is_wanted and built.lightning.is_global_zero:
        (settings.run_dir / "last.pt").unlink(missing_ok=True)


def _stopped_early(built: Assembly) -> bool:
    # a run that lightning.max_time or max_steps ended is not over, and may be resumed
    stoppers = built.lightning.early_stopping_callbacks
    return any(s.stopped_epoch > 0 or s.wait_count >= s.patience for s in stoppers)


def _summary(settings: Settings, info: Mapping[str, Any], seconds: float) -> str:
    rows = {
        f"best {settings.monitor}": f"{info['best_loss']:.6g}",
        "epochs": f"{info['epochs_run']} of {settings.epochs}",
        "training time": f"{seconds:.1f} s",
        "best snapshot": info["final_model_path"] or "none",
        "run folder": str(settings.run_dir),
        **_test_rows(info["metrics_test"]),
    }
    return f"\n{table(rows)}"


def _test_rows(scores: Mapping[str, float]) -> dict[str, str]:
    """The scores of the test set; the two Dice scores stand together."""
    at_threshold, threshold = (key.removeprefix("test_") for key in (AT_THRESHOLD, THRESHOLD))
    rows = {}
    for name, score in scores.items():
        if name not in {at_threshold, threshold}:
            rows[f"test {name}"] = f"{score:.4f}"
        if name == "dice" and at_threshold in scores:
            key = f"test dice at {scores[threshold]:.2g}, best on val"
            rows[key] = f"{scores[at_threshold]:.4f}"
    return rows
