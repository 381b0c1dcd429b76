"""A manifest of a tree of files: path, size, label and sha256 of each, made once and then kept.

JPEG has no checksums, and decoders accept changed bytes. So every file is compared with the
manifest whenever it is read.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from purenoise_jax.data.progress import progress
from purenoise_jax.runtime.errors import DataError, StorageError
from purenoise_jax.runtime.files import read_bytes, read_json, write_atomically
from purenoise_jax.runtime.threads import cores

FOLDER = "manifests"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One file of a manifest.

    Attributes:
        path: below the data set's folder, with slashes.
        size: in bytes.
        label: the class.
        sha256: of its content, in hex.
    """

    path: str
    size: int
    label: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The files of all splits of a data set.

    Attributes:
        root: the data set's folder.
        file: where the manifest is kept.
        splits: name -> entries, in the order of the images.
        digest: sha256, in hex, of everything but the root; it identifies the data.
        is_new: it was made by this process.
        missing: one line about each file that could not be read, and so is not in it.
    """

    root: Path
    file: Path
    splits: dict[str, tuple[Entry, ...]]
    digest: str
    is_new: bool = False
    missing: tuple[str, ...] = ()

    def discard(self) -> None:
        """Removes the file of a manifest that was just made, so that files may be put right."""
        if self.is_new:
            with contextlib.suppress(OSError):
                self.file.unlink()

    def read(self, entry: Entry) -> bytes:
        """Reads a file, and compares it with its entry.

        Raises:
            DataError: it cannot be read or has changed; the message names it.
        """
        path = self.root / entry.path
        try:
            data = read_bytes(path)
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
    root: Path, splits: Mapping[str, Sequence[tuple[Path, int]]], folder: Path, key: str = ""
) -> Manifest:
    """Returns the manifest that is kept, or makes one if there are files that it does not list.

    Args:
        root: the data set's folder.
        splits: name -> the files below it and their labels.
        folder: of the cache.
        key: tells data sets below one root with splits of the same names apart.

    Raises:
        StorageError: the manifest cannot be written.
    """
    kind = f"{root.resolve()} {sorted(splits)}{key}"
    place = hashlib.sha256(kind.encode("utf-8", "surrogateescape"))
    file = folder / FOLDER / f"{place.hexdigest()[:32]}.json"
    listed = {
        split: [(path.relative_to(root).as_posix(), label) for path, label in files]
        for split, files in splits.items()
    }
    kept, missing = _kept(file, listed), []
    is_new = kept is None
    if kept is None:
        total = sum(map(len, splits.values()))
        paths = (path for files in splits.values() for path, _ in files)
        kept = {}
        with ThreadPoolExecutor(cores()) as pool:
            facts = progress(pool.map(_facts, paths), "checksums", total)
            for split, rows in listed.items():
                entries = []
                for (path, label), (size, sha256, fault) in zip(rows, facts, strict=False):
                    if fault:
                        missing.append(f"{path}: {fault}")
                    else:
                        entries.append(Entry(path, size, label, sha256))
                kept[split] = tuple(entries)
        if not missing:
            _keep(file, root, kept)
    return Manifest(root, file, kept, _digest(kept), is_new, tuple(missing))


def _facts(path: Path) -> tuple[int, str, str]:
    """The size of a file, the sha256 of its content, and its fault, or ""."""
    try:
        data = read_bytes(path)
    except OSError as error:
        return 0, "", f"cannot be read ({error.strerror or error})"
    return len(data), hashlib.sha256(data).hexdigest(), ""


def _rows(splits: dict[str, tuple[Entry, ...]]) -> dict[str, Any]:
    return {s: [dataclasses.astuple(entry) for entry in rows] for s, rows in splits.items()}


def _digest(splits: dict[str, tuple[Entry, ...]]) -> str:
    return hashlib.sha256(json.dumps(_rows(splits), sort_keys=True).encode()).hexdigest()


def _kept(
    file: Path, listed: Mapping[str, Sequence[tuple[str, int]]]
) -> dict[str, tuple[Entry, ...]] | None:
    """The entries of the manifest that is kept; None if there is none, or if files were added.

    Files that are gone or have another size stay listed, so that damage is named where they are
    read.
    """
    try:
        found = read_json(file)
        splits = {s: tuple(Entry(*row) for row in rows) for s, rows in found["splits"].items()}
        if found["digest"] != _digest(splits):
            return None
        known = {split: {(e.path, e.label) for e in rows} for split, rows in splits.items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
    same = known.keys() == listed.keys() and all(
        (path, label) in known[split] for split, rows in listed.items() for path, label in rows
    )
    return splits if same else None


def _keep(file: Path, root: Path, splits: dict[str, tuple[Entry, ...]]) -> None:
    content = {"root": str(root), "digest": _digest(splits), "splits": _rows(splits)}
    write_kept(file, content)


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
