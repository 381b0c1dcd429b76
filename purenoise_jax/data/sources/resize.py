"""Bilinear resizing of single images, to squares in three ways or by the shorter side."""

import numpy as np
from PIL import Image

SQUASH, CROP, PAD = "squash", "crop", "pad"
RESIZES = (SQUASH, CROP, PAD)


def resize_square(image: np.ndarray, side: int, how: str = SQUASH) -> np.ndarray:
    """Resizes an image to a square with Pillow's anti-aliased bilinear filter.

    Args:
        image: `uint8[H, W, C]` with C 1 or 3, values 0..255.
        side: height and width of the result in pixels, at least 1.
        how: "squash" scales height and width each to the side; "crop" takes the largest square in
            the middle; "pad" scales the longer of the two and puts black on both sides of it.

    Returns:
        `uint8[side, side, C]`, values 0..255.
    """
    height, width, channels = image.shape
    if (height, width) == (side, side):
        return image
    flat = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    to, box, top, left = (side, side), None, 0, 0
    if how == CROP:
        inner = min(height, width)
        x, y = (width - inner) / 2, (height - inner) / 2
        box = (x, y, x + inner, y + inner)
    elif how == PAD:
        outer = max(height, width)
        # At least one pixel, also of a very long image.
        to = max(round(width * side / outer), 1), max(round(height * side / outer), 1)
        left, top = round((side - to[0]) / 2), round((side - to[1]) / 2)
    resized = np.asarray(flat.resize(to, Image.Resampling.BILINEAR, box))
    if to == (side, side):
        return resized.reshape(side, side, channels)
    square = np.zeros((side, side, channels), np.uint8)
    square[top : top + to[1], left : left + to[0]] = resized.reshape(to[1], to[0], channels)
    return square


def resize_shorter(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes an image with the same filter, so that its shorter side has a length.

    The longer side is rounded down, as in torchvision.

    Args:
        image: `uint8[H, W, C]` with C 1 or 3, values 0..255.
        side: of the result in pixels, at least 1.

    Returns:
        `uint8[h, w, C]`, the smaller of h and w being `side`.
    """
    height, width, channels = image.shape
    shorter = min(height, width)
    to = side * width // shorter, side * height // shorter
    if to == (width, height):
        return image
    flat = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    resized = flat.resize(to, Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(to[1], to[0], channels)
