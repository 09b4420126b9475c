"""Delivers to Weights & Biases, or to its file in the run's folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lis2_lightning.trackers.plain import shortened
from lis2_lightning.trackers.service import Service, Status

_VALUE: Final = 6000
_OPEN_S: Final = 10
_FINISH_S: Final = 25
_PICTURES: Final = frozenset({".png"})


class ToWandb(Service):
    """Hands over through ``wandb``, whose own process uploads.

    Rows carry their place in the journal as W&B's step: W&B takes none twice.

    Args:
        run_dir: The run's folder.
        options: ``project``, ``entity`` and ``offline``.
    """

    def __init__(self, run_dir: Path, options: Mapping[str, Any]) -> None:
        super().__init__(run_dir, options)
        self._run: Any = None

    def open(self, start: Mapping[str, Any]) -> str:
        """Begin the run or go on with it; offline where nobody is logged in."""
        from wandb.errors import UsageError

        try:
            self._run = self._begun(start, "offline" if self.options["offline"] else None)
        except UsageError as error:
            if "API key" not in str(error):
                raise
            self._run = self._begun(start, "offline")
        self.is_local = self._run.settings.mode == "offline"
        self.confirms_at_close = not self.is_local
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")
        return str(start["key"])

    def _begun(self, start: Mapping[str, Any], mode: Any) -> Any:
        import wandb

        settings = wandb.Settings(
            init_timeout=_OPEN_S,
            finish_timeout=_FINISH_S,
            finish_timeout_raises=True,
            console="off",
            silent=True,
            x_stats_pid=start["pid"],  # the load of the training, not of this process
        )
        return wandb.init(
            project=self.options["project"],
            entity=self.options["entity"],
            name=start["run_name"],
            id=start["key"],
            dir=str(self.run_dir),
            resume="allow",
            mode=mode,
            settings=settings,
        )

    def params(self, values: Mapping[str, Any], group: str) -> None:
        """Hand over the configuration, nested as it is, long texts shortened."""
        short = _shortened(values)
        given = {group: short} if group else short
        self._run.config.update(given, allow_val_change=True)

    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Hand over a row."""
        self._run.log(dict(values), step=record["index"], commit=True)

    def summary(
        self,
        values: Mapping[str, float],
        record: Mapping[str, Any],  # noqa: ARG002 - one for all services
    ) -> None:
        """Hand over what came of the run."""
        self._run.summary.update(dict(values))

    def artifact(self, path: Path) -> None:
        """Hand over a file as an artifact, and a picture to look at, too."""
        import wandb

        kind = "model" if path.suffix == ".pt" else "lis2-run"
        name = re.sub(r"[^\w.-]", "_", f"{self._run.id}-{path.name}", flags=re.ASCII)
        artifact = wandb.Artifact(name, type=kind)
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)
        if path.suffix in _PICTURES:
            self._run.summary[path.stem] = wandb.Image(str(path))

    def close(self, status: Status) -> str:
        """End the run; W&B knows success and failure."""
        self._run.summary["lis2_status"] = status
        folder = self._run.settings.sync_dir
        self._run.finish(exit_code=0 if status == "finished" else 1)
        return f"kept offline: wandb sync {folder}" if self.is_local else ""

    def drop(self) -> None:
        """End wandb's own process: it may be the one that failed."""
        import wandb

        self._run = None
        wandb.teardown(exit_code=1)


def _shortened(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _shortened(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(item) for item in value]
    return shortened(value, _VALUE) if isinstance(value, str) else value
