"""Images as users have them, as pixels of the size that a network takes.

They are read and resized as training images are.
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from purenoise_jax.data.sources.decode import decode_image, pixels_of
from purenoise_jax.data.view import WHOLE, View
from purenoise_jax.runtime.errors import DataError
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.paths import expand
from purenoise_jax.runtime.threads import cores

# A path of an image file, an image of Pillow, or its pixels uint8[H, W] or uint8[H, W, C].
ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray


class Pixels(NamedTuple):
    """The images of a batch that can be read.

    Attributes:
        images: uint8[M, H, W, C].
        rows: int64[M], the place of each among those that were asked for.
        faults: place -> one line, of the others.
        largest: place -> the largest sample, 0..65535, of the images that have 16 bits.
    """

    images: np.ndarray
    rows: np.ndarray
    faults: dict[int, str]
    largest: dict[int, int]


def as_sequence(images: ImageLike | Iterable[ImageLike]) -> Sequence[ImageLike] | np.ndarray:
    """Returns images as a sequence; a single path or image of Pillow becomes one of length 1.

    Args:
        images: uint8[N, H, W, C], or uint8[N, H, W] of grey images; a path, an image of Pillow; or
            a sequence of paths, images of Pillow and arrays.

    Raises:
        DataError: an array has another shape or dtype.
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if not isinstance(images, np.ndarray):
        return list(images)
    if images.dtype.kind in "OUS" and images.ndim == 1:
        return list(images)
    if not is_batch(images):
        raise DataError(
            f"images: shape {images.shape} is no batch; legal: [N, H, W, C], or a list of images"
        )
    return images


def is_batch(images: np.ndarray) -> bool:
    """Returns whether an array has several images: [N, H, W, C], or [N, H, W] of grey images.

    An array whose third and last axis has the length of colours is a single image.
    """
    return images.ndim == 4 or (images.ndim == 3 and images.shape[2] not in (1, 3, 4))


def read_pixels(
    images: Sequence[ImageLike] | np.ndarray, shape: tuple[int, int, int], view: View = WHOLE
) -> Pixels:
    """Reads images, several at a time, and resizes them to the input of a network.

    Args:
        images: from `as_sequence`, or a part of it.
        shape: (H, W, C) of the network's input.
        view: of the evaluation. Arrays of the input's height and width are taken
            as they are.
    """
    with ThreadPoolExecutor(cores()) as pool:
        found = list(pool.map(lambda image: _read(image, shape, view), images))
    whole = {row: pixels for row, (pixels, _, _) in enumerate(found) if pixels is not None}
    batch = np.zeros((len(whole), *shape), np.uint8)
    for place, pixels in enumerate(whole.values()):
        batch[place] = pixels
    return Pixels(
        batch,
        np.array(list(whole), np.int64),
        {row: fault for row, (_, _, fault) in enumerate(found) if fault},
        {row: largest for row, (_, largest, _) in enumerate(found) if largest is not None},
    )


def _read(
    image: ImageLike, shape: tuple[int, int, int], view: View
) -> tuple[np.ndarray | None, int | None, str]:
    """The pixels of an image, its largest sample if it has 16 bits, and its fault, or ""."""
    where, largest = "", None
    try:
        if isinstance(image, np.ndarray):
            pixels = _checked(image)
            view = WHOLE if pixels.shape[:2] == shape[:2] else view
        elif isinstance(image, Image.Image):
            pixels = pixels_of(image)
        elif isinstance(image, str | os.PathLike):
            path = Path(expand(os.fspath(image), "images"))
            where = f"{path}: "
            decoded = decode_image(read_bytes(path))
            pixels, largest = decoded.pixels, decoded.largest
        else:
            raise DataError(
                f"{type(image).__name__} is no image; legal: a path, an image of Pillow, or an "
                "array of uint8"
            )
        return fit(pixels, shape, view), largest, ""
    except DataError as error:
        return None, None, f"{where}{error}"
    except OSError as error:
        return None, None, f"{where}cannot be read ({error.strerror or error})"


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8:
        raise DataError(f"an array of {image.dtype} is no image; legal: uint8, values 0..255")
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise DataError(f"an array of shape {image.shape} is no image; legal: [H, W, C], C 1 or 3")
    return image


def fit(pixels: np.ndarray, shape: tuple[int, int, int], view: View = WHOLE) -> np.ndarray:
    """Fits an image to the input of a network; training data of that shape stay as they are.

    READING: grey images have three equal channels where the network has colours, and colours become
    luma (ITU-R BT.601, Pillow's "L") where it has grey images. No source of training data has
    colours for a grey network, so nothing is given.

    Args:
        pixels: uint8[H', W', C'], C' 1 or 3.
        shape: (H, W, C), C 1 or 3.
        view: of the evaluation, whose side is that of the input.

    Returns:
        uint8[H, W, C].

    Raises:
        DataError: the sizes differ, and the network does not take squares, so that no rule of
            training says how to resize.
    """
    height, width, channels = shape
    if view.shorter or pixels.shape[:2] != (height, width):
        if height != width:
            seen = " x ".join(map(str, pixels.shape[:2]))
            raise DataError(f"is {seen}, and the network takes {height} x {width} only")
        pixels = dataclasses.replace(view, side=height)(pixels)
    if pixels.shape[2] == channels:
        return pixels
    if channels == 1:
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return np.repeat(pixels, channels, axis=2)
