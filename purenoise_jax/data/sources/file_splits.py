"""Image files with labels, by split, and two ways to load them: now, or when a step needs them.

Both are shared by the sources whose images are files.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from purenoise_jax.data.dataset import Dataset, check_dataset, no_images
from purenoise_jax.data.decoded_images import DecodedImages
from purenoise_jax.data.manifest import Entries, Manifest, Store
from purenoise_jax.data.sources.download import cache_folder
from purenoise_jax.data.sources.file_manifest import Files, manifest_of_files
from purenoise_jax.data.sources.image_stack import ImageStack
from purenoise_jax.data.view import View
from purenoise_jax.runtime.errors import DataError, all_faults, one_line
from purenoise_jax.runtime.files import write_atomically

# Folder of the cache with the lists of all faults of a data set, and how many a message names.
FAULTS, SHOWN = "faults", 5


@dataclasses.dataclass(frozen=True)
class FileSplits:
    """The image files of a data set and their labels; no image has been read.

    Attributes:
        root: the folder below which all files lie.
        train: name of the training split.
        test: name of the test split, which need not be there.
        splits: name -> files and labels, in the order of the images; a further split is validation.
        classes: the class names in label order.
        faults: split -> one line for each file that is no image, as far as that is seen without
            reading it.
        mistakes: one line for each fault of the whole.
        key: tells data sets below one root with splits of the same names apart; "" = there is one.
        groups: file -> the number of its group, see `Dataset.train_groups`; None = there are none.
        store: reads the files; None = they are files of their own.
    """

    root: pathlib.Path
    train: str
    test: str
    splits: Mapping[str, Sequence[tuple[pathlib.Path, int]]]
    classes: tuple[str, ...]
    faults: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    mistakes: Sequence[str] = ()
    key: str = ""
    groups: Mapping[pathlib.Path, int] | None = None
    store: Store | None = None

    @property
    def reader(self) -> Store:
        """The store of the files."""
        return self.store or Files(self.root)

    def of_groups(self, files: Iterable[pathlib.Path]) -> np.ndarray | None:
        """Returns the number of each file's group, int32[N]; None = there are no groups."""
        if self.groups is None:
            return None
        return np.array([self.groups[file] for file in files], np.int32)

    def num_bytes(self, image_size: int) -> int:
        """Bytes that all images take in memory at a size above 0."""
        return sum(map(len, self.splits.values())) * image_size * image_size * 3

    def without_unlisted_classes(self) -> "FileSplits":
        """Returns the splits without the classes of which no training image is listed."""
        kept = sorted({label for _, label in self.splits[self.train]})
        if len(kept) == len(self.classes):
            return self
        new = {label: i for i, label in enumerate(kept)}
        faults = {split: [*found] for split, found in self.faults.items()}
        splits = {}
        for split, files in self.splits.items():
            splits[split] = [(path, new[label]) for path, label in files if label in new]
            faults.setdefault(split, []).extend(
                f"{path.relative_to(self.root).as_posix()}: is of class {self.classes[label]}, "
                "which has no training image"
                for path, label in files
                if label not in new
            )
        classes = tuple(self.classes[label] for label in kept)
        # Labels of a manifest that was kept from other classes mean others.
        key = " ".join([self.key, *classes])
        return dataclasses.replace(self, splits=splits, classes=classes, faults=faults, key=key)


def read_all(files: FileSplits, view: View, skips_bad: bool = False) -> Dataset:
    """Reads all images.

    Args:
        files: of all splits.
        view: of the images in the files. Without a size, they must all have the same.
        skips_bad: images that cannot be read, and files that are no images, are left out; otherwise
            they are faults.

    Returns:
        The checked data set, images `uint8[N, H, W, 3]`.

    Raises:
        DataError: there are faults, or an image is missing or damaged; one message lists all.
    """
    splits: dict[str, Any] = {}
    bad: list[str] = []
    faults = [*files.mistakes]
    groups = None
    for split, listed in files.splits.items():
        splits[split], more, whole, kept = _read_split(files.reader, listed, view, skips_bad)
        if split == files.train:
            groups = files.of_groups(listed[i][0] for i in kept)
        bad += [*files.faults.get(split, ()), *more]
        faults += whole
    _refuse(files.root, faults, bad, skips_bad)
    return dataclasses.replace(_dataset(files, splits), left_out=tuple(bad), train_groups=groups)


