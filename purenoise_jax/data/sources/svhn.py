"""Reads the cropped digits of SVHN (Netzer et al. 2011) from its two MATLAB files."""

import pathlib

import numpy as np

from purenoise_jax.data.dataset import Dataset, check_dataset
from purenoise_jax.data.labels import as_labels
from purenoise_jax.runtime.errors import ConfigError, DataError, all_faults
from purenoise_jax.runtime.files import open_plain
from purenoise_jax.runtime.paths import expand

FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}


def load_svhn(*, name: str, path: str, image_size: int = 0) -> Dataset:
    """Loads `train_32x32.mat` and `test_32x32.mat`; `extra_32x32.mat` is not read.

    In the files the digit 0 has the label 10; here it has 0.

    Args:
        name: unused.
        path: the folder of the files.
        image_size: unused; the images keep their stored size.

    Returns:
        The checked data set, images `uint8[N, H, W, 3]`.

    Raises:
        ConfigError: `path` is empty.
        DataError: a file is missing, damaged, or has other arrays; one message lists all.
    """
    del name, image_size
    if not path:
        files = " and ".join(FILES.values())
        raise ConfigError(f"data.path is empty: give the folder with {files}")
    root = expand(path, "data.path")
    splits, faults = {}, []
    for split, file in FILES.items():
        try:
            splits[split] = _read(root / file)
        except DataError as error:
            faults.append(f"{file}: {error}")
    if faults:
        raise all_faults(root, faults)
    (train_images, train_labels), (test_images, test_labels) = splits.values()
    return check_dataset(
        Dataset(
            name=str(root),
            train_images=train_images,
            train_labels=train_labels,
            test_images=test_images,
            test_labels=test_labels,
            class_names=tuple(map(str, range(10))),
        )
    )


def _read(file: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads images uint8[N, H, W, 3] and labels int[N] of one file."""
    # Imported here, because it takes a while and other sources do not need it.
    from scipy.io import loadmat

    try:
        with open_plain(file) as opened:
            found = loadmat(opened, variable_names=("X", "y"))
    except FileNotFoundError:
        raise DataError("is missing") from None
    except Exception as error:  # scipy has no common class for damage
        raise DataError(f"cannot be read as a MATLAB file ({error})") from error
    missing = [key for key in ("X", "y") if key not in found]
    if missing:
        raise DataError(f"lacks the array {missing[0]}")
    pixels, labels = found["X"], as_labels("y", found["y"])
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[2] != 3:
        raise DataError(f"X is {pixels.dtype}{list(pixels.shape)}, wanted uint8[H, W, 3, N]")
    return np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)), labels % 10
