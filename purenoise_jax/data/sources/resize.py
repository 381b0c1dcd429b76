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
    return _resize(image, side, side)


def resize_shorter(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes an image with the same filter, so that its shorter side has a length.

    The longer side is rounded down, as in torchvision.

    Args:
        image: `uint8[H, W, C]` with C 1 or 3, values 0..255.
        side: of the result in pixels, at least 1.

    Returns:
        `uint8[h, w, C]`, the smaller of h and w being `side`.
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    return _resize(image, side * height // shorter, side * width // shorter)


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    flat = image[:, :, 0] if image.shape[2] == 1 else image
    resized = Image.fromarray(flat).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(height, width, image.shape[2])
