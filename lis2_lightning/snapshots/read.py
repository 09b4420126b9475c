"""Snapshots verified before they are used; nothing in them is executed."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lis2_lightning.errors import SnapshotError, one_line
from lis2_lightning.snapshots.archive import CheckedFile, Refusal
from lis2_lightning.snapshots.foreign import FOREIGN
from lis2_lightning.snapshots.format import check_content
from lis2_lightning.snapshots.legacy import from_lis2
from lis2_lightning.snapshots.outline import Outline, read_outline

_log = logging.getLogger("lis2_lightning")


def read_snapshot(path: str | os.PathLike[str], *, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a snapshot, ours or one of LIS2's, comparing its checksums; nothing in it is executed.

    Args:
        path: The file.
        map_location: The device where tensors go.

    Returns:
        The snapshot in our form.

    Raises:
        SnapshotError: The file is missing, damaged, no snapshot, or needs code to be read.
    """
    snapshot, dropped = read_as_ours(path, map_location)
    if dropped is not None:
        what = f"; left out: {'; '.join(dropped)}" if dropped else ""
        _log_once(f"{path} is a snapshot of LIS2{what}")
    return snapshot


def read_as_ours(
    path: str | os.PathLike[str], map_location: Any = "cpu"
) -> tuple[dict[str, Any], list[str] | None]:
    """Read a snapshot in our form; of one of LIS2's also the names of what was left out."""
    with opened(path) as file:
        outline = read_outline(file)
        is_lis2 = check_outline(outline, path)
        checked = CheckedFile(file, outline.entries)
        stubs: Any = [(FOREIGN[name], name) for name in outline.foreign]
        validated = torch.sparse.check_sparse_tensor_invariants()  # type: ignore[no-untyped-call]
        with torch.serialization.safe_globals(stubs), validated:
            content = torch.load(  # noqa: TID251 - this is the one place
                checked, map_location=map_location, weights_only=True
            )
        checked.finish()
    return from_lis2(content) if is_lis2 else (content, None)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[io.FileIO]:
    """Open a snapshot, and turn whatever goes wrong with it into one sentence with its name."""
    if not Path(path).is_file():
        raise SnapshotError(f"there is no snapshot {path}: check the path")
    try:
        with io.FileIO(path) as file:
            yield file
    except SnapshotError:
        raise
    except Refusal as error:
        raise SnapshotError(f"{path} {error}") from error
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch raises a dozen kinds where a file is not what it expects
        reason = ascii(one_line(error)[:200])[1:-1]
        raise SnapshotError(f"{path} cannot be read safely: {reason}") from error


def check_outline(outline: Outline, path: str | os.PathLike[str]) -> bool:
    """Refuse what is no snapshot; whether it is one that LIS2 wrote."""
    is_lis2 = isinstance(outline.content, Mapping) and "LIGHTNING" not in outline.content
    check_content(outline.content, name=str(path), is_lis2=is_lis2)
    if outline.foreign and not is_lis2:
        name = outline.foreign[0]
        raise Refusal(f"cannot be read safely: it names {name!r}, which our snapshots never do")
    return is_lis2


@lru_cache(maxsize=100)
def _log_once(message: str) -> None:
    _log.info("%s", message)