def leave_in_files(files: FileSplits, view: View, skips_bad: bool = False) -> Dataset:
    """Loads what `read_all` does, but leaves the images in their files, as `DecodedImages`.

    Every file is read once for its checksum, and once for the statistics of its channels; both are
    kept in the cache.

    Args:
        files: of all splits.
        view: see `read_all`; random crops are only those of the training images.
        skips_bad: see `DecodedImages`; files that are no images are left out.

    Raises:
        DataError: there are faults, or a file cannot be read; one message lists all.
        StorageError: the cache cannot be written.
    """
    manifest = manifest_of_files(files.reader, files.splits, cache_folder(), files.key)
    bad = [fault for found in files.faults.values() for fault in found] + [*manifest.missing]
    faults = [*files.mistakes]
    splits = {}
    for split, entries in manifest.splits.items():
        if not entries:
            continue
        own = view if split == files.train else dataclasses.replace(view, crop="")
        images, first = _decoded(manifest, entries, own, skips_bad)
        found, depth = images.faults()
        # Whether the samples of 16 bits fill them is seen in a whole split only.
        faults += [f"{files.root / entries[0].path}: {depth}"] if depth else []
        bad += [] if skips_bad else [*found.values()] or first
        splits[split] = images, entries.labels
    try:
        _refuse(files.root, faults, bad, skips_bad)
    except DataError:
        manifest.discard()
        raise
    return dataclasses.replace(
        _dataset(files, splits),
        content=manifest.digest,
        left_out=tuple(bad),
        train_groups=files.of_groups(
            files.root / entry.path for entry in manifest.splits[files.train]
        ),
    )


def _decoded(
    manifest: Manifest, entries: Entries, view: View, skips_bad: bool
) -> tuple[DecodedImages, list[str]]:
    """The images of a split, and the fault of the first, which gives the size, if it has one."""
    try:
        return DecodedImages(manifest, entries, view, skips_bad), []
    except DataError as error:
        # The others are looked at as well.
        return DecodedImages(manifest, entries, view, skips_bad=True), [str(error)]


def without_bad(dataset: Dataset) -> Dataset:
    """Returns a data set of `leave_in_files` without the images that cannot be read."""
    splits: dict[str, Any] = {}
    bad = [*dataset.left_out]
    for split in ("train", "test", "val"):
        images = getattr(dataset, f"{split}_images")
        if not isinstance(images, DecodedImages):
            continue
        found, _ = images.faults()
        good = np.setdiff1d(np.arange(len(images)), [*found])
        bad += found.values()
        splits[f"{split}_images"] = images.subset(good)
        splits[f"{split}_labels"] = getattr(dataset, f"{split}_labels")[good]
        if split == "train" and dataset.train_groups is not None:
            splits["train_groups"] = dataset.train_groups[good]
    return dataclasses.replace(dataset, **splits, left_out=tuple(bad))


def _refuse(root: pathlib.Path, faults: Sequence[str], bad: Sequence[str], skips_bad: bool) -> None:
    """Refuses a data set with faults; all are in one file if the message cannot name them.

    Args:
        root: of the data set.
        faults: of the whole.
        bad: of single files.
        skips_bad: those are left out instead.

    Raises:
        DataError: there are faults.
    """
    counted = [*([] if skips_bad else bad), *faults]
    if not counted:
        return
    message = str(all_faults(root, counted))
    if len(counted) > SHOWN:
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
        file = cache_folder() / FAULTS / f"{name}.txt"
        text = "".join(f"{one_line(fault)}\n" for fault in counted)
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, text)
            message += f"; {file} lists all"
    if bad and not (faults or skips_bad):
        message += "; data.on_bad=stop, the default, refuses them, data.on_bad=skip leaves them out"
    raise DataError(message)


def _dataset(files: FileSplits, splits: dict[str, Any]) -> Dataset:
    """The checked data set of splits (images, labels) by name."""
    for split in [name for name in splits if not len(splits[name][1])]:
        del splits[split]
    if files.train not in splits:
        raise DataError(f"{files.root}: no training image can be read")
    others = [split for split in splits if split not in (files.train, files.test)]
    val_images, val_labels = splits[others[0]] if others else (None, None)
    none = no_images(splits[files.train][0]), np.zeros(0, np.int32)
    test_images, test_labels = splits.get(files.test, none)
    return check_dataset(
        Dataset(
            name=str(files.root),
            train_images=splits[files.train][0],
            train_labels=splits[files.train][1],
            test_images=test_images,
            test_labels=test_labels,
            class_names=files.classes,
            val_images=val_images,
            val_labels=val_labels,
        )
    )


def _read_split(
    store: Store,
    listed: Sequence[tuple[pathlib.Path, int]],
    view: View,
    skips_bad: bool,
) -> tuple[tuple[np.ndarray, np.ndarray], list[str], list[str], np.ndarray]:
    """Reads images and labels of a split, the faults of its images, and those of the whole.

    With faults, images are missing, unless bad ones are skipped. The last are the places of the
    images that are there.
    """
    bad: dict[int, str] = {}
    stack = ImageStack(len(listed), view.side)
    for index, (file, _) in enumerate(listed):
        place = file.relative_to(store.root).as_posix()
        try:
            decoded = store.decode(store.read(place))
        except OSError as error:
            bad[index] = f"{place}: cannot be read ({error.strerror or error})"
        except DataError as error:
            bad[index] = f"{place}: {error}"
        else:
            stack.add(index, place, view(decoded.pixels), decoded.largest)
    images, faults = stack.finish(skips_odd=skips_bad)
    labels, good = np.array([label for _, label in listed], np.int32), np.arange(len(listed))
    if skips_bad:
        bad |= stack.odd()
        good = np.setdiff1d(good, [*bad])
        # An empty split has no size of its own.
        images, labels = images[good] if good.size else images[:0], labels[good]
    return (images, labels), [*bad.values()], faults, good
