"""Feeds: hand the images of every step to it, from the devices or from the host.

A `ResidentFeed` has the images on every device, and a step gets indices. A `StreamingFeed` has them
on the host, in a file or encoded, and a step gets its images. Both take the indices of the sampler,
so the batch of a step is the same. Nothing about a position is stored: the batch of any step can be
read first.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from typing import Any

import jax
import numpy as np

from purenoise_jax.data.host_images import HostImages
from purenoise_jax.data.original_crop import Draws
from purenoise_jax.data.rows import Rows, StreamedRows
from purenoise_jax.runtime.errors import DataError, PureNoiseError
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.runtime.threads import POLL_SECONDS, skip_atexit

FEEDS = ("auto", "resident", "mapped", "decoded")
ON_BAD = ("stop", "skip")
# Batches that are read while a step runs: the next one, and one more.
AHEAD = 2


class ResidentFeed:
    """Hands indices to the steps; the images lie on every device.

    Args:
        placement: over which devices.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    def epoch(
        self,
        index: np.ndarray,
        valid: np.ndarray,
        first: int = 0,
        step: int | None = 0,
        augments: bool = True,
    ) -> Rows:
        """The rows of all steps of an epoch, [steps, B] each, on the devices.

        Args:
            index: i32[steps, B].
            valid: bool[steps, B].
            first: row to begin with.
            step: of the run, of row 0.
            augments: of no effect, because images on the devices are augmented there.
        """
        del first, step, augments
        return Rows(self._placement.split_rows(index), self._placement.split_rows(valid))

    def close(self) -> None:
        """Ends reading."""


class StreamingFeed:
    """Hands images to the steps, read on threads; a process reads only the rows of its devices.

    Args:
        images: uint8[N, H, W, C].
        labels: i32[N].
        placement: over which devices.
        workers: number of threads.
        skip: called with a line about each image that cannot be read, whose row then is padding;
            None = such an image ends the run.
        seed: of random changes to the images; an evaluation has none.
    """

    def __init__(
        self,
        images: HostImages,
        labels: np.ndarray,
        placement: Placement,
        workers: int = 1,
        skip: Callable[[str], None] | None = None,
        seed: int = 0,
    ) -> None:
        self.images, self.labels, self.placement = images, labels, placement
        self.workers, self.skip, self.seed = workers, skip, seed
        self.pool = ThreadPoolExecutor(workers, "feed")
        self._reading: ReadAhead | None = None

    def epoch(
        self,
        index: np.ndarray,
        valid: np.ndarray,
        first: int = 0,
        step: int | None = 0,
        augments: bool = True,
    ) -> "ReadAhead":
        """The rows of an epoch, which are read ahead from now on.

        Args:
            index: i32[steps, B].
            valid: bool[steps, B].
            first: row to begin with.
            step: of the run, of row 0; None in an evaluation.
            augments: False reads the images as they are stored, as an evaluation does.
        """
        self._cancel()
        self._reading = ReadAhead(self, index, valid, first, step, augments)
        return self._reading

    def close(self) -> None:
        """Ends reading; a read that hangs is left behind when the process ends."""
        if self._cancel():
            skip_atexit()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _cancel(self) -> bool:
        """Cancels reads that have not begun; True if others have not ended."""
        return self._reading is not None and self._reading.cancel()


class ReadAhead:
    """The rows of an epoch's steps in order; `AHEAD` batches are read before they are taken.

    Args:
        feed: what is read.
        index: i32[steps, B].
        valid: bool[steps, B].
        first: row to begin with.
        step: of the run, of row 0; None in an evaluation.
        augments: False reads the images as they are stored.
    """

    def __init__(
        self,
        feed: StreamingFeed,
        index: np.ndarray,
        valid: np.ndarray,
        first: int,
        step: int | None,
        augments: bool,
    ) -> None:
        self._feed, self._step, self._augments = feed, step, augments
        self._batch_size = index.shape[1]
        self._local = feed.placement.local_rows(self._batch_size)
        self._index, self._valid = index[:, self._local], valid[:, self._local]
        self._batches: dict[int, tuple[np.ndarray, np.ndarray, list[Future[None]]]] = {}
        self._next = first
        self._read_ahead()

    def wait(self, row: int, poll: Callable[[], Any] | None = None) -> None:
        """Waits until the batch of a row is read.

        Args:
            row: the next one.
            poll: called repeatedly while waiting; an exception of it ends the wait.

        Raises:
            DataError: an image cannot be read; the message names its file and the step.
        """
        for future in self._batches[row][2]:
            while poll is not None and not future.done():
                try:
                    future.result(POLL_SECONDS)
                except TimeoutError:
                    poll()
            future.result()

    def take(self, row: int) -> StreamedRows:
        """The rows of the next step, on the devices; the batch after the next begins to be read."""
        self.wait(row)
        images, valid, _ = self._batches.pop(row)
        self._read_ahead()
        labels = self._feed.labels[self._index[row]]
        parts = (images, labels, valid)
        return StreamedRows(
            *(self._feed.placement.split_batch(part, self._batch_size) for part in parts)
        )

    def cancel(self) -> bool:
        """Cancels reads that have not begun; True if others have not ended."""
        futures = [future for batch in self._batches.values() for future in batch[2]]
        return not all([future.cancel() or future.done() for future in futures])

    def _read_ahead(self) -> None:
        while self._next < len(self._index) and len(self._batches) < AHEAD:
            row, count = self._next, len(self._local)
            images = np.empty((count, *self._feed.images.shape[1:]), np.uint8)
            valid = self._valid[row].copy()
            parts = np.array_split(np.arange(count), self._feed.workers)
            # Every batch is shared out, because only few batches are read at a time.
            read = [
                self._feed.pool.submit(self._fill, row, part, images, valid)
                for part in parts
                if part.size
            ]
            self._batches[row] = images, valid, read
            self._next += 1

    def _fill(self, row: int, part: np.ndarray, images: np.ndarray, valid: np.ndarray) -> None:
        where = "in an evaluation" if self._step is None else f"for step {self._step + row}"
        rows, draws = slice(part[0], part[-1] + 1), None
        if self._step is not None and self._augments:
            draws = Draws(self._feed.seed, self._step + row, self._local[rows])
        try:
            faults = self._feed.images.read(self._index[row, rows], images[rows], draws)
        except PureNoiseError as error:
            raise DataError(f"{error} (read {where})") from error
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise DataError(f"an image could not be read {where} ({why})") from error
        for place, fault in faults:
            if self._feed.skip is None:
                raise DataError(
                    f"{fault} (read {where}); data.on_bad=stop, the default, ends the run, "
                    "data.on_bad=skip leaves such images out"
                )
            if valid[rows][place]:
                self._feed.skip(f"{fault} (read {where})")
            valid[rows][place] = False


def row_shapes(
    placement: Placement, batch_size: int, image_shape: tuple[int, int, int]
) -> StreamedRows:
    """Shapes, dtypes and shardings of the rows of a step from a `StreamingFeed`."""

    def shape(*sizes: int, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *sizes), dtype, sharding=placement.batch)

    return StreamedRows(
        shape(*image_shape, dtype=np.uint8), shape(dtype=np.int32), shape(dtype=np.bool_)
    )
