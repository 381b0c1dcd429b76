"""Reads PNG and JPEG files from one folder per split and class."""

import io
import pathlib
import struct
import unicodedata
import zlib

import numpy as np
from PIL import Image

from purenoise_jax.data.dataset import Dataset, check_dataset
from purenoise_jax.data.resize import resize_square
from purenoise_jax.errors import ConfigError, DataError
from purenoise_jax.files import read_bytes
from purenoise_jax.paths import expand

_PNG = b"\x89PNG\r\n\x1a\n"
_SUFFIXES = (".png", ".jpg", ".jpeg")
# Pillow would clip more than 8 bits per channel without a word.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def load_folder(*, name: str, path: str, image_size: int = 0) -> Dataset:
    """Loads `train/<class>/`, `test/<class>/` and, if there, `val/<class>/` below one folder.

    Files ending in .png, .jpg or .jpeg are read in sorted order and converted to RGB; other files
    are left alone. The classes are the sorted folder names in `train`, in Unicode's composed form
    (NFC): an accent that one system stores as a code point of its own, as macOS does, and another
    as part of its letter makes no other class.

    Args:
        name: Unused; the folder is named.
        path: The folder that holds `train` and `test`.
        image_size: Height and width to resize to; 0 keeps the stored size, which must then be the
            same for all images.

    Returns:
        The checked data set, images `uint8[N, H, W, 3]`.

    Raises:
        ConfigError: `path` is empty.
        DataError: A split or class is missing or empty, the class folders of two splits differ, two
            folders of a split have the same name but for how its accents are stored, an image is
            damaged, or the sizes differ while `image_size` is 0.
    """
    if not path:
        raise ConfigError("data.path is empty: give the folder that holds train/ and test/")
    root = expand(path, "data.path")
    classes = _class_folders(root / "train")
    splits = {}
    for split in ("train", "test", "val"):
        if split == "val" and not (root / split).is_dir():
            continue
        found = _class_folders(root / split)
        if [*found] != [*classes]:
            only = {"train": {*classes} - {*found}, split: {*found} - {*classes}}
            differing = "; ".join(f"only {s} has {_named(k)}" for s, k in only.items() if k)
            raise DataError(f"{root}: the class folders of train and {split} differ: {differing}")
        splits[split] = _read_split([*found.values()], image_size)
    val_images, val_labels = splits.get("val", (None, None))
    return check_dataset(
        Dataset(
            name=str(root),
            train_images=splits["train"][0],
            train_labels=splits["train"][1],
            test_images=splits["test"][0],
            test_labels=splits["test"][1],
            class_names=tuple(classes),
            val_images=val_images,
            val_labels=val_labels,
        )
    )


def _class_folders(split: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folder of every class of a split, sorted by the class's name."""
    if not split.is_dir():
        raise DataError(f"{split}: there is no such folder")
    names = sorted(
        entry.name for entry in split.iterdir() if entry.is_dir() and entry.name[0] != "."
    )
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


def _named(classes: set[str]) -> str:
    """Names of classes for a message: the first few and a count.

    Quotes show spaces at their ends, and code points tell apart letters that look the same.
    """
    shown = ", ".join(
        repr(name) if repr(name) == ascii(name) else f"{name!r} ({name!a})"
        for name in sorted(classes)[:5]
    )
    return f"{shown} and {len(classes) - 5} more" if len(classes) > 5 else shown


def _read_split(folders: list[pathlib.Path], image_size: int) -> tuple[np.ndarray, np.ndarray]:
    files: list[pathlib.Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in _SUFFIXES and file.name[0] != "." and file.is_file()
        )
        if not found:
            raise DataError(f"{folder}: holds no .png, .jpg or .jpeg files")
        files += found
        labels += [label] * len(found)

    first = _read_image(files[0], image_size)
    images = np.empty((len(files), *first.shape), np.uint8)
    for index, file in enumerate(files):
        image = _read_image(file, image_size)
        if image.shape != first.shape:
            raise DataError(
                f"{file}: is {image.shape[0]} x {image.shape[1]} but {files[0]} is "
                f"{first.shape[0]} x {first.shape[1]}; set data.image_size to resize all images"
            )
        images[index] = image
    return images, np.array(labels, np.int32)


def _check_png(data: bytes) -> None:
    """Compares the check sum of every chunk; Pillow leaves out those of the pixels."""
    place, kind = len(_PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if struct.unpack_from(">I", data, end) != (zlib.crc32(data[place + 4 : end]),):
            raise ValueError(f"the check sum of its chunk {ascii(kind)[2:-1]} is wrong")
        place = end + 4


def _read_image(file: pathlib.Path, image_size: int) -> np.ndarray:
    try:
        data = read_bytes(file)
        if data.startswith(_PNG):
            _check_png(data)
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.mode not in _MODES:
                raise DataError(f"{file}: images of mode {image.mode} are not read, save as 8 bit")
            pixels = np.asarray(image.convert("RGB"))
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{file}: cannot be read as an image ({error})") from error
    return resize_square(pixels, image_size) if image_size else pixels
