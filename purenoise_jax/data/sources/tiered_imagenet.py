"""Lists tieredImageNet with many images of some classes and five of the others.

The protocol is that of Ye et al. 2021 ("Procrustean training for imbalanced deep learning",
supplement, C.1): the classes of the training split are the major ones, and those of the test split,
or of the validation split to tune on, are the minor ones. In few-shot learning, for which the data
set was made, the three splits have no class in common.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.sources.file_splits import FileSplits, read_all
from purenoise_jax.data.sources.image_files import images_of_class, is_class_folder, stray_images
from purenoise_jax.data.sources.pickled_images import PickledImages, is_pickled
from purenoise_jax.data.sources.resize import SQUASH
from purenoise_jax.data.view import View
from purenoise_jax.runtime.errors import ConfigError, DataError, shown
from purenoise_jax.runtime.paths import expand

MINOR_IMAGES, VAL_IMAGES, TEST_IMAGES = 5, 3, 50
MAJOR, MINOR = "train", ("test", "val")


def load_tiered_imagenet(
    *,
    name: str,
    path: str,
    image_size: int = 0,
    train_split: str = "",
    test_split: str = "",
    resize: str = SQUASH,
) -> Dataset:
    """Loads tieredImageNet as a step, from `train/<class>/`, `val/<class>/` and `test/<class>/`.

    Or from the files in which the data set is distributed, `train_images_png.pkl` and
    `train_labels.pkl`, and so on; see `PickledImages`. In these, the images of a class are in the
    order of the file instead of that of their names, so other images are drawn.

    Every class has 3 validation images and 50 test images. Of a minor class, 5 others train; of a
    major class, all others. The images of each class are shuffled by numpy's `RandomState(0)`. The
    classes are the sorted major ones, then the sorted minor ones; those of the distributed files
    are in the order of their numbers.

    READING: the supplement draws the images of minor classes at random, without saying which, and
    says of the major ones that each has "around 1,000 training images". Here they keep all that are
    neither validated nor tested on.

    Args:
        name: unused.
        path: the folder of the three splits, or of the files.
        image_size: height and width to resize to; 0 keeps the stored size.
        train_split: must be empty: the major classes are always those of `train`.
        test_split: folder of the minor classes: "" or "test" to test, "val" to tune.
        resize: see `resize_square`.

    Returns:
        The checked data set, images `uint8[N, H, W, 3]`, with validation images.

    Raises:
        ConfigError: `path` is empty, or a split's name is not legal.
        DataError: a folder or file is missing, a class has too few images or belongs to both kinds,
            or an image is damaged; one message lists all. Or a file is no such pickle.
    """
    return read_all(
        tiered_imagenet_files(path, train_split, test_split), View(image_size, how=resize)
    )


def tiered_imagenet_files(path: str, train_split: str = "", test_split: str = "") -> FileSplits:
    """Lists the files that `load_tiered_imagenet` reads, by its rules.

    Args:
        path: see `load_tiered_imagenet`.
        train_split: see `load_tiered_imagenet`.
        test_split: see `load_tiered_imagenet`.

    Raises:
        ConfigError: see `load_tiered_imagenet`.
        DataError: a folder is missing.
    """
    if not path:
        raise ConfigError("data.path is empty: give the folder that holds train/, val/ and test/")
    root, minor = expand(path, "data.path"), test_split or MINOR[0]
    if train_split or minor not in MINOR:
        field, given = ("train", train_split) if train_split else ("test", test_split)
        legal = "''" if train_split else "'', " + ", ".join(map(repr, MINOR))
        raise ConfigError(
            f"data.{field}_split={shown(given)} is not legal with data.source=tiered_imagenet; "
            f"legal: {legal}"
        )
    splits = (MAJOR, minor)
    store = PickledImages(root, splits) if is_pickled(root) else None
    faults: list[str] = []
    if store:
        classes = [
            _Class(split, name, store.images_of(split, number))
            for split in splits
            for number, name in enumerate(store.classes(split))
        ]
    else:
        classes, faults = _in_folders(root, splits)
    files: dict[str, list[tuple[pathlib.Path, int]]] = {"train": [], "test": [], "val": []}
    names: list[str] = []
    for label, each in enumerate(classes):
        faults += each.faults
        again = each.split == minor and each.name in names
        if again and store is None:
            faults.append(f"{minor}/{each.name}: is a class of {MAJOR}, too")
        # The distributed names are words, of which two classes can have the same.
        names.append(f"{each.name} ({minor})" if again else each.name)
        train = MINOR_IMAGES if each.split == minor else 1
        if (wanted := TEST_IMAGES + VAL_IMAGES + train) > len(each.images):
            faults.append(
                f"{each.split}/{each.name}: has {len(each.images)} images, wanted {wanted}"
            )
        # Anew for each class, so that it has the same images beside any others.
        order = np.random.RandomState(0).permutation(len(each.images)).tolist()
        drawn = [(each.images[i], label) for i in order]
        files["test"] += drawn[:TEST_IMAGES]
        rest = drawn[TEST_IMAGES:]
        files["val"] += rest[:VAL_IMAGES]
        files["train"] += rest[VAL_IMAGES:][: MINOR_IMAGES if each.split == minor else None]
    return FileSplits(
        root,
        "train",
        "test",
        files,
        tuple(names),
        {"train": faults},
        key=f" minor={minor}",
        store=store,
    )


@dataclasses.dataclass(frozen=True)
class _Class:
    """A class of a split: its name, its images, and the faults of other files."""

    split: str
    name: str
    images: Sequence[pathlib.Path]
    faults: Sequence[str] = ()


def _in_folders(root: pathlib.Path, splits: Sequence[str]) -> tuple[list[_Class], list[str]]:
    """The classes of folders, and the faults beside them."""
    folders = [root / split for split in splits]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder")
    classes = [
        _Class(folder.name, name, *images_of_class(folder / name))
        for folder in folders
        for name in sorted(entry.name for entry in folder.iterdir() if is_class_folder(entry))
    ]
    return classes, [fault for folder in folders for fault in stray_images(folder)]
