"""The manifest of image files below one folder."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from purenoise_jax.data.manifest import Entries, Entry, Manifest, Splits, Store, find_manifest
from purenoise_jax.data.progress import progress
from purenoise_jax.data.sources.decode import Decoded, decode_image
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.threads import in_order


@dataclasses.dataclass(frozen=True)
class Files:
    """A `Store` of files, each with one image.

    Attributes:
        root: the folder below which they lie.
        channels: those of all decoded files.
    """

    root: Path
    channels: int = 3

    def read(self, path: str) -> bytes:
        """See `Store.read`."""
        return read_bytes(self.root / path)

    def decode(self, data: bytes) -> Decoded:
        """See `Store.decode`."""
        return decode_image(data)


def manifest_of_files(
    store: Store, splits: Mapping[str, Sequence[tuple[Path, int]]], folder: Path, key: str = ""
) -> Manifest:
    """Returns the manifest that is kept, or makes one if there are files that it does not list.

    Files that are gone or have another size stay listed, so that damage is named where they are
    read.

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
        known = {split: {(e.path, e.label) for e in rows} for split, rows in kept.items()}
        return all(row in known[split] for split in splits for row in listed(split))

    def make() -> tuple[Splits, list[str]]:
        made: Splits = {}
        missing: list[str] = []
        paths = (path for split in splits for path, _ in listed(split))
        count = sum(map(len, splits.values()))
        facts = iter(progress(in_order(partial(_facts, store), paths), "checksums", count))
        for split in splits:
            entries = []
            for path, label in listed(split):
                size, sha256, fault = next(facts)
                if fault:
                    missing.append(f"{path}: {fault}")
                else:
                    entries.append(Entry(path, size, label, sha256))
            made[split] = Entries(entries)
        return made, missing

    return find_manifest(store, f"{sorted(splits)}{key}", folder, is_current, make)


def _facts(store: Store, path: str) -> tuple[int, str, str]:
    """The size of a file, the sha256 of its content, and its fault, or ""."""
    try:
        data = store.read(path)
    except OSError as error:
        return 0, "", f"cannot be read ({error.strerror or error})"
    return len(data), hashlib.sha256(data).hexdigest(), ""
