"""Delivers to Weights & Biases, or to its file in the run's folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lis2_lightning.trackers.adapter import Adapter

_LONGEST_VALUE: Final = 6000


class WandbAdapter(Adapter):
    """Sends through ``wandb``, whose own process uploads.

    W&B's step is the row's place in the journal: W&B takes no step twice.
    """

    _run: Any = None

    def open(self, start: Mapping[str, Any]) -> None:
        """Begin or resume the run; offline where nobody is logged in."""
        from wandb.errors import UsageError

        try:
            self._run = self._init(start, "offline" if self.options["offline"] else None)
        except UsageError as error:
            if "API key" not in str(error):
                raise
            self._run = self._init(start, "offline")
        self.confirms_at_close = self._run.settings.mode != "offline"
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")

    def _init(self, start: Mapping[str, Any], mode: Any) -> Any:
        import wandb

        settings = wandb.Settings(
            init_timeout=10,
            finish_timeout=25,
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
        """Send the configuration, nested as it is, long texts shortened."""
        short = _shortened(values)
        self._run.config.update({group: short} if group else short, allow_val_change=True)

    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Send a row."""
        self._run.log(dict(values), step=record["index"], commit=True)

    def summary(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:  # noqa: ARG002 - Adapter's signature
        """Send the run's final scores."""
        self._run.summary.update(dict(values))

    def file(self, path: Path, record: Mapping[str, Any]) -> None:  # noqa: ARG002 - same
        """Send a file as an artifact, and a picture as media, too."""
        import wandb

        name = re.sub(r"[^\w.-]", "_", f"{self._run.id}-{path.name}", flags=re.ASCII)
        artifact = wandb.Artifact(name, type="model" if path.suffix == ".pt" else "lis2-run")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)
        if path.suffix == ".png":
            self._run.summary[path.stem] = wandb.Image(str(path))

    def close(self, record: Mapping[str, Any]) -> str:
        """End the run; W&B knows success and failure."""
        self._run.summary["lis2_status"] = record["status"]
        settings = self._run.settings
        self._run.finish(exit_code=0 if record["status"] == "finished" else 1)
        is_offline = settings.mode == "offline"
        return f"kept offline; upload it with: wandb sync {settings.sync_dir}" if is_offline else ""

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
    return value[:_LONGEST_VALUE] if isinstance(value, str) else value
