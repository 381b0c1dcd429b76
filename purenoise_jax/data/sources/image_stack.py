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
        self._first = self._first_kind = ""
        self._odd: dict[int, tuple[str, np.ndarray]] = {}
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
            self._images = np.empty((self._count, *image.shape), np.uint8)
            self._first, self._first_kind = place, _kind(image)
        if image.shape == self._images.shape[1:] and image.dtype == np.uint8:
            self._images[index] = image
        else:
            self._odd[index] = place, image

    def odd(self) -> dict[int, str]:
        """Row -> one line about an image of another size or kind than the first."""
        if self._images is None:
            return {}
        first = f"{self._first} is {self._first_kind}"
        return {
            index: f"{place}: is {_kind(image)} but {first}"
            for index, (place, image) in self._odd.items()
        }

    def finish(self, skips_odd: bool = False) -> tuple[np.ndarray, list[str]]:
        """Returns images `uint8[N, H, W, C]` and faults; with faults, images are missing.

        Args:
            skips_odd: images of another size or kind than the first are no fault.
        """
        if self._images is None:
            return np.empty((0, 0, 0, 3), np.uint8), []
        faults = []
        if self._odd and not skips_odd:
            line = next(iter(self.odd().values()))
            several = f" ({len(self._odd)} images differ)" if len(self._odd) > 1 else ""
            faults.append(f"{line}{several}; set data.image_size to resize all images")
        if self._largest and (fault := depth_fault(max(self._largest.values()))):
            faults.append(f"{next(iter(self._largest))}: {fault}")
        return self._images, faults


def _kind(image: np.ndarray) -> str:
    if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
        return f"{image.shape[0]} x {image.shape[1]}"
    return f"{image.dtype}{list(image.shape)}"
