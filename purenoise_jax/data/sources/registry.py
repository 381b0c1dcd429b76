"""The table of data sources, and `load`, which loads from any of them."""

import dataclasses
import difflib
from typing import Protocol

import numpy as np

from purenoise_jax.data.dataset import Dataset, check_dataset
from purenoise_jax.data.host_images import Images
from purenoise_jax.data.sources.cifar import LAYOUTS, load_cifar, read_cifar
from purenoise_jax.data.sources.digits import load_digits
from purenoise_jax.data.sources.download import ARCHIVES, cached_archive
from purenoise_jax.data.sources.folder import load_folder
from purenoise_jax.data.sources.idx import load_idx
from purenoise_jax.data.sources.lists import NO_LISTS, Lists, load_list
from purenoise_jax.data.sources.npz import load_npz
from purenoise_jax.data.sources.resize import SQUASH, resize_square
from purenoise_jax.data.sources.splits import refuse_chosen_splits
from purenoise_jax.data.sources.svhn import load_svhn
from purenoise_jax.data.sources.tfds import load_tfds
from purenoise_jax.data.sources.tfds_prepared import has_readable
from purenoise_jax.data.sources.tiered_imagenet import load_tiered_imagenet
from purenoise_jax.data.sources.tiny_imagenet import load_tiny_imagenet
from purenoise_jax.runtime.errors import ConfigError, unknown


class Source(Protocol):
    """Signature of the entries of `SOURCES`."""

    def __call__(self, *, name: str, path: str, image_size: int) -> Dataset:
        """Loads the data set `name` from `path`; `image_size` may be left to `load`."""
        ...


class SplitSource(Protocol):
    """Signature of the entries of `SPLIT_SOURCES`."""

    def __call__(
        self,
        *,
        name: str,
        path: str,
        image_size: int,
        train_split: str,
        test_split: str,
        resize: str,
    ) -> Dataset:
        """Loads like a `Source`, with chosen splits; an empty name means the default split."""
        ...


class ListSource(Protocol):
    """Signature of the entries of `LIST_SOURCES`."""

    def __call__(
        self, *, name: str, path: str, image_size: int, lists: Lists, resize: str
    ) -> Dataset:
        """Loads like a `Source`, with the images that lists name."""
        ...


def load_auto(
    *,
    name: str,
    path: str,
    image_size: int = 0,
    train_split: str = "",
    test_split: str = "",
    resize: str = SQUASH,
) -> Dataset:
    """Loads a data set from the first place that has it.

    `"digits"` comes with scikit-learn. CIFAR is read from `path` if that is given, otherwise from a
    prepared data set in the default TFDS directory, otherwise from the cache, after a download if
    necessary. Every other name is a prepared TFDS data set.

    Args:
        name: data set name.
        path: folder of the official CIFAR files or of the TFDS data sets; empty if not given.
        image_size: height and width to resize to, if the source can; 0 keeps the stored size.
        train_split: see `load_tfds`; must be empty for other data sets, whose splits are fixed.
        test_split: as `train_split`.
        resize: see `resize_square`, if the source can.

    Returns:
        The checked data set.

    Raises:
        ConfigError: the name is not legal, or a split is chosen of a data set with fixed splits.
        DataError: the data set cannot be found or is damaged.
    """
    if name == "digits" or name in LAYOUTS:
        refuse_chosen_splits(f"data.name={name}", train_split, test_split)
    if name == "digits":
        return load_digits(name=name, path=path, image_size=image_size)
    if name not in LAYOUTS:
        near = difflib.get_close_matches(name, LAYOUTS, 1)
        if near and not has_readable(name):
            raise unknown("data.name", name, [*LAYOUTS, "digits"])
        return load_tfds(
            name=name,
            path=path,
            image_size=image_size,
            train_split=train_split,
            test_split=test_split,
            resize=resize,
        )
    if path:
        return load_cifar(name=name, path=path, image_size=image_size)
    if has_readable(name):
        return load_tfds(name=name, path="", image_size=image_size, resize=resize)
    return read_cifar(cached_archive(ARCHIVES[name]), LAYOUTS[name])


SOURCES: dict[str, Source] = {
    "auto": load_auto,
    "tfds": load_tfds,
    "cifar_dir": load_cifar,
    "npz": load_npz,
    "folder": load_folder,
    "list": load_list,
    "idx": load_idx,
    "svhn": load_svhn,
    "tiny_imagenet": load_tiny_imagenet,
    "tiered_imagenet": load_tiered_imagenet,
    "digits": load_digits,
}
# The sources whose splits a config may choose.
SPLIT_SOURCES: dict[str, SplitSource] = {
    "auto": load_auto,
    "tfds": load_tfds,
    "folder": load_folder,
    "tiered_imagenet": load_tiered_imagenet,
}
# The sources that read lists.
LIST_SOURCES: dict[str, ListSource] = {"list": load_list}


def load(
    source: str,
    *,
    name: str,
    path: str,
    image_size: int = 0,
    train_split: str = "",
    test_split: str = "",
    lists: Lists = NO_LISTS,
    resize: str = SQUASH,
) -> Dataset:
    """Loads a data set.

    Args:
        source: a key of `SOURCES`.
        name: data set name, for example `"cifar10"`; its meaning depends on the source.
        path: file or folder to read; empty if not given.
        image_size: height and width of the images in pixels; 0 keeps the stored size, others are
            resized.
        train_split: name of the training split or folder; empty for the default.
        test_split: name of the test split or folder; empty for the default.
        lists: files that list the images of each split; other sources do not read them.
        resize: the way to resize images that are no squares, see `resize_square`.

    Returns:
        The checked data set, images `uint8[N, H, W, C]` and labels `int32[N]`.

    Raises:
        ConfigError: the source or the name is not legal, a needed path is missing, or the source
            has no splits to choose.
        DataError: the data set is missing, damaged, of the wrong shape or mislabelled.
    """
    if source not in SOURCES:
        raise unknown("data.source", source, SOURCES)
    if image_size < 0:
        raise ConfigError(f"data.image_size is {image_size}, must be 0 (as stored) or more")
    if source in SPLIT_SOURCES:
        dataset = SPLIT_SOURCES[source](
            name=name,
            path=path,
            image_size=image_size,
            train_split=train_split,
            test_split=test_split,
            resize=resize,
        )
    else:
        refuse_chosen_splits(f"data.source={source}", train_split, test_split)
        if source in LIST_SOURCES:
            dataset = LIST_SOURCES[source](
                name=name, path=path, image_size=image_size, lists=lists, resize=resize
            )
        else:
            dataset = SOURCES[source](name=name, path=path, image_size=image_size)
    dataset = check_dataset(dataset)
    return resized(dataset, image_size, resize) if image_size else dataset


def resized(dataset: Dataset, side: int, how: str = SQUASH) -> Dataset:
    """Resizes the images of all splits to squares, where a source has not done so itself.

    Args:
        dataset: checked.
        side: height and width in pixels, at least 1.
        how: see `resize_square`.
    """

    def square(images: Images) -> Images:
        if images.shape[1:3] == (side, side):
            return images
        if not len(images):
            return np.zeros((0, side, side, images.shape[3]), np.uint8)
        return np.stack([resize_square(images[i], side, how) for i in range(len(images))])

    val_images = dataset.val_images
    return dataclasses.replace(
        dataset,
        train_images=square(dataset.train_images),
        test_images=square(dataset.test_images),
        val_images=None if val_images is None else square(val_images),
    )
