"""Reads image files from one folder per split and class."""

import os
import pathlib
import unicodedata

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.sources.file_splits import FileSplits, read_all
from purenoise_jax.data.sources.image_files import (
    images_of_class,
    is_class_folder,
    stray_images,
)
from purenoise_jax.data.sources.splits import refuse_odd_splits
from purenoise_jax.data.sources.unsplit import with_test_share
from purenoise_jax.data.view import View
from purenoise_jax.runtime.errors import ConfigError, DataError
from purenoise_jax.runtime.paths import expand


def load_folder(
    *, name: str, path: str, image_size: int = 0, train_split: str = "", test_split: str = ""
) -> Dataset:
    """Loads `train/<class>/`, `test/<class>/` and, if there, `val/<class>/` below one folder.

    Images are read in sorted order and converted to RGB, by the rules of `decode_image`. The
    classes are the sorted folder names in `train`, in Unicode's composed form (NFC), because
    systems store accents in two ways: as a separate code point (macOS) or as part of the letter.
    Files that are known not to be images are ignored. Any other file that cannot be read is a
    fault, and one message lists all faults.

    Args:
        name: unused; the data set is named after its folder.
        path: the folder that holds `train` and `test`.
        image_size: height and width to resize to; 0 keeps the stored size, which must then be the
            same for all images.
        train_split: name of the folder of training images; empty for `train`.
        test_split: name of the folder of test images; empty for `test`. `val` is read beside it
            unless it is one of the two.

    Returns:
        The checked data set, images `uint8[N, H, W, 3]`.

    Raises:
        ConfigError: `path` is empty, or a split's name is not legal.
        DataError: a split or class is missing or empty; the class folders of two splits differ; the
            names of two folders of a split differ only in the storage of accents; an image is
            damaged, one folder too deep or a broken link; a file may be an image but has no
            supported format; or the sizes differ while `image_size` is 0.
    """
    return read_all(folder_files(path, train_split, test_split), View(image_size))


def folder_files(
    path: str, train_split: str = "", test_split: str = "", test_fraction: float = 0.0
) -> FileSplits:
    """Lists the files that `load_folder` reads, by its rules.

    Args:
        path: see `load_folder`.
        train_split: see `load_folder`.
        test_split: see `load_folder`.
        test_fraction: share of the training images to test on instead of a folder; see
            `with_test_share`.

    Raises:
        ConfigError: see `load_folder`.
        DataError: a folder is missing, or there although a share is to be tested on; or the classes
            of two splits differ.
    """
    if not path:
        raise ConfigError("data.path is empty: give the folder that holds train/ and test/")
    root = expand(path, "data.path")
    train, test = train_split or "train", test_split or "test"
    refuse_odd_splits(train, test)
    wanted = [train] if test_fraction else [train, test]
    if test_fraction and os.path.lexists(root / test):
        raise DataError(
            f"{root / test}: is there, so data.test_fraction={test_fraction:g} is not legal; "
            "legal: 0, which tests on this folder"
        )
    # A broken link counts too: it is then reported as missing instead of ignored.
    if "val" not in wanted and os.path.lexists(root / "val"):
        wanted.append("val")

    folders: dict[str, dict[str, pathlib.Path]] = {}
    for split in wanted:
        if not (root / split).is_dir():
            field = {train: "data.train_split", test: "data.test_split"}.get(split, "")
            others = _others(root, field, {train, test}) if field else ""
            raise DataError(f"{root / split}: there is no such folder{others}")
        folders[split] = _class_folders(root / split)
        found, classes = {*folders[split]}, {*folders[train]}
        if found != classes:
            only = {train: classes - found, split: found - classes}
            differing = "; ".join(f"only {s} has {_first_few(k)}" for s, k in only.items() if k)
            raise DataError(f"{root}: the class folders of {train} and {split} differ: {differing}")
    files: dict[str, list[tuple[pathlib.Path, int]]] = {split: [] for split in wanted}
    faults = {split: stray_images(root / split) for split in wanted}
    for split in wanted:
        for label, folder in enumerate(folders[split].values()):
            images, more = images_of_class(folder)
            files[split] += [(image, label) for image in images]
            faults[split] += more
    listed = FileSplits(root, train, test, files, tuple(folders[train]), faults)
    return with_test_share(listed, test_fraction) if test_fraction else listed


def _others(root: pathlib.Path, field: str, chosen: set[str]) -> str:
    """Returns the end of a message about a missing split: the folders that could be meant."""
    try:
        found = sorted(entry.name for entry in root.iterdir() if is_class_folder(entry))
    except OSError:
        return ""
    others = [name for name in found if name not in chosen]
    shown = ", ".join(others[:10]) + (", ..." if len(others) > 10 else "")
    return f"; {root} has {shown}; set {field} to one of them" if others else ""


def _class_folders(split: pathlib.Path) -> dict[str, pathlib.Path]:
    """Lists the folder of every class of a split, sorted by the class's name."""
    try:
        names = sorted(entry.name for entry in split.iterdir() if is_class_folder(entry))
    except OSError as error:
        raise DataError(f"{split}: cannot be listed ({error.strerror})") from error
    if not names:
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
