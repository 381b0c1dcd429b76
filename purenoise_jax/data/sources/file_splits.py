"""Image files with labels, by split, and two ways to load them: now, or when a step needs them.

Both are shared by the sources whose images are files.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from purenoise_jax.data.dataset import Dataset, check_dataset
from purenoise_jax.data.sources.decode import decode_image
from purenoise_jax.data.sources.decoded_splits import decoded_splits
from purenoise_jax.data.sources.download import cache_folder
from purenoise_jax.data.sources.file_manifest import manifest_of_files
from purenoise_jax.data.sources.image_stack import ImageStack
from purenoise_jax.data.view import View
from purenoise_jax.runtime.errors import DataError, all_faults
from purenoise_jax.runtime.files import read_bytes


@dataclasses.dataclass(frozen=True)
class FileSplits:
    """The image files of a data set and their labels; no image has been read.

    Attributes:
        root: the folder below which all files lie.
        train: name of the training split.
        test: name of the test split.
        splits: name -> files and labels, in the order of the images; a third split is validation.
        classes: the class names in label order.
        faults: split -> one line for each fault that was found without reading images.
        key: tells data sets below one root with splits of the same names apart; "" = there is one.
    """

    root: pathlib.Path
    train: str
    test: str
    splits: Mapping[str, Sequence[tuple[pathlib.Path, int]]]
    classes: tuple[str, ...]
    faults: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    key: str = ""

    def num_bytes(self, image_size: int) -> int:
        """Bytes that all images take in memory at a size above 0."""
        return sum(map(len, self.splits.values())) * image_size * image_size * 3


def read_all(files: FileSplits, view: View) -> Dataset:
    """Reads all images.

    Args:
        files: of all splits.
        view: of the images in the files. Without a size, they must all have the same.

    Returns:
        The checked data set, images `uint8[N, H, W, 3]`.

    Raises:
        DataError: there are faults, or an image is missing or damaged; one message lists all.
    """
    splits, faults = {}, []
    for split, listed in files.splits.items():
        splits[split], more = _read_split(files.root, listed, view)
        faults += [*files.faults.get(split, ()), *more]
    if faults:
        raise all_faults(files.root, faults)
    return _dataset(files, splits)


def leave_in_files(files: FileSplits, view: View, skips_bad: bool = False) -> Dataset:
    """Loads what `read_all` does, but leaves the images in their files, as `DecodedImages`.

    Every file is read once for its checksum, and once for the statistics of its channels; both are
    kept in the cache.

    Args:
        files: of all splits.
        view: see `read_all`; random crops are only those of the training images.
        skips_bad: see `DecodedImages`.

    Raises:
        DataError: there are faults, or a file cannot be read; one message lists all.
        StorageError: the cache cannot be written.
    """
    if faults := [fault for found in files.faults.values() for fault in found]:
        raise all_faults(files.root, faults)
    manifest = manifest_of_files(files.root, files.splits, cache_folder(), files.key)
    splits = decoded_splits(manifest, files.train, view, skips_bad)
    return dataclasses.replace(_dataset(files, splits), content=manifest.digest)


def _dataset(files: FileSplits, splits: Mapping[str, Any]) -> Dataset:
    """The checked data set of splits (images, labels) by name."""
    others = [split for split in splits if split not in (files.train, files.test)]
    val_images, val_labels = splits[others[0]] if others else (None, None)
    return check_dataset(
        Dataset(
            name=str(files.root),
            train_images=splits[files.train][0],
            train_labels=splits[files.train][1],
            test_images=splits[files.test][0],
            test_labels=splits[files.test][1],
            class_names=files.classes,
            val_images=val_images,
            val_labels=val_labels,
        )
    )


def _read_split(
    root: pathlib.Path, listed: Sequence[tuple[pathlib.Path, int]], view: View
) -> tuple[tuple[np.ndarray, np.ndarray], list[str]]:
    """Reads images and labels of a split, and its faults; with faults, images are missing."""
    faults: list[str] = []
    stack = ImageStack(len(listed), view.side)
    for index, (file, _) in enumerate(listed):
        place = file.relative_to(root).as_posix()
        try:
            decoded = decode_image(read_bytes(file))
        except OSError as error:
            faults.append(f"{place}: cannot be read ({error.strerror or error})")
        except DataError as error:
            faults.append(f"{place}: {error}")
        else:
            stack.add(index, place, view(decoded.pixels), decoded.largest)
    images, more = stack.finish()
    faults += more
    return (images, np.array([label for _, label in listed], np.int32)), faults
