"""Images that stay on the host: an array-like, of which only the rows that are asked for are read.

Beside it are the functions that the rest of the package uses for arrays and array-likes alike.
"""

import abc
import hashlib
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np

from purenoise_jax.data.original_crop import Draws
from purenoise_jax.runtime.errors import DataError
from purenoise_jax.runtime.threads import cores

# Bytes that are read at a time where all images are looked at in turn.
CHUNK_BYTES = 1 << 24


class HostImages(abc.ABC):
    """Images `uint8[N, H, W, C]` outside memory; `images[index]` reads rows as an array has them.

    Args:
        shape: (N, H, W, C).
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.shape = shape

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the images would take in memory."""
        return self.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = np.arange(len(self))[index]
        out = np.empty((rows.size, *self.shape[1:]), np.uint8)
        for _, fault in self.read(rows.reshape(-1), out):
            raise DataError(fault)
        return out.reshape(*rows.shape, *self.shape[1:])

    @abc.abstractmethod
    def read(
        self, index: np.ndarray, out: np.ndarray, draws: Draws | None = None
    ) -> list[tuple[int, str]]:
        """Reads images; several threads may do so at once.

        Args:
            index: int[M] in [0, N).
            out: uint8[M, H, W, C], written to.
            draws: random numbers for images that are changed at random; None = they are not.

        Returns:
            The faults: the place in `index` of each image that cannot be read, whose row of `out`
            is then 0, and one line that names its file.
        """

    @abc.abstractmethod
    def subset(self, index: np.ndarray) -> "HostImages":
        """These images in this order, int[M] in [0, N), without reading them."""

    def histograms(self) -> np.ndarray:
        """The number of each of the 256 values in each channel, int64[C, 256]."""
        return sum(map(channel_histograms, chunks(self)), np.zeros((self.shape[3], 256), np.int64))


Images: TypeAlias = np.ndarray | HostImages


def subset(images: Any, index: np.ndarray) -> Any:
    """Images in another order, int[M]: a copy of an array; of `HostImages` none is read."""
    return images.subset(index) if isinstance(images, HostImages) else images[index]


def chunks(images: Any) -> Iterator[np.ndarray]:
    """All images in turn, uint8[n, H, W, C] each; an array is one chunk."""
    if not isinstance(images, HostImages):
        yield images
        return
    count = _chunk_length(images)
    with ThreadPoolExecutor(cores()) as pool:
        for first in range(0, len(images), count):
            rows = np.arange(first, min(first + count, len(images)))
            parts = [part for part in np.array_split(rows, cores()) if part.size]
            yield np.concatenate(list(pool.map(images.__getitem__, parts)))


def num_chunks(images: Any) -> int:
    """The number of `chunks`."""
    return -(-len(images) // _chunk_length(images)) if isinstance(images, HostImages) else 1


def _chunk_length(images: HostImages) -> int:
    return max(CHUNK_BYTES // math.prod(images.shape[1:]), 1)


def row_digests(images: np.ndarray) -> np.ndarray:
    """Eight bytes of a hash of every image, uint64[N], by which equal images are found."""
    rows = np.ascontiguousarray(images)
    digests = [hashlib.blake2b(row, digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(digests), np.uint64)


def channel_histograms(images: Images) -> np.ndarray:
    """The number of each of the 256 values in each channel, int64[C, 256]."""
    if isinstance(images, HostImages):
        return images.histograms()
    channels = np.moveaxis(images, -1, 0)
    return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in channels])
