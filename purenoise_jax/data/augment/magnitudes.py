"""The operations of AutoAugment and its successors, and the magnitudes at which policies use them.

The magnitudes are those of torchvision, to the last bit.
"""

import enum
from typing import NamedTuple

import numpy as np


class Op(enum.IntEnum):
    """The operations, in the order of all lookup tables."""

    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    BRIGHTNESS = 6
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10
    SOLARIZE = 11
    AUTO_CONTRAST = 12
    EQUALIZE = 13
    INVERT = 14


ENHANCEMENTS = (Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS)


class Magnitudes(NamedTuple):
    """Magnitudes of all operations: `levels` of each, evenly spaced from none to the largest.

    Attributes:
        levels: L, their number.
        shear: largest slope.
        translate_share: largest translation as a share of the side of the image, to which
            `translate_pixels` is added.
        translate_pixels: see `translate_share`.
        rotate: largest angle in degrees.
        enhance: largest difference of a factor of brightness, colour, contrast or sharpness from 1.
        bits: bits that posterising keeps at the first and at the last level.
    """

    levels: int
    shear: float
    translate_share: float
    translate_pixels: float
    rotate: float
    enhance: float
    bits: tuple[int, int]

    def of(self, op: Op, height: int, width: int) -> np.ndarray:
        """Returns the magnitudes of an operation.

        Args:
            op: the operation.
            height: of the images, in pixels.
            width: of the images, in pixels.

        Returns:
            f32[L]: by operation a slope, pixels, degrees, an offset from the factor 1, a number of
            bits or a threshold; zeros for an operation without a magnitude.
        """
        index, last = np.arange(self.levels), self.levels - 1
        if op == Op.POSTERIZE:
            first_bits, last_bits = self.bits
            lost = np.round(index / (last / (first_bits - last_bits)))
            return (first_bits - lost).astype(np.float32)
        ends = {
            Op.SHEAR_X: (0.0, self.shear),
            Op.SHEAR_Y: (0.0, self.shear),
            Op.TRANSLATE_X: (0.0, self.translate_share * width + self.translate_pixels),
            Op.TRANSLATE_Y: (0.0, self.translate_share * height + self.translate_pixels),
            Op.ROTATE: (0.0, self.rotate),
            Op.SOLARIZE: (255.0, 0.0),
        } | dict.fromkeys(ENHANCEMENTS, (0.0, self.enhance))
        start, stop = map(np.float32, ends.get(op, (0.0, 0.0)))
        # As torch.linspace on a CPU with fused products and sums: from both ends, the step in
        # single precision, and one rounding after that. Another last bit changes the level of a
        # blend that is close to an integer, and a translation by 16 pixels, which comes out as 15.
        step = ((stop - start) / np.float32(last)).astype(np.float64)
        from_start, from_stop = start + step * index, stop - step * (last - index)
        return np.where(index < self.levels // 2, from_start, from_stop).astype(np.float32)


AUTOAUGMENT = Magnitudes(10, 0.3, 150 / 331, 0.0, 30.0, 0.9, (8, 4))
RANDAUGMENT = AUTOAUGMENT._replace(levels=31)
TRIVIALAUGMENT = Magnitudes(31, 0.99, 0.0, 32.0, 135.0, 0.99, (8, 2))
AUGMIX = Magnitudes(10, 0.3, 1 / 3, 0.0, 30.0, 0.9, (4, 0))
