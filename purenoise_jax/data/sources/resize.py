"""Bilinear resizing of single images."""

import numpy as np
from PIL import Image


def resize_square(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes an image to a square with Pillow's anti-aliased bilinear filter.

    Args:
        image: `uint8[H, W, C]` with C 1 or 3, values 0..255.
        side: height and width of the result in pixels, at least 1.

    Returns:
        `uint8[side, side, C]`, values 0..255.
    """
    if image.shape[:2] == (side, side):
        return image
    flat = image[:, :, 0] if image.shape[2] == 1 else image
    resized = Image.fromarray(flat).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(side, side, image.shape[2])
