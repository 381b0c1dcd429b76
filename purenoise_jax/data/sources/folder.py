"""Reads image files from one folder per split and class."""

import os
import pathlib
import unicodedata

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.sources.file_splits import FileSplits, read_all
from purenoise_jax.data.sources.image_files import (
    holds_images,
    images_of_class,
    is_class_folder,
    stray_images,
)
from purenoise_jax.data.sources.resize import SQUASH
from purenoise_jax.data.sources.splits import refuse_odd_splits
from purenoise_jax.data.view import View
from purenoise_jax.runtime.errors import ConfigError, DataError
from purenoise_jax.runtime.paths import expand


def load_folder(
    *,
    name: str,
    path: str,
    image_size: int = 0,
    train_split: str = "",
    test_split: str = "",
    resize: str = SQUASH,
) -> Dataset:
    """Loads `train/<class>/` and, if there, `test/<class>/` and `val/<class>/` below one folder.

    A folder without splits that holds class folders is a training set by itself. Images are read in
    sorted order and converted to RGB, by the rules of `decode_image`. The classes are the sorted
    folder names in `train`, in Unicode's composed form (NFC), because systems store accents in two
    ways: as a separate code point (macOS) or as part of the letter. Files that are known not to be
    images are ignored. Any other file that cannot be read is a fault, and one message lists all
    faults.

    Args:
        name: unused; the data set is named after its folder.
        path: the folder that holds `train`, or the class folders.
        image_size: height and width to resize to; 0 keeps the stored size, which must then be the
            same for all images.
        train_split: name of the folder of training images; empty for `train`.
        test_split: name of the folder of test images; empty for `test`, if there is one. `val` is
            read beside it unless it is one of the two.
        resize: see `resize_square`.

    Returns:
        The checked data set, images `uint8[N, H, W, 3]`.

    Raises:
        ConfigError: `path` is empty, or a split's name is not legal.
        DataError: a split or training class is missing or empty; a split has a class that the
            training images have not; the names of two folders of a split differ only in the storage
            of accents; an image is damaged, one folder too deep or a broken link; a file may be an
            image but has no supported format; or the sizes differ while `image_size` is 0.
    """
    return read_all(folder_files(path, train_split, test_split), View(image_size, how=resize))


def folder_files(path: str, train_split: str = "", test_split: str = "") -> FileSplits:
    """Lists the files that `load_folder` reads, by its rules.

    Args:
        path: see `load_folder`.
        train_split: see `load_folder`.
        test_split: see `load_folder`.

    Raises:
        ConfigError: see `load_folder`.
        DataError: a folder is missing, or a split has classes that the training images have not.
    """
    if not path:
        raise ConfigError("data.path is empty: give the folder that holds train/ and test/")
    root = expand(path, "data.path")
    train, test = train_split or "train", test_split or "test"
    refuse_odd_splits(train, test)
    if not (train_split or test_split) and _is_one_split(root):
        return _one_split(root)
    # A broken link counts too: it is then reported as missing instead of ignored.
    there = [name for name in (test, "val") if os.path.lexists(root / name)]
    wanted = list(dict.fromkeys([train, *there]))
    unread = [] if train_split else _unread(root, {train, test, "val"})
    if test not in wanted and (test_split or unread):
        wanted.append(test)

    folders: dict[str, dict[str, pathlib.Path]] = {}
    faults: dict[str, list[str]] = {}
    mistakes = []
    for split in wanted:
        if split == train and not train_split and not (root / split).exists():
            _refuse_flat(root)
        if not (root / split).is_dir():
            field = {train: "data.train_split", test: "data.test_split"}.get(split, "")
            others = _others(root, field, {train, test}) if field else ""
            raise DataError(f"{root / split}: there is no such folder{others}")
        folders[split] = _class_folders(root / split)
        faults[split] = stray_images(root / split, root)
        found, classes = {*folders[split]}, {*folders[train]}
        if found - classes:
            only = {train: classes - found, split: found - classes}
            differing = "; ".join(f"only {s} has {_first_few(k)}" for s, k in only.items() if k)
            mistakes.append(f"the class folders of {train} and {split} differ: {differing}")
    files: dict[str, list[tuple[pathlib.Path, int]]] = {split: [] for split in wanted}
    labels = {name: label for label, name in enumerate(folders[train])}
    for split in wanted:
        for name, folder in folders[split].items():
            if name not in labels:
                continue
            images, more = images_of_class(folder, root, may_be_empty=split != train)
            files[split] += [(image, labels[name]) for image in images]
            faults[split] += more
        if not (files[split] or faults[split] or mistakes):
            mistakes.append(f"{split}: holds no images")
    return FileSplits(root, train, test, files, tuple(folders[train]), faults, mistakes)


