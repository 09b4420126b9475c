"""What a run leaves at its end: the stored result, and a table."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from lightning.pytorch.callbacks import EarlyStopping, Timer

from lis2_lightning.assembly import plan
from lis2_lightning.assembly.assemble import Assembly
from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.display import html_table, in_notebook
from lis2_lightning.base.files import atomic, shown
from lis2_lightning.base.position import batches_done, epoch_is_whole
from lis2_lightning.base.tables import table
from lis2_lightning.config import as_list
from lis2_lightning.data import tile_parts
from lis2_lightning.errors import one_line
from lis2_lightning.snapshots import Snapshot, differences, snapshots_in
from lis2_lightning.training.module import AT_THRESHOLD, THRESHOLD

_log = logging.getLogger("lis2_lightning")
TEST: Final = "test_results.csv"
RESULT: Final = "result.json"


class Result(dict[str, Any]):
    """The result of a run: a mapping of plain values, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        return html_table("Result of a run", {key: _short(value) for key, value in self.items()})


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {score:.4f}" for name, score in value.items()) or None
    return f"{value:.6g}" if isinstance(value, float) else value


def final_info(
    settings: Settings,
    built: Assembly,
    test_scores: Mapping[str, float],
    origin: Snapshot | None = None,
) -> dict[str, Any]:
    """The result of a run so far, or of the snapshot that it is to continue."""
    row = built.log.row if origin is None else origin.row
    values = {
        "best_loss": built.best.best_loss if origin is None else origin.best_loss,
        "epochs_run": built.log.epochs_run if origin is None else origin.next_epoch,
        **_places(settings),
        "metrics_train": _split(row, "train_"),
        "metrics_val": _split(row, "val_"),
        "metrics_test": _split(test_scores, "test_"),
    }
    return Result(values)


def _places(settings: Settings) -> dict[str, Any]:
    best, last = (shown(p) if p.is_file() else None for p in settings.named.values())
    return {
        "run_name": settings.run_name,
        "output_dir": str(settings.output_dir),
        "final_model_path": best,
        "last_model_path": last,
    }


def _split(values: Mapping[str, float | None], prefix: str) -> dict[str, float]:
    return {
        key.removeprefix(prefix): value
        for key, value in values.items()
        if key.startswith(prefix) and value is not None
    }


