"""The images of tieredImageNet in the pickles in which its authors distribute it.

Source: Ren et al. 2018 ("Meta-learning for semi-supervised few-shot classification"), authors'
code. A split has two files: a list of PNGs, each an array of bytes, and a dictionary with the class
number of each image and the name of each class.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from purenoise_jax.data.sources.decode import Decoded, decode_image
from purenoise_jax.data.sources.safe_unpickle import (
    BYTES,
    INTEGERS,
    Span,
    spans_of_arrays,
    unpickle_arrays,
)
from purenoise_jax.runtime.errors import DataError
from purenoise_jax.runtime.files import open_plain, read_bytes

IMAGES, LABELS = "{}_images_png.pkl", "{}_labels.pkl"
NUMBERS, NAMES = b"label_specific", b"label_specific_str"


def is_pickled(root: Path) -> bool:
    """Returns True if a folder has the pickled images of the training split."""
    return (root / IMAGES.format("train")).is_file()


class PickledImages:
    """A `Store` of pickled images, named `train_images_png.pkl[i]` by their place in the list.

    The files stay where they are: only the place of each image in them is kept in memory. Nothing
    that a pickle names is run, see `safe_unpickle`.

    Args:
        root: the folder of the files.
        splits: names of the splits to read.

    Raises:
        DataError: a file is missing, is no such pickle, or does not fit the other of its split.
    """

    channels = 3

    def __init__(self, root: Path, splits: Sequence[str]) -> None:
        self.root = root
        self._spans: dict[str, list[Span]] = {}
        self._numbers: dict[str, np.ndarray] = {}
        self._names: dict[str, list[str]] = {}
        for split in splits:
            images, labels = IMAGES.format(split), LABELS.format(split)
            try:
                found = unpickle_arrays(read_bytes(root / labels), labels, (BYTES, *INTEGERS))
                self._spans[images] = spans_of_arrays(root / images)
            except OSError as error:
                why = error.strerror or error
                raise DataError(f"{error.filename or root}: cannot be read ({why})") from error
            self._names[split] = _texts(found, labels)
            self._numbers[split] = _numbers(found, labels, len(self._names[split]))
            if len(self._numbers[split]) != len(self._spans[images]):
                raise DataError(
                    f"{root}: {images} has {len(self._spans[images]):,} images, but {labels} has "
                    f"{len(self._numbers[split]):,} labels"
                )

    def classes(self, split: str) -> list[str]:
        """Returns the names of the classes of a split; a name that comes again gets a number."""
        names = self._names[split]
        return [f"{name} ({n})" if name in names[:n] else name for n, name in enumerate(names)]

    def images_of(self, split: str, number: int) -> list[Path]:
        """Returns the images of a class, in the order of the file."""
        file = self.root / IMAGES.format(split)
        places = np.flatnonzero(self._numbers[split] == number).tolist()
        return [file.with_name(f"{file.name}[{place}]") for place in places]

    def read(self, path: str) -> bytes:
        """See `Store.read`."""
        name, _, place = path.rstrip("]").rpartition("[")
        span = self._spans[name][int(place)]
        with open_plain(self.root / name) as file:
            file.seek(span.start)
            return file.read(span.size)

    def decode(self, data: bytes) -> Decoded:
        """See `Store.decode`."""
        return decode_image(data)


def _texts(found: dict[bytes, Any], where: str) -> list[str]:
    names = found.get(NAMES)
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise DataError(f"{where}: {NAMES.decode()!r} must be a list of names")
    return [
        name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
        for name in names
    ]


def _numbers(found: dict[bytes, Any], where: str, classes: int) -> np.ndarray:
    numbers = found.get(NUMBERS)
    if not isinstance(numbers, np.ndarray) or numbers.ndim != 1 or numbers.dtype == np.uint8:
        raise DataError(f"{where}: {NUMBERS.decode()!r} must be an array of integers")
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < classes):
        raise DataError(
            f"{where}: {NUMBERS.decode()!r} has numbers from {numbers.min()} to {numbers.max()}, "
            f"but {NAMES.decode()!r} names {classes} classes"
        )
    return numbers
