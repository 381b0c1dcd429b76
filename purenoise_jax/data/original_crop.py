"""Random resized crops of images as they are stored, on the host: the rule of torchvision.

Images of a tree differ in size, so they are cropped where they are decoded. The augmentation
`resized_crop` cuts from images that were resized to one size before.
"""

import dataclasses
import math

import numpy as np

from purenoise_jax.data.sources.resize import resize_square

NAME = "original_crop"
AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10


@dataclasses.dataclass(frozen=True)
class Draws:
    """The random numbers of rows of a batch, a pure function of (seed, step, row).

    So they depend neither on the number of threads nor on that of processes.

    Attributes:
        seed: of the run.
        step: of the run.
        rows: int[M], in the batch of all processes.
    """

    seed: int
    step: int
    rows: np.ndarray

    def of(self, place: int) -> np.random.Generator:
        """The generator of the row at a place in `rows`."""
        counter = [0, 0, self.step, int(self.rows[place])]
        return np.random.Generator(np.random.Philox(key=self.seed, counter=counter))


def crop(image: np.ndarray, side: int, generator: np.random.Generator) -> np.ndarray:
    """Cuts a random window out of an image, and resizes it to a square.

    Args:
        image: uint8[H, W, C].
        side: of the result in pixels, at least 1.
        generator: of this image.

    Returns:
        uint8[side, side, C].
    """
    top, left, height, width = window(image.shape[0], image.shape[1], generator)
    return resize_square(image[top : top + height, left : left + width], side)


def window(height: int, width: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Draws a window: top, left, height and width in pixels.

    Its area is uniform in 8 to 100 % of the image, the logarithm of width over height uniform
    between those of 3/4 and 4/3. After ten windows that are larger than the image it is the largest
    central one of such a ratio.

    Args:
        height: of the image.
        width: of the image.
        generator: of this image.
    """
    for _ in range(TRIES):
        area = height * width * generator.uniform(*AREA)
        ratio = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(generator.integers(0, height - h, endpoint=True))
            left = int(generator.integers(0, width - w, endpoint=True))
            return top, left, h, w
    ratio = min(max(width / height, RATIO[0]), RATIO[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - h) // 2, (width - w) // 2, h, w
