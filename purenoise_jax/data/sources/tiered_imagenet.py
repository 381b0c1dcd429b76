"""Lists tieredImageNet with many images of some classes and five of the others.

The protocol is that of Ye et al. 2021 ("Procrustean training for imbalanced deep learning",
supplement, C.1): the classes of the training split are the major ones, and those of the test split,
or of the validation split to tune on, are the minor ones. In few-shot learning, for which the data
set was made, the three splits have no class in common.
"""

import pathlib

import numpy as np

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.sources.file_splits import FileSplits, read_all
from purenoise_jax.data.sources.image_files import images_of_class, is_class_folder, stray_images
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

    Every class has 3 validation images and 50 test images. Of a minor class, 5 others train; of a
    major class, all others. The images of each class are shuffled by numpy's `RandomState(0)`. The
    classes are the sorted major ones, then the sorted minor ones.

    READING: the supplement draws the images of minor classes at random, without saying which, and
    says of the major ones that each has "around 1,000 training images". Here they keep all that are
    neither validated nor tested on.

    Args:
        name: unused.
        path: the folder of the three splits.
        image_size: height and width to resize to; 0 keeps the stored size.
        train_split: must be empty: the major classes are always those of `train`.
        test_split: folder of the minor classes: "" or "test" to test, "val" to tune.
        resize: see `resize_square`.

    Returns:
        The checked data set, images `uint8[N, H, W, 3]`, with validation images.

    Raises:
        ConfigError: `path` is empty, or a split's name is not legal.
        DataError: a folder is missing, a class has too few images or belongs to both kinds, or an
            image is damaged; one message lists all.
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
    folders = [root / MAJOR, root / minor]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder")
    classes = [
        (folder, name)
        for folder in folders
        for name in sorted(entry.name for entry in folder.iterdir() if is_class_folder(entry))
    ]
    files: dict[str, list[tuple[pathlib.Path, int]]] = {"train": [], "test": [], "val": []}
    faults = [fault for folder in folders for fault in stray_images(folder, root)]
    names = [name for _, name in classes]
    for label, (folder, name) in enumerate(classes):
        images, more = images_of_class(folder / name, root)
        faults += more
        if folder != folders[0] and name in names[:label]:
            faults.append(f"{folder.name}/{name}: is a class of {MAJOR}, too")
        train = MINOR_IMAGES if folder.name == minor else 1
        if (wanted := TEST_IMAGES + VAL_IMAGES + train) > len(images):
            faults.append(f"{folder.name}/{name}: has {len(images)} images, wanted {wanted}")
        # Anew for each class, so that it has the same images beside any others.
        order = np.random.RandomState(0).permutation(len(images)).tolist()
        drawn = [(images[i], label) for i in order]
        files["test"] += drawn[:TEST_IMAGES]
        rest = drawn[TEST_IMAGES:]
        files["val"] += rest[:VAL_IMAGES]
        files["train"] += rest[VAL_IMAGES:][: MINOR_IMAGES if folder.name == minor else None]
    return FileSplits(
        root, "train", "test", files, tuple(names), {"train": faults}, key=f" minor={minor}"
    )
