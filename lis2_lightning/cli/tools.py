"""What commands answer, and the commands that train nothing, with their functions' arguments.

Whatever brings torch with it is imported inside the functions, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from lis2_lightning.base.files import shown
from lis2_lightning.base.imports import bringing_torch
from lis2_lightning.errors import ConfigError


@dataclass(frozen=True)
class Answer:
    """What a command prints on the standard output, and its exit code."""

    text: str  # for people; nothing is printed where it is empty
    data: Any = field(default_factory=dict)  # the same for programs, as one line of JSON
    code: int = 0  # 1 where a difference was found


def number(
    options: Mapping[str, Any],
    name: str,
    kind: Callable[[str], Any] = int,
    *,
    least: int = 0,
    allowed: str = "",
) -> Any:
    """A number that was typed or stands in a file; null for ``auto`` and where there is none.

    Args:
        options: The values of a command's own keys.
        name: The key.
        kind: Makes a number of a text.
        least: The smallest number that is allowed.
        allowed: What is allowed, in words; by default a whole number.

    Raises:
        ConfigError: It is something else.

    >>> number({"jobs": "2", "fold": None}, "jobs")
    2
    """
    value = options[name]
    if value is None or value == "auto":
        return None
    with suppress(ValueError):
        if (parsed := kind(str(value))) >= least:
            return parsed
    allowed = allowed or f"a whole number of at least {least}"
    raise ConfigError(f"{name} must be {allowed}, not {value!r}")


def print_answer(answer: Answer, *, as_json: bool) -> int:
    """Print an answer as text or JSON, and return its exit code."""
    text = json.dumps(_plain(answer.data)) if as_json else answer.text
    if text:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    return answer.code


def _plain(value: Any) -> Any:
    """A value as JSON can write it: NaN and infinity become null, other objects text.

    >>> _plain({"loss": float("nan"), 3: (1, True), "type": int})
    {'loss': None, '3': [1, True], 'type': "<class 'int'>"}
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def info(snapshot: Path) -> Answer:
    """Show what is in a snapshot: format, epoch, losses, weights, configuration.

    Args:
        snapshot: A snapshot of this package or of LIS2.
    """
    with bringing_torch():
        from lis2_lightning.snapshots.describe import render, summary  # noqa: PLC0415 - see the module

    contents = summary(snapshot)
    return Answer(render(contents), contents)


def diff(first: Path, second: Path) -> Answer:
    """Show where two snapshots differ; ends with 1 where they do.

    Args:
        first: A snapshot.
        second: Another snapshot.
    """
    with bringing_torch():
        from lis2_lightning.snapshots.compare import (  # noqa: PLC0415 - see the module
            differences,
            render_differences,
        )

    items = differences(first, second)
    data = {"differences": [asdict(difference) for difference in items]}
    return Answer(render_differences(items), data, int(bool(items)))


def convert(old: Path, new: Path) -> Answer:
    """Rewrite a snapshot of LIS2 in the form of this package.

    Args:
        old: A snapshot that LIS2 wrote; it is not changed.
        new: The file to write; it must not be there yet.
    """
    with bringing_torch():
        from lis2_lightning.snapshots.write import convert as rewrite  # noqa: PLC0415 - see the module

    dropped = rewrite(old, new)
    text = "\n".join([f"{new} is written", *(f"left out: {name}" for name in dropped)])
    return Answer(text, {"written": str(new), "left_out": dropped})


