"""Reads a data set from one .npz file with MedMNIST's key names."""

import math
import os
import pathlib
import struct
import zipfile
from typing import IO, Any

import numpy as np

from purenoise_jax.data.dataset import Dataset, check_dataset, no_images
from purenoise_jax.data.labels import as_labels
from purenoise_jax.data.mapped_images import MappedImages
from purenoise_jax.data.npy import DAMAGE, read_array
from purenoise_jax.runtime.errors import ConfigError, DataError, StorageError, all_faults
from purenoise_jax.runtime.files import open_plain
from purenoise_jax.runtime.paths import expand

_REQUIRED = ("train_images", "train_labels")
# Each split with both arrays, or none.
_OPTIONAL = (("test_images", "test_labels"), ("val_images", "val_labels"))


def load_npz(*, name: str, path: str, image_size: int = 0) -> Dataset:
    """Loads a data set from one .npz file.

    The file holds `train_images`, `train_labels` and, if there is such a split, `test_images` and
    `test_labels`, and `val_images` and `val_labels`. Images are `uint8[N, H, W]` or
    `uint8[N, H, W, C]`, labels are integers of shape `[N]` or `[N, 1]`. The classes are named
    `"0"`, `"1"` and so on up to the largest label.

    Args:
        name: unused; the data set is named after its file.
        path: the .npz file.
        image_size: unused; the images keep their stored size.

    Returns:
        The checked data set.

    Raises:
        ConfigError: `path` is empty.
        DataError: the file is missing or damaged, lacks an array, or holds an array of the wrong
            dtype or shape. Object arrays are refused without being read.
    """
    del image_size
    return _load(path, mapped=False)


def load_mapped_npz(path: str) -> Dataset:
    """Loads what `load_npz` does, but leaves images in the file, unless they are compressed."""
    return _load(path, mapped=True)


def _load(path: str, mapped: bool) -> Dataset:
    if not path:
        raise ConfigError("data.path is empty: give the .npz file to read")
    file = expand(path, "data.path")
    arrays, images = _read_arrays(file, mapped)

    images |= {key: _with_channel(array) for key, array in arrays.items() if "images" in key}
    labels, faults = {}, []
    for key, array in arrays.items():
        if "labels" in key:
            try:
                labels[key] = as_labels(key, array)
            except DataError as error:
                faults.append(str(error))
    if faults:
        raise all_faults(file, faults)
    largest = max((int(array.max()) for array in labels.values() if array.size), default=0)
    most = sum(array.size for array in labels.values())
    if largest >= max(most, 1):
        raise DataError(f"{file}: the largest label is {largest}, but there are only {most} labels")
    return check_dataset(
        Dataset(
            name=str(file),
            train_images=images["train_images"],
            train_labels=labels["train_labels"],
            test_images=images.get("test_images", no_images(images["train_images"])),
            test_labels=labels.get("test_labels", np.zeros(0, np.int32)),
            class_names=tuple(str(label) for label in range(largest + 1)),
            val_images=images.get("val_images"),
            val_labels=labels.get("val_labels"),
        )
    )


def npz_bytes(path: str) -> int:
    """Bytes that the images of an .npz file take in memory; 0 if it cannot be read."""
    try:
        with open_plain(expand(path, "data.path")) as opened, zipfile.ZipFile(opened) as bundle:
            return sum(i.file_size for i in bundle.infolist() if i.filename.endswith("images.npy"))
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return 0


