"""``report.html``: a run, or several, on one page that needs nothing but itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lis2_lightning._version import __version__
from lis2_lightning.base.files import shown, written
from lis2_lightning.data import SegmentationData
from lis2_lightning.errors import ConfigError, Lis2Error
from lis2_lightning.report.contents import KEYS, of_run, of_runs
from lis2_lightning.report.map_view import view_of_file
from lis2_lightning.report.run_record import RunRecord

if TYPE_CHECKING:
    from jinja2 import Template

PAGE: Final = "report.html"
_MARK: Final = '<meta name="generator" content="lis2_lightning'  # of pages that may be replaced
_HEAD_BYTES: Final = 4096
_log = logging.getLogger("lis2_lightning")
DataOf = Callable[[Path], SegmentationData]


def write_page(
    folders: Sequence[Path],
    output: str | os.PathLike[str] | None = None,
    data_of: DataOf | None = None,
) -> Path:
    """Write the page of a run, or one page of several, and return its path.

    Args:
        folders: Of the runs.
        output: The page; by default ``report.html`` in the folder of a single run, and in the
            current folder for several.
        data_of: Opens the data of a run, of which the page shows no map although one is there.

    Raises:
        ConfigError: A folder is none of a run, its log is damaged, or the page cannot be written.
        DataError: Another file of a run is damaged.
    """
    usual = (folders[0] if len(folders) == 1 else Path()) / PAGE
    path = usual if output is None else Path(output).expanduser()
    records = [RunRecord.read(folder) for folder in folders]
    _check(path)
    if data_of is not None:
        records = [_with_map(record, data_of) for record in records]
    if len(records) == 1:
        html = _template().render(run=of_run(records[0]), runs=None, **_common())
    else:
        html = _template().render(run=None, runs=of_runs(records), **_common())
    with written(path) as file:
        file.write(html.encode())
    return path


def _with_map(record: RunRecord, data_of: DataOf) -> RunRecord:
    """The record, with the map of a run that was killed before it kept what its page shows."""
    path = record.map_path
    if path is None or (record.view is not None and record.view.has_map):
        return record
    try:
        view = view_of_file(data_of(record.folder), path, record.threshold)
    except Lis2Error as error:
        _log.warning("%s is not on the page: %s", shown(path), error)
        return record
    if view is None:
        return record
    view.save(record.folder)
    return replace(record, view=view)


def _check(path: Path) -> None:
    """Refuse to replace a file that is no page of ours."""
    if path.is_dir():
        raise ConfigError(f"{shown(path)} is a folder: name a file for the page")
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if _MARK.encode() not in head:
            raise ConfigError(f"{shown(path)} exists and is no report: choose another output")


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("lis2_lightning.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _common() -> dict[str, Any]:
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"version": __version__, "written": written, "keys": KEYS}