def stored(settings: Settings, config: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a run that is over; empty where it is to be resumed or started again.

    ``config`` has the settings as plain values.
    """
    path = settings.run_dir / RESULT
    if settings.resume is False or not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        info = {**record["info"], **_places(settings)}  # the folder may have been moved
        text, is_over = _summary(settings, info, record), _is_over(settings, record)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = one_line(error)
        _log.warning("%s is damaged (%s): the run goes on without it", shown(path), reason)
        return {}
    if not is_over:
        return {}
    _log.info("%s", text)
    _log.info(
        "nothing is left to train: %s is complete, and its stored result is returned%s; raise %s "
        "to continue it, or choose another run_name, with weights: %s to start from its weights",
        shown(settings.run_dir),
        _changes(settings, config),
        "the patience of early_stopper" if record["stopped_early"] else "epochs",
        info["final_model_path"],
    )
    return info


def say_again(settings: Settings, info: Mapping[str, Any]) -> None:
    """Report that a trainer which has trained does not train a second time."""
    _log.warning(
        "nothing is trained now: this trainer has a result after %d of %d epochs, which is "
        "returned; build another one with resume: auto to continue from %s",
        *(info["epochs_run"], settings.epochs, shown(settings.run_dir)),
    )


def _changes(settings: Settings, config: Mapping[str, Any]) -> str:
    """In what the run in the folder differs from the one that is asked for."""
    written = [snapshot.config for snapshot in snapshots_in(settings.run_dir)[:1]]
    return "".join(f"; {change}" for old in written for change in differences(old, config))


def _is_over(settings: Settings, record: Mapping[str, Any]) -> bool:
    """Whether nothing is left to train with the epochs and the patience of now."""
    waited = record["stopped_early"] and record["waited"]
    stops = [s for s in _stoppers(settings) if waited and waited.get(_name(s), 0) >= s.patience]
    return bool(stops) or record["info"]["epochs_run"] >= settings.epochs


def _stoppers(settings: Settings) -> list[EarlyStopping]:
    callbacks = [settings.chosen_stopper(), *as_list(settings.lightning.get("callbacks"))]
    return [callback for callback in callbacks if isinstance(callback, EarlyStopping)]


def _name(stopper: EarlyStopping) -> str:
    """What a stopper counts: a count of something else says nothing to it."""
    return f"{stopper.state_key} {stopper.state_dict().get('counts', stopper.min_delta)}"


def store(
    settings: Settings,
    built: Assembly,
    info: Mapping[str, Any],
    start: Snapshot | None,
    seconds: float,
) -> str:
    """Store a run's result, which marks it as over, in the main process; return its table."""
    if not built.lightning.is_global_zero:
        return ""
    waited = {_name(s): max(s.wait_count, s.patience) for s in _stopped(built)}
    record = {
        "info": dict(info),
        "stopped_early": bool(waited),
        "waited": waited,
        "ended": _reason(settings, built),
        "seconds": round(seconds, 3),
    }
    # where a run was resumed is shown, not stored: the result is that of an undisturbed one
    with atomic(settings.run_dir / RESULT) as file:
        file.write(json.dumps(record, indent=2).encode() + b"\n")
    if start is not None:
        record["resumed"] = f"at {start.place}, from {start}"
        if start.position == _position(built):
            record["ended"] = f"nothing was left to train: {record['ended']}"
    return _summary(settings, info, record)


def show_end(
    settings: Settings,
    config: Mapping[str, Any],
    info: Mapping[str, Any],
    summary: str,
    unmapped: str,
) -> None:
    """Show the table of a run, where this process has one, and what to type next.

    ``unmapped`` says why the run's own images have no map yet, and is empty where they have.
    """
    if summary:
        steps = table(_next_steps(settings, config, info, unmapped))
        _log.info("%s", f"{summary}\n\n{steps}".rstrip())


def _next_steps(
    settings: Settings, config: Mapping[str, Any], info: Mapping[str, Any], unmapped: str
) -> dict[str, str]:
    """Commands; Python in a notebook, or where components are objects, which no file can name."""
    page, best = settings.run_dir / "report.html", info["final_model_path"]
    steps = {"look at": shown(page)} if page.is_file() else {}
    has_objects = bool(plan.objects_in(config))
    is_program = not in_notebook() and not has_objects
    if best is not None and unmapped:
        own = f"lis2 predict --ckpt_path {shown(settings.run_dir)}"
        steps[f"map ({unmapped})"] = own if is_program else "trainer.predict()"
    elif best is not None and next(tile_parts(settings.train_dataset), None) is not None:
        segment = f'Segmenter.from_snapshot("{best}").segment("IMAGE.fits", output="MAP.fits")'
        predict = f"lis2 predict --ckpt_path {best} --image IMAGE.fits --output MAP.fits"
        named = segment if not has_objects else 'trainer.predict(image="IMAGE.fits")'
        steps["map"] = predict if is_program else named
    if is_program and info["epochs_run"] >= settings.epochs:
        again = f"lis2 fit --config {shown(settings.run_dir / 'config.yaml')} --resume auto"
        steps["go on"] = f"{again} --epochs {2 * settings.epochs}"
    return steps


def _position(built: Assembly) -> tuple[int, int]:
    """Epochs that are done, and batches of one that is not."""
    is_whole = epoch_is_whole(built.lightning)
    return built.log.epochs_run, 0 if is_whole else batches_done(built.lightning)


def _reason(settings: Settings, built: Assembly) -> str:
    """Why a run ended."""
    done, batch = _position(built)
    if stopped := _stopped(built):
        return f"early stopping: no better {stopped[0].monitor}, patience {stopped[0].patience}"
    if done >= settings.epochs:
        return "all epochs are done"
    where = f"in epoch {done}, batch {batch}" if batch else f"before epoch {done}"
    return f"stopped by {_limit(built.lightning)} {where}; resume: auto continues"


def _limit(trainer: Any) -> str:
    """What stopped a run that is not over; ``callbacks`` is no typed attribute of Lightning's."""
    for callback in trainer.callbacks:
        left = callback.time_remaining() if isinstance(callback, Timer) else None
        if left is not None and left <= 0:
            return "lightning.max_time"
    is_max_steps = 0 <= trainer.max_steps <= trainer.global_step
    return "lightning.max_steps" if is_max_steps else "a callback or a limit"


def remove_temporary(settings: Settings, built: Assembly) -> None:
    """Remove a ``last.pt`` that no key asked for, once the run that it kept is over."""
    is_over = _stopped(built) or built.log.epochs_run >= settings.epochs
    is_wanted = settings.save_last or settings.save_every_n_steps or settings.save_every_minutes
    if is_over and not is_wanted and built.lightning.is_global_zero:
        settings.named["last"].unlink(missing_ok=True)


def _stopped(built: Assembly) -> list[EarlyStopping]:
    """The stoppers that ended a run; one that a limit ended is not over, and may be resumed."""
    stoppers = built.lightning.early_stopping_callbacks
    return [s for s in stoppers if s.stopped_epoch > 0 or s.wait_count >= s.patience]


def _summary(settings: Settings, info: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    rows = {
        f"best {settings.monitor}": f"{info['best_loss']:.6g}",
        "epochs": f"{info['epochs_run']} of {settings.epochs}",
        "ended": record["ended"],
        "resumed": record.get("resumed"),
        "training time": f"{record['seconds']:.1f} s",
        "best snapshot": info["final_model_path"] or "none",
        "run folder": shown(settings.run_dir),
        **_test_rows(info["metrics_test"]),
    }
    return f"\n{table({name: text for name, text in rows.items() if text})}"


def _test_rows(scores: Mapping[str, float]) -> dict[str, str]:
    """The scores of the test set; the two Dice scores stand together."""
    at_threshold, threshold = (key.removeprefix("test_") for key in (AT_THRESHOLD, THRESHOLD))
    rows = {}
    for name, score in scores.items():
        if name not in {at_threshold, threshold}:
            rows[f"test {name}"] = f"{score:.4f}"
        if name == "dice" and at_threshold in scores:
            key = f"test dice at {scores[threshold]:.3f}, best on val"
            rows[key] = f"{scores[at_threshold]:.4f}"
    return rows