def _is_one_split(root: pathlib.Path) -> bool:
    """Returns whether a folder holds class folders itself: no split, and images one level down.

    A class may be called "train", as in pictures of vehicles, but not every class is called like a
    split.
    """
    for name in ("train", "test"):
        folder = root / name
        if os.path.lexists(folder) and not (
            folder.is_dir() and not _unread(folder, set()) and holds_images(folder)
        ):
            return False
    return any(holds_images(root / name) for name in _unread(root, {"train", "test", "val"}))


def _one_split(root: pathlib.Path) -> FileSplits:
    """Lists the files of a folder of class folders."""
    folders = _class_folders(root)
    files: list[tuple[pathlib.Path, int]] = []
    faults = stray_images(root, root)
    for label, folder in enumerate(folders.values()):
        images, more = images_of_class(folder, root)
        files += [(image, label) for image in images]
        faults += more
    splits, named = {"train": files}, {"train": faults}
    return FileSplits(root, "train", "test", splits, tuple(folders), named, key=" classes")


def _others(root: pathlib.Path, field: str, chosen: set[str]) -> str:
    """Returns the end of a message about a missing split: the folders that could be meant."""
    others = _unread(root, chosen)
    shown = ", ".join(others[:10]) + (", ..." if len(others) > 10 else "")
    return f"; {root} has {shown}; set {field} to one of them" if others else ""


def _unread(root: pathlib.Path, chosen: set[str]) -> list[str]:
    """Returns the names of the folders that are none of the chosen ones, sorted."""
    try:
        found = sorted(entry.name for entry in root.iterdir() if is_class_folder(entry))
    except OSError:
        return []
    return [name for name in found if name not in chosen]


def _class_folders(split: pathlib.Path) -> dict[str, pathlib.Path]:
    """Lists the folder of every class of a split, sorted by the class's name."""
    try:
        names = sorted(entry.name for entry in split.iterdir() if is_class_folder(entry))
    except OSError as error:
        raise DataError(f"{split}: cannot be listed ({error.strerror})") from error
    if not names:
        _refuse_flat(split)
        raise DataError(f"{split}: holds no class folders")
    folders: dict[str, pathlib.Path] = {}
    for name in names:
        composed = unicodedata.normalize("NFC", name)
        if composed in folders:
            raise DataError(
                f"{split}: two class folders have the same name, with accents stored in two ways: "
                f"{folders[composed].name!a} and {name!a}; put all images into one of them"
            )
        folders[composed] = split / name
    return dict(sorted(folders.items()))


def _refuse_flat(folder: pathlib.Path) -> None:
    """Refuses a folder that holds images in the place of class folders."""
    if folder.is_dir() and holds_images(folder):
        raise DataError(
            f"{folder}: holds no class folders, but images themselves; wanted: a folder in it for "
            "each class (if they are all of one class, give the folder above)"
        )


def _first_few(classes: set[str]) -> str:
    """Lists the first few class names for a message, and counts the others.

    Quotes show spaces at the ends of a name. Names that are not ASCII are repeated with escapes,
    because different letters may look the same.
    """
    shown = ", ".join(
        repr(name) if repr(name) == ascii(name) else f"{name!r} ({name!a})"
        for name in sorted(classes)[:5]
    )
    return f"{shown} and {len(classes) - 5} more" if len(classes) > 5 else shown
