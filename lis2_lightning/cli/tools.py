"""Commands that train nothing: each function is a command, and its arguments are the command's.

Whatever brings torch with it is imported inside the functions, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from lis2_lightning.cli.answer import Answer


def info(snapshot: Path) -> Answer:
    """Show what is in a snapshot: format, epoch, losses, weights, configuration.

    Args:
        snapshot: A snapshot of this package or of LIS2.
    """
    from lis2_lightning.snapshots.describe import render, summary  # noqa: PLC0415 - brings torch

    contents = summary(snapshot)
    return Answer(render(contents), contents)


def diff(first: Path, second: Path) -> Answer:
    """Show where two snapshots differ; ends with 1 where they do.

    Args:
        first: A snapshot.
        second: Another snapshot.
    """
    from lis2_lightning.snapshots.compare import (  # noqa: PLC0415 - brings torch
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
    from lis2_lightning.snapshots import convert as converter  # noqa: PLC0415 - brings torch

    dropped = converter.convert(old, new)
    text = "\n".join([f"{new} is written", *(f"left out: {name}" for name in dropped)])
    return Answer(text, {"written": str(new), "left_out": dropped})


def init(  # noqa: PLR0917 - positional in Python only: they are flags of the command
    image: str,
    target: str,
    background: str | None = None,
    missing: str | None = None,
    labelled: str | None = None,
    output: Path = Path("lis2.yaml"),
) -> Answer:
    """Look at your images, and write a commented configuration to start from.

    Args:
        image: The image: FITS, TIFF, Zarr, HDF5 or .npy.
        target: Its labels: 1 on objects and 0 elsewhere; NaN where that is unknown.
        background: 1 on pixels known to be no object.
        missing: 1 where the image is valid, 0 where data are missing.
        labelled: 1 where the target is known, in place of background.
        output: The file to write; it must not be there yet.
    """
    from lis2_lightning.cli import starter  # noqa: PLC0415 - brings torch

    maps = {
        "image": image,
        "target": target,
        "background": background,
        "missing": missing,
        "labelled": labelled,
    }
    return starter.start(output, {key: path for key, path in maps.items() if path is not None})


def sync(run_dir: Path) -> Answer:
    """Deliver to the trackers what they have not received; ends with 1 where something is left.

    Args:
        run_dir: The folder of a run that is not in progress.
    """
    from lis2_lightning.trackers import delivery  # noqa: PLC0415 - slow to import

    results = delivery.sync(run_dir)
    text = "\n".join(str(result) for result in results)
    data = {"deliveries": [asdict(result) for result in results]}
    return Answer(text, data, int(not all(result.complete for result in results)))


def completion(shell: Literal["bash", "zsh", "tcsh"]) -> Answer:
    """Print the completion script of a shell.

    Args:
        shell: The shell.
    """
    from lis2_lightning.cli.completion import script  # noqa: PLC0415 - brings Lightning

    text = script(shell)
    return Answer(text, {"script": text})


TOOLS: Final[Mapping[str, Callable[..., Answer]]] = MappingProxyType(
    {
        "info": info,
        "diff": diff,
        "convert": convert,
        "init": init,
        "sync": sync,
        "completion": completion,
    }
)
