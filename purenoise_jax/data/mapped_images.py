"""Images of one size on the host, as raw bytes of a file that is read where a step needs them.

DEVIATION: the file is read with `pread` where a memory map would do. Both copy from the system's
page cache. But pages of a map count as memory of the process, and a disk that fails, or a file that
was cut short, ends a process that reads a map without a word.
"""

import contextlib
import hashlib
import math
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from purenoise_jax.data.host_images import HostImages, chunks, num_chunks
from purenoise_jax.data.original_crop import Draws
from purenoise_jax.data.progress import progress
from purenoise_jax.runtime.errors import DataError, StorageError
from purenoise_jax.runtime.files import open_plain, replacing

FOLDER = "mapped"


class MappedImages(HostImages):
    """Images in a file.

    Args:
        path: of the file.
        shape: (N, H, W, C) of all images in it.
        offset: bytes before the first.
        chosen: int[M] in [0, N), the images in the order in which they count; None = all.

    Raises:
        DataError: the file cannot be opened, or is too short.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int, int],
        offset: int = 0,
        chosen: np.ndarray | None = None,
    ) -> None:
        count = shape[0] if chosen is None else len(chosen)
        super().__init__((count, *shape[1:]))
        self._path, self._stored, self._offset, self._chosen = path, shape, offset, chosen
        try:
            with open_plain(path) as file:
                size = os.fstat(file.fileno()).st_size
                # Open as long as this object is there: to replace the file does not change a run.
                self._number = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._number)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror or error})") from error
        if size < offset + math.prod(shape):
            raise DataError(f"{path}: has {size:,} bytes, expected {offset + math.prod(shape):,}")

    def read(
        self, index: np.ndarray, out: np.ndarray, draws: Draws | None = None
    ) -> list[tuple[int, str]]:
        """Reads images; see `HostImages.read`."""
        places = index if self._chosen is None else self._chosen[index]
        faults = []
        for row, place in enumerate(places.tolist()):
            if fault := self._read_one(place, out[row]):
                out[row] = 0
                faults.append((row, f"{self._path}: image {place} cannot be read ({fault})"))
        return faults

    def _read_one(self, place: int, out: np.ndarray) -> str:
        """Reads the image at a place in the file, and returns its fault, or ""."""
        try:
            start = self._offset + place * out.size
            got = os.preadv(self._number, [memoryview(out).cast("B")], start)
        except OSError as error:
            return error.strerror or str(error)
        return "" if got == out.size else "the file is cut short"

    def subset(self, index: np.ndarray) -> "MappedImages":
        """These images in this order; see `HostImages.subset`."""
        chosen = index if self._chosen is None else self._chosen[index]
        return MappedImages(self._path, self._stored, self._offset, np.asarray(chosen))


def stored(images: Any, folder: Path, name: str = "") -> MappedImages:
    """Images in a file of the cache, which is written unless it is there and undamaged.

    Args:
        images: uint8[N, H, W, C], an array or `HostImages`.
        folder: of the cache.
        name: identifies the images, so that a file that is there is used without reading them;
            "" = the sha256 of the images.

    Raises:
        DataError: an image cannot be read.
        StorageError: the file cannot be written.
    """
    digest = "" if name else image_digest(images)
    path = folder / FOLDER / f"{name or digest}.u8"
    recorded = path.with_suffix(".sha256")
    with contextlib.suppress(OSError, DataError):
        there = MappedImages(path, images.shape)
        if image_digest(there) == (digest or recorded.read_text().strip()):
            return there
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        seen = hashlib.sha256(f"{images.shape}".encode())
        with replacing(path) as file:
            for chunk in progress(chunks(images), "writing the cache", num_chunks(images)):
                data = np.ascontiguousarray(chunk)
                seen.update(data)
                file.write(data)
        with replacing(recorded) as file:
            file.write(f"{seen.hexdigest()}\n".encode())
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); data.feed=mapped needs "
            f"{images.nbytes / 2**30:,.1f} GiB there; PURENOISE_JAX_CACHE names another folder"
        ) from error
    return MappedImages(path, images.shape)


def image_digest(images: Any) -> str:
    """The sha256, in hex, of the shape and all values of images."""
    digest = hashlib.sha256(f"{tuple(images.shape)}".encode())
    for chunk in chunks(images):
        digest.update(np.ascontiguousarray(chunk))
    return digest.hexdigest()
