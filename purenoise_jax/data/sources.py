"""The table of data sources, and the one function that loads from any of them."""

import difflib
from typing import Protocol

from purenoise_jax.data.cifar import LAYOUTS, load_cifar, read_cifar
from purenoise_jax.data.dataset import Dataset, check_dataset
from purenoise_jax.data.digits import load_digits
from purenoise_jax.data.download import ARCHIVES, cached_archive
from purenoise_jax.data.folder import load_folder
from purenoise_jax.data.npz import load_npz
from purenoise_jax.data.tfds_source import has_readable, load_tfds
from purenoise_jax.errors import ConfigError, unknown


class Source(Protocol):
    """What every entry of `SOURCES` looks like."""

    def __call__(self, *, name: str, path: str, image_size: int) -> Dataset:
        """Loads the data set `name` from `path` at `image_size` (0: as stored)."""
        ...


def load_auto(*, name: str, path: str, image_size: int = 0) -> Dataset:
    """Loads a data set from the nearest place that has it.

    `"digits"` comes with scikit-learn. CIFAR is read from `path` if that is given, else from a
    prepared data set in the default TFDS directory, else from the cache, which is filled by a
    download if need be. Every other name is a prepared TFDS data set.

    Args:
        name: Data set name.
        path: Where the official CIFAR files or the TFDS data sets are; empty if not given.
        image_size: Height and width to resize to, where the source does that; 0 for as stored.

    Returns:
        The checked data set.

    Raises:
        ConfigError: The name is not legal.
        DataError: The data set is not to be had, or is damaged.
    """
    if name == "digits":
        return load_digits(name=name, path=path, image_size=image_size)
    if name not in LAYOUTS:
        near = difflib.get_close_matches(name, LAYOUTS, 1)
        if near and not has_readable(name):
            raise unknown("data.name", name, [*LAYOUTS, "digits"])
        return load_tfds(name=name, path=path, image_size=image_size)
    if path:
        return load_cifar(name=name, path=path, image_size=image_size)
    if has_readable(name):
        return load_tfds(name=name, path="", image_size=image_size)
    return read_cifar(cached_archive(ARCHIVES[name]), LAYOUTS[name])


SOURCES: dict[str, Source] = {
    "auto": load_auto,
    "tfds": load_tfds,
    "cifar_dir": load_cifar,
    "npz": load_npz,
    "folder": load_folder,
    "digits": load_digits,
}


def load(source: str, *, name: str, path: str, image_size: int = 0) -> Dataset:
    """Loads a data set.

    Args:
        source: A key of `SOURCES`.
        name: Data set name, for example `"cifar10"`; what it means depends on the source.
        path: File or folder to read; empty if not given.
        image_size: Height and width of the images in pixels; 0 for as stored.

    Returns:
        The checked data set, images `uint8[N, H, W, C]` and labels `int32[N]`.

    Raises:
        ConfigError: The source or the name is not legal, a needed path is missing, or the source
            cannot deliver `image_size`.
        DataError: The data set is missing, damaged, of the wrong shape or mislabelled.
    """
    if source not in SOURCES:
        raise unknown("data.source", source, SOURCES)
    if image_size < 0:
        raise ConfigError(f"data.image_size is {image_size}, must be 0 (as stored) or more")
    dataset = check_dataset(SOURCES[source](name=name, path=path, image_size=image_size))
    height, width = dataset.train_images.shape[1:3]
    if image_size and (height, width) != (image_size, image_size):
        raise ConfigError(
            f"data.image_size is {image_size}, but {dataset.name} from source {source!r} is "
            f"{height} x {width} and this source does not resize; set it to 0"
        )
    return dataset
