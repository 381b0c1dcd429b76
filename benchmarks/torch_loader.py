"""A plain PyTorch DataLoader with the same transforms as the decoded feed.

It has no JAX in it, because its worker processes import it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


class Photos(torch.utils.data.Dataset[Any]):
    """Random resized crops of image files, uint8[side, side, 3], by torchvision's rule.

    Args:
        paths: the files.
        side: height and width of a crop in pixels.
    """

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        self.paths, self.side = list(map(str, paths)), side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            box = _window(*image.size)
            size = (self.side, self.side)
            crop = image.convert("RGB").resize(size, Image.Resampling.BILINEAR, box)
        return torch.from_numpy(np.array(crop))


def _window(width: int, height: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a window, as torchvision's `RandomResizedCrop` draws it."""
    for _ in range(10):
        area = width * height * float(torch.empty(1).uniform_(0.08, 1))
        ratio = math.exp(float(torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3))))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(torch.randint(0, width - w + 1, (1,)))
            top = int(torch.randint(0, height - h + 1, (1,)))
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def loader(
    paths: Sequence[Path], side: int, index: Sequence[int], batch_size: int, workers: int
) -> torch.utils.data.DataLoader[Any]:
    """A loader that goes through images in a given order.

    Args:
        paths: the files.
        side: height and width of a crop in pixels.
        index: the images, in order.
        batch_size: images of a batch.
        workers: processes; 0 = none beside this one.
    """
    return torch.utils.data.DataLoader(
        Photos(paths, side),
        batch_size=batch_size,
        sampler=list(index),
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )
