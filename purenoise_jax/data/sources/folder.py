"""Reads image files from one folder per split and class."""

import dataclasses
import os
import pathlib
import unicodedata
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np

from purenoise_jax.data.dataset import Dataset, check_dataset
from purenoise_jax.data.decoded_images import DecodedImages
from purenoise_jax.data.manifest import find_manifest
from purenoise_jax.data.sources.decode import decode_image
from purenoise_jax.data.sources.download import cache_folder
from purenoise_jax.data.sources.image_files import (
    images_of_class,
    is_class_folder,
    stray_images,
)
from purenoise_jax.data.sources.image_stack import ImageStack
from purenoise_jax.data.sources.splits import refuse_odd_splits
from purenoise_jax.runtime.errors import ConfigError, DataError, all_faults
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.paths import expand

# The files of a split by class.
Files: TypeAlias = dict[str, list[pathlib.Path]]


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
    root, train, test, listed, found = _listed(path, train_split, test_split)
    splits, faults = {}, []
    for split, files in listed.items():
        splits[split], more = _read_split(root / split, files, image_size)
        faults += found[split] + more
    if faults:
        raise all_faults(root, faults)
    return _dataset(root, train, test, splits, listed[train])


def load_decoded(
    *,
    path: str,
    image_size: int = 0,
    train_split: str = "",
    test_split: str = "",
    skips_bad: bool = False,
    crops: bool = False,
) -> Dataset:
    """Loads what `load_folder` does, but leaves the images in their files, as `DecodedImages`.

    Every file is read once for its checksum, and once for the statistics of its channels; both are
    kept in the cache.

    Args:
        path: see `load_folder`.
        image_size: see `load_folder`.
        train_split: see `load_folder`.
        test_split: see `load_folder`.
        skips_bad: see `DecodedImages`.
        crops: see `DecodedImages`; only of the training images.

    Raises:
        ConfigError: see `load_folder`.
        DataError: see `load_folder`.
        StorageError: the cache cannot be written.
    """
    root, train, test, listed, found = _listed(path, train_split, test_split)
    if faults := [fault for split in found.values() for fault in split]:
        raise all_faults(root, faults)
    labelled = {split: _labelled(classes) for split, classes in listed.items()}
    manifest = find_manifest(root, labelled, cache_folder())
    splits = {
        split: (
            DecodedImages(manifest, entries, image_size, skips_bad, crops and split == train),
            np.array([entry.label for entry in entries], np.int32),
        )
        for split, entries in manifest.splits.items()
    }
    for images, _ in splits.values():
        # Whether the samples of 16 bits fill them is seen in a whole split only.
        images.histograms()
    return dataclasses.replace(
        _dataset(root, train, test, splits, listed[train]), content=manifest.digest
    )


def _listed(
    path: str, train_split: str, test_split: str
) -> tuple[pathlib.Path, str, str, dict[str, Files], dict[str, list[str]]]:
    """The root, the names of training and test split, and of every split the files and faults."""
    if not path:
        raise ConfigError("data.path is empty: give the folder that holds train/ and test/")
    root = expand(path, "data.path")
    train, test = train_split or "train", test_split or "test"
    refuse_odd_splits(train, test)
    wanted = [train, test]
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
    files: dict[str, Files] = {split: {} for split in wanted}
    faults = {split: stray_images(root / split) for split in wanted}
    for split in wanted:
        for name, folder in folders[split].items():
            files[split][name], more = images_of_class(folder)
            faults[split] += more
    return root, train, test, files, faults


def _dataset(
    root: pathlib.Path, train: str, test: str, splits: dict[str, Any], classes: Iterable[str]
) -> Dataset:
    """The checked data set of splits (images, labels) by name."""
    others = [split for split in splits if split not in (train, test)]
    val_images, val_labels = splits[others[0]] if others else (None, None)
    return check_dataset(
        Dataset(
            name=str(root),
            train_images=splits[train][0],
            train_labels=splits[train][1],
            test_images=splits[test][0],
            test_labels=splits[test][1],
            class_names=tuple(classes),
            val_images=val_images,
            val_labels=val_labels,
        )
    )


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


def folder_bytes(
    *, path: str, image_size: int = 0, train_split: str = "", test_split: str = ""
) -> int:
    """Bytes that the images take in memory; 0 if these are not known without reading them."""
    if not path or not image_size:
        return 0
    listed = _listed(path, train_split, test_split)[3]
    count = sum(len(files) for classes in listed.values() for files in classes.values())
    return count * image_size * image_size * 3


def _labelled(classes: Files) -> list[tuple[pathlib.Path, int]]:
    """The files of a split with their labels, in order."""
    return [(file, label) for label, found in enumerate(classes.values()) for file in found]


def _read_split(
    split: pathlib.Path, classes: Files, image_size: int
) -> tuple[tuple[np.ndarray, np.ndarray], list[str]]:
    """Reads images and labels of a split, and its faults; with faults, images are missing."""
    files, faults = _labelled(classes), []
    stack = ImageStack(len(files), image_size)
    for index, (file, _) in enumerate(files):
        place = file.relative_to(split.parent).as_posix()
        try:
            decoded = decode_image(read_bytes(file))
        except OSError as error:
            faults.append(f"{place}: cannot be read ({error.strerror})")
        except DataError as error:
            faults.append(f"{place}: {error}")
        else:
            stack.add(index, place, decoded.pixels, decoded.largest)
    images, more = stack.finish()
    faults += more
    return (images, np.array([label for _, label in files], np.int32)), faults
