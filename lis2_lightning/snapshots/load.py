"""The tensors of a snapshot, read from their places in the file; each byte is read once."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import IO, Any

import torch

from lis2_lightning.snapshots.archive import STORAGE, Entry, check_sum, check_sums, fill
from lis2_lightning.snapshots.guard import Scan
from lis2_lightning.snapshots.notes import Ordered, Sparse, Tensor


class Loader:
    """Builds a snapshot from what a scan found in a file.

    It compares the checksum of what it has read, and not of what it could read again: nothing can
    come between the check and the use.

    Args:
        file: Open for reading.
        found: What a scan found in it.
        device: Where tensors go.
    """

    def __init__(self, file: IO[bytes], found: Scan, device: Any = "cpu") -> None:
        self._file = file
        self._entries: Mapping[str, Entry] = found.entries
        self._device = device
        self._storages: dict[str, torch.UntypedStorage] = {}
        self._tensors: dict[int, torch.Tensor] = {}

    def load(self, value: Any) -> Any:
        """Put tensors in the places of their notes.

        Args:
            value: A part of the scan's content.

        Returns:
            The same with tensors; mappings are plain ones.

        Raises:
            Refusal: A checksum is wrong.
        """
        if type(value) is dict or type(value) is Ordered:
            return {key: self.load(item) for key, item in value.items()}
        if type(value) is list:
            return [self.load(item) for item in value]
        if type(value) is tuple:
            return tuple([self.load(item) for item in value])
        if type(value) is Tensor:
            return self._tensor(value)
        return self._sparse(value) if type(value) is Sparse else value

    def check_rest(self) -> None:
        """Compare the checksums of whatever has not been read.

        Raises:
            Refusal: One is wrong.
        """
        rest = {
            name: entry
            for name, entry in self._entries.items()
            if name.removeprefix(STORAGE) not in self._storages
        }
        check_sums(self._file, rest)

    def _tensor(self, note: Tensor) -> torch.Tensor:
        if id(note) not in self._tensors:
            storage = self._storage(note.storage.key)
            empty = torch.empty(0, dtype=getattr(torch, note.dtype), device=storage.device)
            self._tensors[id(note)] = empty.set_(storage, note.offset, note.size, note.stride)
        return self._tensors[id(note)]

    def _storage(self, key: str) -> torch.UntypedStorage:
        if key not in self._storages:
            name = f"{STORAGE}{key}"
            entry = self._entries[name]
            memory = torch.empty(entry.size, dtype=torch.uint8)
            view = memoryview(memory.numpy())  # type: ignore[arg-type]  # NumPy 2.4 leaves it untyped
            self._file.seek(entry.start)
            fill(self._file, view, name)
            check_sum(zlib.crc32(view), name, entry)
            self._storages[key] = memory.to(self._device).untyped_storage()
        return self._storages[key]

    def _sparse(self, note: Sparse) -> torch.Tensor:
        parts = [self.load(part) for part in note.parts]
        if note.layout == "sparse_coo":
            return torch.sparse_coo_tensor(*parts[:3], check_invariants=True)
        layout = getattr(torch, note.layout)
        return torch.sparse_compressed_tensor(*parts, layout=layout, check_invariants=True)
