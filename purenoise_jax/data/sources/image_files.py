"""Sorts the entries of class folders into images, ignored files and faults.

No file that may be an image is silently ignored: every file is either read, on the list of ignored
names, or a fault. The lists are in docs/data.md.
"""

import os
import pathlib

from purenoise_jax.runtime.errors import DataError, counted

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# Suffixes of texts, tables and annotations, which are often stored beside images.
_IGNORED_SUFFIXES = (
    *(".txt", ".md", ".rst", ".html", ".htm", ".log", ".py", ".ipynb", ".md5", ".sha256"),
    *(".json", ".jsonl", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".ini"),
)
_IGNORED_NAMES = (
    *("readme", "license", "licence", "copying", "notice"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini"),
)
# Previews of network drives, and metadata that macOS adds to archives.
_IGNORED_FOLDERS = ("@eaDir", "__MACOSX")


def is_class_folder(entry: pathlib.Path) -> bool:
    """Returns whether an entry of a split is a class: a folder, or a link to one, not ignored."""
    return not _is_ignored(entry.name) and entry.is_dir()


def stray_images(split: pathlib.Path, root: pathlib.Path) -> list[str]:
    """Returns the faults of the files beside the class folders of a split.

    Args:
        split: folder of the split.
        root: folder of the data set, below which faults name the files.
    """
    faults = []
    for entry in _entries(split):
        if _is_folder(entry):
            continue
        fault = _fault(entry) or "lies in no class folder"
        faults.append(f"{_place(split / entry.name, root)}: {fault}")
    return faults


def images_of_class(
    folder: pathlib.Path, root: pathlib.Path, may_be_empty: bool = False
) -> tuple[list[pathlib.Path], list[str]]:
    """Lists the images of one class.

    Args:
        folder: of the class.
        root: folder of the data set, below which faults name the files.
        may_be_empty: it is no fault that there are none.

    Returns:
        The files to read, sorted by name, and the faults of the others, each one line that begins
        with the path below `root`.

    Raises:
        DataError: the folder cannot be listed.
    """
    files, faults = [], []
    for entry in _entries(folder):
        is_folder = _is_folder(entry)
        fault = _nested(entry) if is_folder else _fault(entry)
        if fault:
            faults.append(f"{_place(folder / entry.name, root)}: {fault}")
        elif not is_folder:
            files.append(folder / entry.name)
    if not files and not faults and not may_be_empty:
        faults.append(
            f"{_place(folder, root)}: holds no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} files"
        )
    return files, faults


def images_below(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
    """Lists the images of a folder and of all folders in it.

    Linked folders are not entered, because links may form a cycle.

    Args:
        folder: to search.

    Returns:
        The files to read, sorted by path, and the faults of the others, each one line that begins
        with the path.

    Raises:
        DataError: a folder cannot be listed.
    """
    files, faults = [], []
    for entry in _entries(folder):
        path = folder / entry.name
        if _is_folder(entry):
            if not entry.is_symlink():
                more, odd = images_below(path)
                files += more
                faults += odd
        elif fault := _fault(entry):
            faults.append(f"{path}: {fault}")
        else:
            files.append(path)
    return files, faults


def _place(path: pathlib.Path, root: pathlib.Path) -> str:
    return path.relative_to(root).as_posix()


def _entries(folder: pathlib.Path) -> list[os.DirEntry[str]]:
    try:
        # scandir, because it gives the kind of most entries without another call.
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not _is_ignored(entry.name)]
        return sorted(kept, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error


def _is_ignored(name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    return (
        name.startswith(".")
        or name in _IGNORED_FOLDERS
        or name.lower() in _IGNORED_NAMES
        or suffix in _IGNORED_SUFFIXES
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _fault(file: os.DirEntry[str]) -> str:
    if file.is_symlink() and not os.path.exists(file):
        return f"is a link to {os.readlink(file)}, which does not exist"
    if not file.is_file():
        return "is not a regular file"  # Reading a pipe would block.
    if os.path.splitext(file.name)[1].lower() not in SUFFIXES:
        return f"has no supported format ({' '.join(SUFFIXES)}); convert it or move it away"
    return ""


def _nested(folder: os.DirEntry[str]) -> str:
    """Returns the fault of a folder in a class folder; "" if it holds only ignored files."""
    count = 0
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_ignored(name)]
        count += sum(not _is_ignored(name) for name in files)
        # A linked folder counts as one file and is not entered, because links may form a cycle.
        count += sum(os.path.islink(os.path.join(path, name)) for name in folders)
    if not count:
        return ""
    return (
        f"is a folder with {counted(count, 'file')}, not read; move them up into the class folder, "
        "or make it a class folder"
    )


def holds_images(folder: pathlib.Path) -> bool:
    """Returns whether a folder directly holds a file with the suffix of an image."""
    return any(
        os.path.splitext(entry.name)[1].lower() in SUFFIXES and not _is_folder(entry)
        for entry in _entries(folder)
    )
