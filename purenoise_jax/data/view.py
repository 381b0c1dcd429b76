"""The part of a stored image that a run sees, and its size: the crops of the host.

Images of a tree differ in size, so they are cropped where they are decoded.
"""

import dataclasses

import numpy as np

from purenoise_jax.data import original_crop
from purenoise_jax.data.sources.resize import SQUASH, resize_shorter, resize_square

RANDOM_CROP = "random_crop"
# Augmentations of the host; those of a device are in `augment.compose`.
CROPS = (original_crop.NAME, RANDOM_CROP)


@dataclasses.dataclass(frozen=True)
class View:
    """A rule that makes the image of a data set out of a stored one.

    Attributes:
        side: height and width of the image in pixels; 0 = the stored size.
        shorter: the shorter side is resized to this, and the central square cut out; 0 = the whole
            image is resized to a square.
        crop: one of `CROPS`, for images that come with random numbers; "" = all are the same.
        how: the way to resize the whole image, see `resize_square`.
    """

    side: int = 0
    shorter: int = 0
    crop: str = ""
    how: str = SQUASH

    @property
    def name(self) -> str:
        """Tells views of the same images apart, where no random numbers are given."""
        if self.shorter:
            return f"{self.side}-{self.shorter}"
        return f"{self.side}" if self.how == SQUASH else f"{self.side}-{self.how}"

    def __call__(
        self, image: np.ndarray, generator: np.random.Generator | None = None
    ) -> np.ndarray:
        """Makes the image.

        Args:
            image: uint8[H, W, C].
            generator: of this image; None = a test image, or a training image as it is measured.

        Returns:
            uint8[side, side, C], or the image itself.
        """
        if generator is not None and self.crop == original_crop.NAME:
            return original_crop.crop(image, self.side or image.shape[1], generator)
        if not self.shorter:
            return resize_square(image, self.side, self.how) if self.side else image
        image = resize_shorter(image, self.shorter)
        down, right = image.shape[0] - self.side, image.shape[1] - self.side
        if generator is not None and self.crop == RANDOM_CROP:
            top = int(generator.integers(0, down, endpoint=True))
            left = int(generator.integers(0, right, endpoint=True))
        else:
            # Halves go to the even number, as in torchvision.
            top, left = round(down / 2), round(right / 2)
        return image[top : top + self.side, left : left + self.side]


WHOLE = View()
