"""Collects the images of a split into one array, and finds the faults of the set of images."""

import numpy as np

from purenoise_jax.data.sources.decode import depth_fault
from purenoise_jax.data.sources.resize import SQUASH, resize_square


class ImageStack:
    """An array of images of one size.

    Args:
        count: number of images of the split.
        image_size: height and width to resize to; 0 keeps the stored size.
        resize: see `resize_square`.
    """

    def __init__(self, count: int, image_size: int, resize: str = SQUASH) -> None:
        self._count, self._image_size, self._resize = count, image_size, resize
        self._images: np.ndarray | None = None
        self._first = ""
        self._odd: list[tuple[str, np.ndarray]] = []
        self._largest: dict[str, int] = {}

    def add(self, index: int, place: str, image: np.ndarray, largest: int | None = None) -> None:
        """Puts an image into its row.

        Args:
            index: of the row.
            place: the name of the image in messages.
            image: `uint8[H, W, C]`; any other dtype is a fault.
            largest: see `Decoded` in `decode.py`.
        """
        if largest is not None:
            self._largest[place] = largest
        if self._image_size:
            image = resize_square(image, self._image_size, self._resize)
        if self._images is None:
            self._images, self._first = np.empty((self._count, *image.shape), np.uint8), place
        if image.shape == self._images.shape[1:] and image.dtype == np.uint8:
            self._images[index] = image
        else:
            self._odd.append((place, image))

    def finish(self) -> tuple[np.ndarray, list[str]]:
        """Returns images `uint8[N, H, W, C]` and faults; with faults, images are missing."""
        if self._images is None:
            return np.empty((0, 0, 0, 3), np.uint8), []
        faults = []
        if self._odd:
            place, odd = self._odd[0]
            several = f" ({len(self._odd)} images differ)" if len(self._odd) > 1 else ""
            faults.append(
                f"{place}: is {_kind(odd)} but {self._first} is {_kind(self._images[0])}{several}; "
                "set data.image_size to resize all images"
            )
        if self._largest and (fault := depth_fault(max(self._largest.values()))):
            faults.append(f"{next(iter(self._largest))}: {fault}")
        return self._images, faults


def _kind(image: np.ndarray) -> str:
    if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
        return f"{image.shape[0]} x {image.shape[1]}"
    return f"{image.dtype}{list(image.shape)}"