def init(  # noqa: PLR0917 - positional in Python only: they are flags of the command
    image: str,
    target: str,
    background: str | None = None,
    missing: str | None = None,
    labelled: str | None = None,
    positive: int | float | list[int | float] | str | None = None,
    negative: int | float | list[int | float] | None = None,
    ignore: int | float | list[int | float] | None = None,
    output: Path = Path("lis2.yaml"),
) -> Answer:
    """Look at your images, and write a commented configuration to start from.

    Args:
        image: The image: FITS, TIFF, Zarr, HDF5 or .npy.
        target: Its labels: 1 (or another single value) on objects and 0 elsewhere; NaN where that
            is unknown.
        background: 1 on pixels known to be no object.
        missing: 1 where the image is valid, 0 where data are missing.
        labelled: 1 where the target is known, in place of background.
        positive: The values of the target on objects, where it holds several, or nonzero.
        negative: Its values elsewhere, beside 0.
        ignore: Its values where the truth is unknown.
        output: The file to write; it must not be there yet.
    """
    with bringing_torch():
        from lis2_lightning.cli import starter  # noqa: PLC0415 - see the module

    optional = {"background": background, "missing": missing, "labelled": labelled}
    maps = {key: path for key, path in optional.items() if path is not None}
    meanings = {"positive": positive, "negative": negative, "ignore": ignore}
    meaning = {key: values for key, values in meanings.items() if values is not None}
    text, data = starter.start(output, {"image": image, "target": target, **maps}, meaning)
    return Answer(text, data)


def sample(folder: Path, height: int = 768, width: int = 768, seed: int = 101) -> Answer:
    """Write the built-in image as FITS maps to try things on.

    Args:
        folder: Where to write image, target, background and missing.
        height: Height of the image, px.
        width: Width of the image, px.
        seed: Decides the image; with the defaults it is that of the quick start.
    """
    with bringing_torch():
        from lis2_lightning.cli import sample_maps  # noqa: PLC0415 - see the module

    paths = {
        name: str(path) for name, path in sample_maps.write(folder, height, width, seed).items()
    }
    lines = [f"{path} is written" for path in paths.values()]
    flags = " ".join(f"--{name} {paths[name]}" for name in ("background", "missing"))
    lines.append(f"to train on them: lis2 init {paths['image']} {paths['target']} {flags}")
    return Answer("\n".join(lines), {"written": paths})


def sync(run_dir: Path) -> Answer:
    """Deliver to the trackers what they have not received; ends with 1 where something is left.

    Args:
        run_dir: The folder of a run that is not in progress.
    """
    from lis2_lightning.trackers import delivery  # noqa: PLC0415 - slow to import

    results = delivery.sync(run_dir)
    text = "\n".join(map(str, results))
    data = {"deliveries": [asdict(result) for result in results]}
    return Answer(text, data, int(not all(result.complete for result in results)))


def report(run_dir: list[Path], output: Path | None = None) -> Answer:
    """Write a page about a run, or one page that compares several.

    Args:
        run_dir: The folders of the runs.
        output: The page; by default report.html in the folder of a single run, and in the current
            folder for several.
    """
    with bringing_torch():
        from lis2_lightning.report.page import write_page  # noqa: PLC0415 - see the module

    path = write_page(run_dir, output, _data_of)
    return Answer(f"{shown(path)} is written", {"written": str(path)})


def _data_of(run_dir: Path) -> Any:  # jsonargparse would import what is there for types alone
    from lis2_lightning.trainer import Trainer  # noqa: PLC0415 - seldom needed

    return Trainer.from_snapshot(run_dir / "best.pt", trackers=None).data


def completion(shell: Literal["bash", "zsh", "tcsh"]) -> Answer:
    """Print the completion script of a shell.

    Args:
        shell: The shell.
    """
    from lis2_lightning.cli.completion import script  # noqa: PLC0415 - seldom needed

    text = script(shell)
    return Answer(text, {"script": text})


TOOLS: Final[Mapping[str, Callable[..., Answer]]] = {
    tool.__name__: tool for tool in (info, diff, convert, init, sample, report, sync, completion)
}
# arguments that may be repeated, which a function's signature cannot say
SEVERAL: Final[Mapping[str, Mapping[str, str]]] = {
    "report": {"run_dir": "The folder of a run; several are compared on one page."}
}
