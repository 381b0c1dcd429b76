"""The manifest of image files below one folder."""

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from purenoise_jax.data.manifest import (
    NO_TIME,
    Entries,
    Entry,
    Manifest,
    Splits,
    Store,
    find_manifest,
)
from purenoise_jax.data.progress import progress
from purenoise_jax.data.sources.decode import Decoded, decode_image
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.threads import in_order

# In nanoseconds; FAT counts two seconds.
_RESOLUTION = 2_000_000_000


class FileStore(Store, Protocol):
    """A `Store` of files, or of parts of files."""

    def mark(self, path: str) -> tuple[int, int]:
        """Returns the size of an entry, and the time of its file's last change in nanoseconds.

        Raises:
            OSError: there is no such file.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Files:
    """A `FileStore` of files, each with one image.

    Attributes:
        root: the folder below which they lie.
        channels: those of all decoded files.
    """

    root: Path
    channels: int = 3

    def read(self, path: str) -> bytes:
        """See `Store.read`."""
        return read_bytes(self.root / path)

    def mark(self, path: str) -> tuple[int, int]:
        """See `FileStore.mark`."""
        found = os.stat(self.root / path)
        return found.st_size, found.st_mtime_ns

    def decode(self, data: bytes) -> Decoded:
        """See `Store.decode`."""
        return decode_image(data)


def manifest_of_files(
    store: FileStore, splits: Mapping[str, Sequence[tuple[Path, int]]], folder: Path, key: str = ""
) -> Manifest:
    """Returns the manifest that is kept if it lists these files, each with its size and time.

    Otherwise it is made, and only files are read that it does not list, or that have another size
    or time. Damage that leaves both as they were is found where the file is read.

    Args:
        store: that reads the files.
        splits: name -> the files below its root and their labels.
        folder: of the cache.
        key: tells data sets below one root with splits of the same names apart.

    Raises:
        StorageError: the manifest cannot be written.
    """

    def listed(split: str) -> Iterator[tuple[str, int]]:
        return ((path.relative_to(store.root).as_posix(), label) for path, label in splits[split])

    def is_current(kept: Splits) -> bool:
        if kept.keys() != splits.keys():
            return False
        if any(len(kept[split]) != len(files) for split, files in splits.items()):
            return False
        entries = (entry for split in splits for entry in kept[split])
        rows = (row for split in splits for row in listed(split))
        paths = (path for split in splits for path, _ in listed(split))
        marks = in_order(partial(_mark, store), paths)
        return all(
            (entry.path, entry.label) == row and (entry.size, entry.time) == mark
            for entry, row, mark in zip(entries, rows, marks, strict=True)
        )

    def make(kept: Splits) -> tuple[Splits, list[str]]:
        known = {entry.path: entry for entries in kept.values() for entry in entries}

        def facts_of(row: tuple[str, int]) -> Entry | str:
            path, label = row
            entry = known.get(path)
            if entry is not None and (entry.size, entry.time) == _mark(store, path):
                return dataclasses.replace(entry, label=label)
            return _facts(store, path, label)

        made: Splits = {}
        missing: list[str] = []
        rows = (row for split in splits for row in listed(split))
        count = sum(map(len, splits.values()))
        facts = iter(progress(in_order(facts_of, rows), "checksums", count))
        for split, files in splits.items():
            found = [next(facts) for _ in files]
            missing += [fault for fault in found if isinstance(fault, str)]
            made[split] = Entries(entry for entry in found if isinstance(entry, Entry))
        return made, missing

    return find_manifest(store, f"{sorted(splits)}{key}", folder, is_current, make)


def _mark(store: FileStore, path: str) -> tuple[int, int] | None:
    """See `FileStore.mark`; None = there is no such file."""
    try:
        return store.mark(path)
    except OSError:
        return None


def _facts(store: FileStore, path: str, label: int) -> Entry | str:
    """The entry of a file that is read now, or its fault."""
    try:
        # Taken first, so that a later change has another time.
        (_, changed), now = store.mark(path), time.time_ns()
        data = store.read(path)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror or error})"
    # Within the resolution of a file system's times, a further change would not be seen.
    known = abs(now - changed) > _RESOLUTION
    sha256 = hashlib.sha256(data).hexdigest()
    return Entry(path, len(data), label, sha256, changed if known else NO_TIME)
