"""Delivers to an MLflow server, or to a SQLite file beside the run folders."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from lis2_lightning.base.redaction import without_login
from lis2_lightning.trackers.adapter import Adapter, RefusedError

_KEY: Final = "lis2.key"
_LONGEST_VALUE: Final = 6000  # characters; MLflow's server takes no longer parameters
_LONGEST_TAG: Final = 5000
_BATCH: Final = 100
# its own retries take minutes, and a delivery has its own
_ENVIRONMENT: Final[Mapping[str, str]] = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


class MlflowAdapter(Adapter):
    """Sends through MLflow's client, which keeps no state of a run."""

    def __init__(self, run_dir: Path, options: Mapping[str, Any]) -> None:
        super().__init__(run_dir, options)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        store = f"sqlite:///{(run_dir.parent / 'mlflow.db').resolve()}"
        self._uri = options["tracking_uri"] or store
        known = os.environ.get("MLFLOW_TRACKING_URI", "")
        if without_login(known) == self._uri:  # this one has the login, which no file has
            self._uri = _log_in(known)
        self._client: Any = MlflowClient(self._uri)
        self._id = ""

    def open(self, start: Mapping[str, Any]) -> None:
        """Find the run by its key, or create it."""
        experiment, key = self._experiment(), start["key"]
        runs = self._client.search_runs([experiment], f"tags.`{_KEY}` = '{key}'", max_results=1)
        if runs:
            self._id = str(runs[0].info.run_id)
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {_KEY: key, "mlflow.source.name": "lis2_lightning"}
            run = self._client.create_run(
                experiment, _milliseconds(start), tags=tags, run_name=start["run_name"]
            )
            self._id = str(run.info.run_id)

    def _experiment(self) -> str:
        name = self.options["experiment_name"]
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        artifacts = None
        if self.options["is_local"]:
            folder = self.run_dir.parent / "mlflow-artifacts" / _clean_name(name)
            artifacts = folder.resolve().as_uri()
        return str(self._client.create_experiment(name, artifacts))

    def params(self, values: Mapping[str, Any], group: str) -> None:
        """Send the configuration as parameters, and the environment as tags.

        A parameter cannot be changed at MLflow: what differs in a resumed run becomes a tag.
        """
        from mlflow.entities import Param, RunTag

        if "command" in values and group:  # one tag, which can be copied and typed
            values = {**values, "command": shlex.join(values["command"])}
        texts = {_clean_name(name): str(value) for name, value in _flat(values).items()}
        tags = {f"{group}.{name}": text for name, text in texts.items()}
        if not group:
            known = self._client.get_run(self._id).data.params
            short = {name: text[:_LONGEST_VALUE] for name, text in texts.items()}
            self._send("params", [Param(*item) for item in short.items() if item[0] not in known])
            changed = [name for name in short if known.get(name, short[name]) != short[name]]
            tags = {f"resumed.{name}": short[name] for name in changed}
        pairs = [(_clean_name(name), text[:_LONGEST_TAG]) for name, text in tags.items()]
        self._send("tags", [RunTag(*pair) for pair in pairs])

    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Send a row; MLflow keeps equal values of the same time and step once."""
        from mlflow.entities import Metric

        at = _milliseconds(record), record["step"]
        self._send("metrics", [Metric(_clean_name(name), values[name], *at) for name in values])

    def _send(self, kind: str, entities: list[Any]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            for first in range(0, len(entities), _BATCH):
                self._client.log_batch(self._id, **{kind: entities[first : first + _BATCH]})
        except MlflowException as error:
            if error.error_code in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}:
                raise RefusedError(str(error)) from error
            raise

    def file(self, path: Path, record: Mapping[str, Any]) -> None:  # noqa: ARG002 - Adapter's
        """Send a file."""
        self._client.log_artifact(self._id, str(path))

    def close(self, record: Mapping[str, Any]) -> str:
        """End the run with a status of MLflow's."""
        self._client.set_terminated(self._id, record["status"].upper(), _milliseconds(record))
        if self.options["is_local"]:
            return f"view it with: mlflow ui --backend-store-uri {self._uri}"
        return ""


def _milliseconds(record: Mapping[str, Any]) -> int:
    """When a record was written, which may be long before it is sent."""
    return int(1000 * record["time"])


def _log_in(uri: str) -> str:
    """Give the login of a server's address to MLflow as it likes it: it prints its addresses."""
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"} or parts.password is None:
        return uri  # a database
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username or "")
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
    return without_login(uri)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """One level of names, joined with dots; lists count as levels.

    >>> _flat({"optimizer": {"lr": 0.1}, "folds": [0, {"a": 2}]})
    {'optimizer.lr': 0.1, 'folds.0': 0, 'folds.1.a': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        items: Any = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        if isinstance(items, Mapping) and items:
            flat |= _flat(items, f"{path}.")
        else:
            flat[path] = value
    return flat


def _clean_name(name: str) -> str:
    """A name that MLflow takes: letters, digits, ``_-.: /``, and the shape of a path.

    >>> _clean_name("val dice/2 (%)"), _clean_name("../a//b"), _clean_name("größe")
    ('val dice/2 ___', 'a/b', 'größe')
    """
    parts = re.sub(r"[^\w\-. :/]", "_", name).split("/")
    return "/".join(part for part in parts if part not in {"", ".", ".."})[:250] or "_"
