"""Reads the four idx files of MNIST, Fashion-MNIST and their like, plain or gzipped."""

import contextlib
import gzip
import io
import math
import pathlib
import struct

import numpy as np

from purenoise_jax.data.dataset import Dataset, check_dataset
from purenoise_jax.data.npy import DAMAGE
from purenoise_jax.runtime.errors import ConfigError, DataError, StorageError, all_faults
from purenoise_jax.runtime.files import open_plain
from purenoise_jax.runtime.paths import expand

# Name -> number of dimensions.
FILES = {
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}
# Class names, which the files do not hold, by the name of the data set.
CLASS_NAMES = {
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
}
_UINT8 = 8  # the code of the type in the header
_PIECE = 1 << 20


def load_idx(*, name: str, path: str, image_size: int = 0) -> Dataset:
    """Loads grey images and labels from the files that `FILES` names, with or without `.gz`.

    Args:
        name: with "fashion_mnist", the classes have their names; otherwise "0", "1" and so on.
        path: the folder of the files.
        image_size: unused; the images keep their stored size.

    Returns:
        The checked data set, images `uint8[N, H, W, 1]`.

    Raises:
        ConfigError: `path` is empty.
        DataError: a file is missing, damaged, or holds other than unsigned bytes; one message lists
            all.
    """
    del image_size
    if not path:
        raise ConfigError(f"data.path is empty: give the folder with {', '.join(FILES)}")
    root = expand(path, "data.path")
    arrays, faults = {}, []
    for file, dimensions in FILES.items():
        try:
            arrays[file] = _read(root / file, dimensions)
        except FileNotFoundError:
            faults.append(f"{file}: is missing, also as {file}.gz")
        except (*DAMAGE, StorageError) as error:
            faults.append(f"{file}: cannot be read as idx ({error})")
    if faults:
        raise all_faults(root, faults)
    train_images, train_labels, test_images, test_labels = arrays.values()
    if not train_labels.size:
        raise DataError(f"{root}: train-labels-idx1-ubyte holds no label")
    classes: tuple[str, ...] = CLASS_NAMES.get(name, ())
    if len(classes) <= train_labels.max():
        classes = tuple(map(str, range(int(train_labels.max()) + 1)))
    return check_dataset(
        Dataset(
            name=str(root),
            train_images=train_images[..., None],
            train_labels=train_labels,
            test_images=test_images[..., None],
            test_labels=test_labels,
            class_names=classes,
        )
    )


def _read(file: pathlib.Path, dimensions: int) -> np.ndarray:
    """Reads the array of one file, or of the gzipped file of that name if there is none."""
    with contextlib.ExitStack() as stack:
        stream: io.BufferedReader | gzip.GzipFile
        try:
            stream = stack.enter_context(open_plain(file))
        except FileNotFoundError:
            packed = stack.enter_context(open_plain(f"{file}.gz"))
            stream = stack.enter_context(gzip.GzipFile(fileobj=packed))
        magic = stream.read(4)
        if magic != bytes((0, 0, _UINT8, dimensions)):
            raise ValueError(f"begins with {magic!r}, not as unsigned bytes in {dimensions} axes")
        shape = struct.unpack(f">{dimensions}I", stream.read(4 * dimensions))
        size, content = math.prod(shape), bytearray()
        # In pieces, because a damaged header may ask for any amount of memory.
        while len(content) <= size and (piece := stream.read(min(_PIECE, size + 1 - len(content)))):
            content += piece
    if len(content) != size:
        raise ValueError(f"holds other than the {size:,} bytes that its header says")
    return np.frombuffer(content, np.uint8).reshape(shape)
