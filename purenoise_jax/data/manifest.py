"""A manifest of encoded images: name, size, label and sha256 of each, made once and then kept.

They are files of a tree, or records of larger files. JPEG has no checksums, and decoders accept
changed bytes. So every image is compared with the manifest whenever it is read.
"""

import contextlib
import dataclasses
import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from purenoise_jax.data.sources.decode import Decoded
from purenoise_jax.runtime.errors import DataError, StorageError
from purenoise_jax.runtime.files import read_json, write_atomically

FOLDER = "manifests"
NO_TIME = -1


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One image of a manifest.

    Attributes:
        path: of its file below the data set's folder, with slashes; or `split[i]`, a record.
        size: in bytes.
        label: the class.
        sha256: of its content, in hex.
        time: of the last change of its file, in nanoseconds; `NO_TIME` = not known.
    """

    path: str
    size: int
    label: int
    sha256: str
    time: int = NO_TIME


class Entries:
    """Entries in columns, which take a third of the memory of objects.

    Args:
        entries: read once.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._paths, self._sha256 = bytearray(), bytearray()
        self._ends, self._sizes, self._labels = array("q", [0]), array("q"), array("q")
        self._times = array("q")
        for entry in entries:
            self._paths += entry.path.encode("utf-8", "surrogateescape")
            self._sha256 += bytes.fromhex(entry.sha256)
            self._ends.append(len(self._paths))
            self._sizes.append(entry.size)
            self._labels.append(entry.label)
            self._times.append(entry.time)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, place: int) -> Entry:
        path = self._paths[self._ends[place] : self._ends[place + 1]]
        sha256 = self._sha256[32 * place : 32 * place + 32]
        return Entry(
            path.decode("utf-8", "surrogateescape"),
            self._sizes[place],
            self._labels[place],
            sha256.hex(),
            self._times[place],
        )

    def __iter__(self) -> Iterator[Entry]:
        return map(self.__getitem__, range(len(self)))

    @property
    def labels(self) -> np.ndarray:
        """The labels, i32[N]."""
        return np.array(self._labels, np.int32)

    @property
    def times(self) -> list[int]:
        """`Entry.time` of each."""
        return self._times.tolist()


Splits: TypeAlias = dict[str, Entries]


class Store(Protocol):
    """The place of a data set's encoded images; several threads may read at once."""

    @property
    def root(self) -> Path:
        """The data set's folder."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the decoded images."""
        ...

    def read(self, path: str) -> bytes:
        """Reads the content of an entry.

        Raises:
            OSError: it cannot be read.
        """
        ...

    def decode(self, data: bytes) -> Decoded:
        """Decodes the image of a content.

        Raises:
            DataError: it is no image, or a damaged one; the message does not name it.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The encoded images of all splits of a data set.

    Attributes:
        store: where they lie.
        file: where the manifest is kept.
        splits: name -> entries, in the order of the images.
        digest: sha256, in hex, of everything but the store and the times; it identifies the data.
        is_new: it was made and kept by this process.
        missing: one line about each image that could not be read, and so is not in it.
    """

    store: Store
    file: Path
    splits: Splits
    digest: str
    is_new: bool = False
    missing: tuple[str, ...] = ()

    def discard(self) -> None:
        """Removes the file of a manifest that was just made, so that files may be put right."""
        if self.is_new:
            with contextlib.suppress(OSError):
                self.file.unlink()

    def place(self, entry: Entry) -> Path:
        """The name of an image in messages."""
        return self.store.root / entry.path

    def read(self, entry: Entry) -> bytes:
        """Reads the content of an entry, and compares it with the entry.

        Raises:
            DataError: it cannot be read or has changed; the message names it.
        """
        path = self.place(entry)
        try:
            data = self.store.read(entry.path)
        except OSError as error:
            why = error.strerror or error
            raise DataError(
                f"{path}: cannot be read ({why}), but {self.file} lists it (if it was removed on "
                "purpose, remove that file, too)"
            ) from error
        if len(data) != entry.size:
            found = f"has {len(data):,} bytes instead of {entry.size:,}"
        elif hashlib.sha256(data).hexdigest() != entry.sha256:
            found = "has another sha256"
        else:
            return data
        raise DataError(
            f"{path}: is damaged or has changed: it {found} (if it was changed on purpose, remove "
            f"{self.file})"
        )


def find_manifest(
    store: Store,
    key: str,
    folder: Path,
    is_current: Callable[[Splits], bool],
    make: Callable[[Splits], tuple[Splits, Sequence[str]]],
) -> Manifest:
    """Returns the manifest that is kept, or makes one.

    Args:
        store: of the images.
        key: tells data sets below one root apart.
        folder: of the cache.
        is_current: whether a manifest that is kept is one of these images.
        make: reads the images, and returns their list and `Manifest.missing`; a list that misses
            some is not kept. Its argument is the manifest that is kept, but not current; {} = there
            is none.

    Raises:
        DataError: from `make`.
        StorageError: the manifest cannot be written.
    """
    place = hashlib.sha256(f"{store.root.resolve()} {key}".encode("utf-8", "surrogateescape"))
    file = folder / FOLDER / f"{place.hexdigest()[:32]}.json"
    splits = _kept(file)
    if splits is not None and is_current(splits):
        return Manifest(store, file, splits, _digest(splits))
    splits, missing = make(splits or {})
    digest = _digest(splits)
    if not missing:
        times = {split: entries.times for split, entries in splits.items()}
        content = {"root": str(store.root), "digest": digest, "splits": _rows(splits)}
        write_kept(file, {**content, "times": times})
    return Manifest(store, file, splits, digest, not missing, tuple(missing))


def _rows(splits: Splits) -> dict[str, Any]:
    return {
        split: [[e.path, e.size, e.label, e.sha256] for e in entries]
        for split, entries in splits.items()
    }


def _digest(splits: Splits) -> str:
    return hashlib.sha256(json.dumps(_rows(splits), sort_keys=True).encode()).hexdigest()


def _kept(file: Path) -> Splits | None:
    """The entries of the manifest that is kept; None if there is none, or a damaged one."""
    try:
        found = read_json(file)
        times = found.get("times", {})
        splits = {
            split: Entries(
                Entry(path, size, label, sha256, time)
                for (path, size, label, sha256), time in zip(
                    rows, times.get(split, repeat(NO_TIME)), strict=False
                )
            )
            for split, rows in found["splits"].items()
        }
        return splits if found["digest"] == _digest(splits) else None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError):
        return None


def write_kept(file: Path, content: Any) -> None:
    """Writes a JSON file of the cache.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(content) + "\n")
    except OSError as error:
        raise StorageError(
            f"{file}: cannot be written ({error.strerror or error}); PURENOISE_JAX_CACHE names "
            "another folder"
        ) from error
