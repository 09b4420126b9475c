"""Delivers to an MLflow server, or to a SQLite file beside the run folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from lis2_lightning.trackers.plain import clean_name, flat, is_local, shortened
from lis2_lightning.trackers.service import RefusedError, Service, Status

_KEY: Final = "lis2.key"
_VALUE: Final = 6000  # characters; MLflow's server takes no longer parameters
_TAG: Final = 5000
_BATCH: Final = 100
_STATUS: Final = MappingProxyType({"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"})
# its own retries take minutes, and the courier has its own
_ENVIRONMENT: Final = MappingProxyType(
    {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
)
_REFUSALS: Final = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})


class ToMlflow(Service):
    """Hands over through MLflow's client, which keeps no state of a run.

    Args:
        run_dir: The run's folder.
        options: ``tracking_uri`` and ``experiment_name``.
    """

    def __init__(self, run_dir: Path, options: Mapping[str, Any]) -> None:
        super().__init__(run_dir, options)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        store = f"sqlite:///{(run_dir.parent / 'mlflow.db').resolve()}"
        self.uri = options["tracking_uri"] or store
        self.is_local = is_local(self.uri)
        self._client: Any = MlflowClient(self.uri)
        self._id = ""

    def open(self, start: Mapping[str, Any]) -> str:
        """Find the run by its id or its key, or make it."""
        experiment = self._experiment()
        self._id = self._found(start["run_id"], experiment, start["key"])
        if self._id:
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {_KEY: start["key"], "mlflow.source.name": "lis2_lightning"}
            made = self._client.create_run(experiment, tags=tags, run_name=start["run_name"])
            self._id = made.info.run_id
        return self._id

    def _experiment(self) -> str:
        name = self.options["experiment_name"]
        known = self._client.get_experiment_by_name(name)
        if known is not None and known.lifecycle_stage != "deleted":
            return str(known.experiment_id)
        artifacts = None
        if self.is_local:
            artifacts = (self.run_dir.parent / "mlflow-artifacts" / clean_name(name)).resolve()
        return str(self._client.create_experiment(name, artifacts.as_uri() if artifacts else None))

    def _found(self, run_id: str, experiment: str, key: str) -> str:
        from mlflow.exceptions import MlflowException

        if run_id:
            try:
                if self._client.get_run(run_id).info.lifecycle_stage == "active":
                    return run_id
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        # an answer that was lost has made the run all the same
        runs = self._client.search_runs([experiment], f"tags.`{_KEY}` = '{key}'", max_results=1)
        return str(runs[0].info.run_id) if runs else ""

    def params(self, values: Mapping[str, Any], group: str) -> None:
        """Hand over the configuration as parameters, and the environment as tags.

        A parameter cannot be changed at MLflow: what a resumed run has otherwise becomes a tag.
        """
        from mlflow.entities import Param, RunTag

        shown = {clean_name(name): str(value) for name, value in flat(values).items()}
        if group:
            tags = {f"{group}.{name}": value for name, value in shown.items()}
        else:
            known = self._client.get_run(self._id).data.params
            short = {name: shortened(value, _VALUE) for name, value in shown.items()}
            new = [Param(name, value) for name, value in short.items() if name not in known]
            for first in range(0, len(new), _BATCH):
                self._send(params=new[first : first + _BATCH])
            tags = {
                f"resumed.{name}": value
                for name, value in short.items()
                if known.get(name, value) != value
            }
        named = [RunTag(clean_name(name), shortened(tags[name], _TAG)) for name in tags]
        for first in range(0, len(named), _BATCH):
            self._send(tags=named[first : first + _BATCH])

    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Hand over a row; one with the same time, step and values is kept once."""
        from mlflow.entities import Metric

        when = int(1000 * record["time"])
        metrics = [
            Metric(clean_name(name), value, when, record["step"]) for name, value in values.items()
        ]
        for first in range(0, len(metrics), _BATCH):
            self._send(metrics=metrics[first : first + _BATCH])

    def _send(self, **entities: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_batch(self._id, **entities)
        except MlflowException as error:
            if error.error_code in _REFUSALS:
                raise RefusedError(str(error)) from error
            raise

    def artifact(self, path: Path) -> None:
        """Hand over a file."""
        self._client.log_artifact(self._id, str(path))

    def close(self, status: Status) -> str:
        """End the run with a status of MLflow's."""
        self._client.set_terminated(self._id, _STATUS[status])
        if not self.is_local:
            return ""
        return f"to look at it: mlflow ui --backend-store-uri {self.uri}"