def npz_shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of an .npz file by name, from their headers.

    Raises:
        DataError: the file cannot be read.
    """
    file = expand(path, "data.path")
    shapes = {}
    try:
        with open_plain(file) as opened, zipfile.ZipFile(opened) as bundle:
            for name in bundle.namelist():
                with bundle.open(name) as member:
                    version = np.lib.format.read_magic(member)
                    read = np.lib.format.read_array_header_2_0
                    if version == (1, 0):
                        read = np.lib.format.read_array_header_1_0
                    shapes[name.removesuffix(".npy")] = read(member)[0]
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise DataError(
            f"{file}: cannot be read as .npz ({type(error).__name__}: {error})"
        ) from error
    return shapes


def _read_arrays(file: pathlib.Path, mapped: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads arrays by name, and finds images that are left in the file."""
    try:
        with open_plain(file) as opened, zipfile.ZipFile(opened) as bundle:
            names = bundle.namelist()
            _refuse_lost(opened, bundle)
            asked = [pair for pair in _OPTIONAL if any(f"{key}.npy" in names for key in pair)]
            keys = [*_REQUIRED, *(key for pair in asked for key in pair)]
            missing = [key for key in keys if f"{key}.npy" not in names]
            if missing:
                raise DataError(f"{file}: lacks the arrays {', '.join(missing)}")
            twice = [key for key in keys if names.count(f"{key}.npy") > 1]
            if twice:
                raise DataError(f"{file}: holds {twice[0]} more than once")
            there = {
                key: _in_place(file, opened, bundle, key)
                for key in keys
                if mapped and key.endswith("images")
            }
            there = {key: images for key, images in there.items() if images is not None}
            keys = [key for key in keys if key not in there]
            # Checked before unpacking: a few kilobytes can expand to any number of zeros.
            size = sum(bundle.getinfo(f"{key}.npy").file_size for key in keys)
            if size > _memory():
                raise DataError(
                    f"{file}: unpacks to {size / 2**30:,.1f} GiB, more than the "
                    f"{_memory() / 2**30:,.1f} GiB of memory that this machine has"
                )
            return {key: _read_array(bundle, key) for key in keys}, there
    except DataError:
        raise
    except StorageError as error:
        raise DataError(f"{file}: cannot be read as .npz: {error}") from error
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise DataError(
            f"{file}: cannot be read as .npz ({type(error).__name__}: {error})"
        ) from error


def _refuse_lost(opened: IO[bytes], bundle: zipfile.ZipFile) -> None:
    """Refuses a file whose directory leaves out some of its arrays.

    zipfile does not count the entries of a damaged directory, and an optional split would be lost.

    Raises:
        ValueError: bytes before the directory belong to no array.
    """
    entries = sorted(bundle.infolist(), key=lambda info: info.header_offset)
    starts = [info.header_offset for info in entries]
    end = 0
    for info, start in zip([None, *entries], [*starts, bundle.start_dir], strict=True):
        if info is not None:
            opened.seek(info.header_offset + 26)
            name, extra = struct.unpack("<HH", opened.read(4))
            end = info.header_offset + 30 + name + extra + info.compress_size
        # A record of the sizes may follow an entry, of 24 bytes at most.
        if start - end > 24:
            raise ValueError(f"{start - end:,} bytes belong to no array of its directory")


def _in_place(
    file: pathlib.Path, opened: IO[bytes], bundle: zipfile.ZipFile, key: str
) -> MappedImages | None:
    """Finds images in the file, and compares their checksum; None if they are no plain bytes."""
    info = bundle.getinfo(f"{key}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    with bundle.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version != (1, 0):
            return None
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(member)
        shape = (*shape, 1) if len(shape) == 3 else shape
        if dtype != np.uint8 or by_column or len(shape) != 4:
            return None
        header, left = member.tell(), math.prod(shape)
        if info.file_size - header != left:
            raise ValueError(f"{key} holds other than the {left} bytes that its header says")
        # zipfile compares the checksum when the end is read.
        while member.read(1 << 20):
            pass
    opened.seek(info.header_offset)
    name, extra = struct.unpack_from("<HH", opened.read(30), 26)
    return MappedImages(file, shape, info.header_offset + 30 + name + extra + header)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read_array(bundle: zipfile.ZipFile, key: str) -> np.ndarray:
    with bundle.open(f"{key}.npy") as member:
        return read_array(member, key)


def _with_channel(images: np.ndarray) -> np.ndarray:
    return images[..., None] if images.ndim == 3 else images
