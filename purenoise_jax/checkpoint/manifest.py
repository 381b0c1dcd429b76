"""Manifest of a checkpoint: name, size and sha256 of every file.

The array format that orbax writes has no checksum of the contents of arrays, so a flipped bit would
be restored silently. A folder is a checkpoint only if it holds exactly the files that its manifest
lists, unchanged.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from purenoise_jax.runtime.files import open_plain, read_json, write_json

NAME = "manifest.json"
_THREADS = 4
# Larger than anything that this package writes.
LARGEST_JSON = 32 * 2**20


def commit(folder: Path) -> None:
    """Writes the manifest of a folder, which completes it; the folder must keep its name.

    When this returns, everything is synced to the disk: all files, the manifest, which is written
    last, and the folders that list them.

    Args:
        folder: with all files of the checkpoint.

    Raises:
        OSError: the disk is full, or writing is not permitted.
        ValueError: something in the folder is not a plain file.
    """
    names, problem = _files(folder)
    if problem:
        raise ValueError(f"{folder}: {problem}")
    with ThreadPoolExecutor(_THREADS) as pool:
        entries = dict(zip(names, pool.map(lambda n: _entry(folder / n, True), names), strict=True))
    for inner in {parent for name in names for parent in Path(name).parents} - {Path()}:
        sync_folder(folder / inner)
    write_json(folder / NAME, {"name": folder.name, "files": entries})
    sync_folder(folder)


def find_damage(folder: Path, only: str | None = None) -> str | None:
    """Compares a folder with its manifest.

    Args:
        folder: of a checkpoint.
        only: the only file to check; None = all.

    Returns:
        None if all files are unchanged, otherwise one line that names a file and its fault.

    Raises:
        OSError: something cannot be read, so that it may or may not be damaged.
    """
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return "it is not a folder"
        listed = _read(folder / NAME)
        if isinstance(listed, str):
            return listed
        there, problem = _files(folder)
        if problem:
            return problem
        if only is None:
            extra = sorted({*there} - {*listed})
            if extra:
                return f"{extra[0]} is not in {NAME}"
        names = list(listed) if only is None else [only]
        absent = sorted({*names} - ({*there} & {*listed}))
        if absent:
            return f"{absent[0]} is missing"
        for name in names:
            size = (folder / name).stat().st_size
            if size != listed[name].get("size"):
                return f"{name} has {size} bytes, not {listed[name].get('size')}"
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda n: _entry(folder / n), names)
            for name, entry in zip(names, found, strict=True):
                if entry["sha256"] != listed[name].get("sha256"):
                    return f"{name} has another sha256 than when it was written"
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"{Path(str(error.filename)).name} is missing"
    return None


def sync_folder(folder: Path) -> None:
    """Syncs the directory entries of a folder to the disk."""
    if os.name == "nt":  # Windows cannot open a folder.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> dict[str, dict[str, Any]] | str:
    """Reads size and sha256 of every file by name; returns a message if that fails."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return f"{NAME} is not a plain file"
        content = read_json(path, LARGEST_JSON)
        listed = content["files"]
        if content["name"] != path.parent.name:
            return f"{NAME} is that of {content['name']!r:.40}"
    except FileNotFoundError:
        return f"it has no {NAME}, so it was never completed"
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        return f"{NAME} is damaged ({type(error).__name__})"
    if not isinstance(listed, dict) or not listed:
        return f"{NAME} lists nothing"
    if not all(isinstance(entry, dict) for entry in listed.values()):
        return f"{NAME} is damaged (an entry is not an object)"
    return listed


def _files(folder: Path) -> tuple[list[str], str | None]:
    """Returns the names of the plain files in a folder, and a message if there is anything else."""
    names: list[str] = []
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
            return names, f"{name} is {kind}"
        if name not in (NAME, f"{NAME}.tmp"):
            names.append(name)
    return sorted(names), None


def _walk(folder: Path) -> Iterator[Path]:
    """Yields all that is not a folder, except hidden files, which desktops and NFS create."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


def _entry(path: Path, sync: bool = False) -> dict[str, Any]:
    with open_plain(path) as file:
        if sync:
            os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": os.fstat(file.fileno()).st_size, "sha256": digest}
