"""Which files of a class folder are images, which may be passed over, and what is wrong otherwise.

Nothing that may be an image is left out without a word: a file is read, is on the list of what may
be passed over, or is a fault. The lists are in docs/data.md.
"""

import os
import pathlib

from purenoise_jax.runtime.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# Texts, tables and annotations, which people keep beside images.
_NO_IMAGES = (
    *(".txt", ".md", ".rst", ".html", ".htm", ".log", ".py", ".ipynb", ".md5", ".sha256"),
    *(".json", ".jsonl", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".ini"),
)
_NAMES = (
    *("readme", "license", "licence", "copying", "notice"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini"),
)
# Previews of network drives, and what macOS puts into archives.
_FOLDERS = ("@eaDir", "__MACOSX")


def is_class_folder(entry: pathlib.Path) -> bool:
    """Whether an entry of a split is a class: a folder, or a link to one, that is not hidden."""
    return not _is_passed_over(entry.name) and entry.is_dir()


def stray_images(split: pathlib.Path) -> list[str]:
    """The faults of what lies beside the class folders of a split."""
    faults = []
    for entry in _entries(split):
        if _is_folder(entry):
            continue
        fault = _fault(entry) or "lies in no class folder"
        faults.append(f"{split.name}/{entry.name}: {fault}")
    return faults


def images_of_class(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
    """Lists the images of one class.

    Args:
        folder: `<split>/<class>`.

    Returns:
        The files to read, sorted by name, and the faults of the others, each one line that begins
        with the place below the data set's folder.

    Raises:
        DataError: the folder cannot be listed.
    """
    files, faults = [], []
    for entry in _entries(folder):
        is_folder = _is_folder(entry)
        fault = _nested(entry) if is_folder else _fault(entry)
        if fault:
            faults.append(f"{folder.parent.name}/{folder.name}/{entry.name}: {fault}")
        elif not is_folder:
            files.append(folder / entry.name)
    if not files and not faults:
        faults.append(
            f"{folder.parent.name}/{folder.name}: holds no {', '.join(SUFFIXES[:-1])} or "
            f"{SUFFIXES[-1]} files"
        )
    return files, faults


def _entries(folder: pathlib.Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:  # which knows of most what they are without asking
            kept = [entry for entry in entries if not _is_passed_over(entry.name)]
        return sorted(kept, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error


def _is_passed_over(name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    return (
        name.startswith(".") or name in _FOLDERS or name.lower() in _NAMES or suffix in _NO_IMAGES
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _fault(file: os.DirEntry[str]) -> str:
    if file.is_symlink() and not os.path.exists(file):
        return f"is a link to {os.readlink(file)}, which is not there"
    if not file.is_file():
        return "is no regular file"  # a pipe would be waited for
    if os.path.splitext(file.name)[1].lower() not in SUFFIXES:
        return f"is of no format that is read ({' '.join(SUFFIXES)}); convert it or move it away"
    return ""


def _nested(folder: os.DirEntry[str]) -> str:
    """The fault of a folder in a class folder, if it holds anything that may be an image."""
    count = 0
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_passed_over(name)]
        count += sum(not _is_passed_over(name) for name in files)
        # Such a folder is not gone into, as links may lead round in a circle.
        count += sum(os.path.islink(os.path.join(place, name)) for name in folders)
    if not count:
        return ""
    return (
        f"is a folder with {count} files, which is not looked into; move them up into the class "
        "folder, or make it a class folder of its own"
    )
