"""Snapshots that LIS2 itself wrote, in our form.

LIS2 keeps no counters of Lightning's, so these are made up from the number of its last epoch: as
Lightning itself writes them at the end of an epoch, so that a run continues with the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import PurePath
from typing import Any, Final

from lis2_lightning.snapshots.foreign import Stub
from lis2_lightning.snapshots.format import MODEL_PREFIX, plain, to_snapshot

_ALL: Final = ("ready", "started", "processed", "completed")
_ENDS: Final = ("ready", "completed")
# of parallel training and of torch.compile, either of which may be the outer one
_WRAPPERS: Final = ("module.", "_orig_mod.", "module.")


def from_lis2(loaded: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Turn what a snapshot of LIS2's holds into our form.

    A run continues from it with the epoch after ``EPOCHS_RUN``. The second value names what was
    left out: the objects that LIS2 hangs on its scheduler.

    >>> import torch
    >>> loaded = {"MODEL": {"MODEL_CONFIG": {"type": "unet"}, "MODEL_STATE": {"module.w": 1}},
    ...           "TRAIN_INFO": {"EPOCHS_RUN": 4, "BEST_LOSS": torch.tensor(0.5),
    ...                          "OPTIMIZER_STATE": {"state": {}}, "SCHEDULER_STATE": None},
    ...           "GLOBAL_CONFIG": {"epoch": 9}}
    >>> snapshot, dropped = from_lis2(loaded)
    >>> snapshot["LIGHTNING"]["next_epoch"], snapshot["MODEL"]["MODEL_STATE"], dropped
    (5, {'w': 1}, [])
    """
    info, model = loaded["TRAIN_INFO"], loaded["MODEL"]
    done, best_loss = int(info["EPOCHS_RUN"]) + 1, float(info["BEST_LOSS"])
    scheduler, optimizer = info["SCHEDULER_STATE"] or {}, info["OPTIMIZER_STATE"]
    known = {key: value for key, value in scheduler.items() if not _is_object(value)}
    weights = _without_wrappers(model["MODEL_STATE"])
    checkpoint = {
        "state_dict": {f"{MODEL_PREFIX}{name}": value for name, value in weights.items()},
        "optimizer_states": [] if optimizer is None else [optimizer],
        "lr_schedulers": [known] if known else [],
        **_checkpoint(done, _num_steps(optimizer), best_loss),
    }
    snapshot = to_snapshot(
        checkpoint,
        model_config=plain(model["MODEL_CONFIG"], "MODEL_CONFIG"),
        global_config=loaded["GLOBAL_CONFIG"],
        best_loss=best_loss,
        next_epoch=done,
    )
    del snapshot["LIGHTNING"]["versions"]  # it was not we who wrote it
    return snapshot, [f"SCHEDULER_STATE.{key}" for key in scheduler if key not in known]


def _is_object(value: Any) -> bool:
    """Whether a scheduler of torch's keeps no such value; the milestones are a Counter."""
    is_mapping = isinstance(value, dict) and not isinstance(value, Counter)
    return is_mapping or isinstance(value, Stub | PurePath)


def _without_wrappers(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights by the names that the bare network has, a part of which may be called alike."""
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): value for name, value in state.items()}
    return state


def _num_steps(optimizer: Any) -> int:
    """How often the optimizer has stepped, where it counts; SGD does not."""
    states = (optimizer or {}).get("state", {})
    values = states.values() if isinstance(states, dict) else ()
    steps = [int(state.get("step", 0)) for state in values if isinstance(state, dict)]
    return max(steps, default=0)


def _checkpoint(done: int, steps: int, best_loss: float) -> dict[str, Any]:
    """What Lightning and our callbacks write besides weights and states when an epoch ends."""
    evaluation = {"state_dict": {}, "batch_progress": {**_progress(_ALL), "is_last_batch": False}}
    return {
        "epoch": done - 1,
        "global_step": steps,
        "pytorch-lightning_version": version("lightning"),
        "loops": {
            "fit_loop": _fit_loop(done, steps),
            "validate_loop": evaluation,
            "test_loop": evaluation,
            "predict_loop": {"state_dict": {}, "batch_progress": _progress(_ALL)},
        },
        "callbacks": {
            "EpochLog": {"row": {"epoch": done - 1}, "epochs_run": done, "lr": None, "val": {}},
            # LIS2 follows no other value
            "BestSnapshot": {"best_loss": best_loss, "monitor": "train_loss", "mode": "min"},
        },
    }


def _fit_loop(done: int, steps: int) -> dict[str, Any]:
    last = steps // done if done else 0
    # the callbacks hear of an epoch's end before it counts as completed
    epochs = {**dict.fromkeys(_ALL, done), "completed": done - 1}
    optimizer = {
        "step": _progress(_ENDS, steps, last),
        "zero_grad": _progress(("ready", "started", "completed"), steps, last),
    }
    return {
        "state_dict": {},
        "epoch_progress": {"total": epochs, "current": dict(epochs)},
        "epoch_loop.state_dict": {"_batches_that_stepped": steps},
        "epoch_loop.batch_progress": {**_progress(_ALL, steps, last), "is_last_batch": True},
        "epoch_loop.scheduler_progress": _progress(_ENDS, done, 1),
        "epoch_loop.automatic_optimization.state_dict": {},
        "epoch_loop.automatic_optimization.optim_progress": {"optimizer": optimizer},
        "epoch_loop.manual_optimization.state_dict": {},
        "epoch_loop.manual_optimization.optim_step_progress": _progress(_ENDS),
        "epoch_loop.val_loop.state_dict": {},
        "epoch_loop.val_loop.batch_progress": {**_progress(_ALL), "is_last_batch": True},
    }


def _progress(names: Iterable[str], total: int = 0, current: int = 0) -> dict[str, dict[str, int]]:
    return {"total": dict.fromkeys(names, total), "current": dict.fromkeys(names, current)}
