"""Snapshots verified before they are used; nothing in them is executed."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from lis2_lightning.errors import SnapshotError, one_line
from lis2_lightning.snapshots.archive import CheckedFile, Refusal
from lis2_lightning.snapshots.foreign import FOREIGN
from lis2_lightning.snapshots.format import check_content
from lis2_lightning.snapshots.legacy import from_lis2
from lis2_lightning.snapshots.outline import Outline, read_outline

# where a file of weights may have them
_STATES: Final = ("MODEL_STATE", "state_dict", "model_state_dict", "model")
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
        content = _load(file, outline, map_location)
    return from_lis2(content) if is_lis2 else (content, None)


def _load(file: io.FileIO, outline: Outline, map_location: Any) -> Any:
    checked = CheckedFile(file, outline.entries)
    stubs: Any = [(FOREIGN[name], name) for name in outline.foreign]
    validated = torch.sparse.check_sparse_tensor_invariants()  # type: ignore[no-untyped-call]
    with torch.serialization.safe_globals(stubs), validated:
        content = torch.load(  # noqa: TID251 - this is the one place
            checked, map_location=map_location, weights_only=True
        )
    checked.finish()
    return content


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a network by name, from any file of ``torch.save``; nothing in it is executed.

    It may be a snapshot, ours or one of LIS2's, a state dict, or a mapping that holds one, as
    Lightning's checkpoints do.

    Raises:
        SnapshotError: The file is missing, damaged, needs code to be read, or holds no such tensor.
    """
    try:
        with opened(path) as file:
            content = _load(file, read_outline(file), "cpu")
    except SnapshotError as error:
        if "read safely" not in str(error):
            raise
        advice = "save the weights alone, with torch.save(network.state_dict(), PATH)"
        raise SnapshotError(f"{error}: {advice}") from error
    for key in ("MODEL", *_STATES):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    items = content.items() if isinstance(content, Mapping) else ()
    weights = {name: value for name, value in items if isinstance(value, Tensor)}
    if not weights:
        raise SnapshotError(f"{path} holds no weights: it must be a snapshot or a state dict")
    return {str(name): value for name, value in weights.items()}


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
