"""Classifies images of files and folders, and writes a table of the predictions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from purenoise_jax.data.progress import progress
from purenoise_jax.data.sources.decode import depth_fault
from purenoise_jax.inference.classifier import BATCH_SIZE, Classifier
from purenoise_jax.inference.image_inputs import read_pixels
from purenoise_jax.inference.listed_images import Listed, list_images
from purenoise_jax.inference.prediction_table import PredictionTable, Tally
from purenoise_jax.runtime.errors import DataError


class _Part(NamedTuple):
    """Images with their probabilities f32[M, K], and which of them have 16 bits, bool[M]."""

    images: list[Listed]
    probabilities: np.ndarray
    deep: np.ndarray


def predict_files(
    classifier: Classifier,
    given: Sequence[str | Path],
    file: TextIO,
    *,
    top: int = 0,
    warn: Callable[[str], None],
) -> tuple[Tally, int]:
    """Classifies images and writes a table; images that cannot be read are left out.

    Args:
        classifier: classifies.
        given: see `list_images`.
        file: of the table, see `PredictionTable`.
        top: see `PredictionTable`.
        warn: called with a line for each image that cannot be read, or has 16 bits and is nearly
            black, as all others of 16 bits.

    Returns:
        The counts of the images in the table, and the number of those left out.

    Raises:
        DataError: there is no image that can be read.
        OSError: the table cannot be written.
    """
    trained = classifier.trained
    listed, faults = list_images(given, trained.class_names, trained.lists, trained.lists_root)
    for fault in faults:
        warn(fault)
    left_out, largest = len(faults), 0
    table = PredictionTable(file, classifier.class_names, classifier.deployment, top)
    # From the first image of 16 bits on, until one of them uses its highest bit.
    waiting: list[_Part] = []
    starts = range(0, len(listed), BATCH_SIZE)
    for first in progress(starts, "predicting", len(starts)):
        part = listed[first : first + BATCH_SIZE]
        shape, view = trained.image_shape, trained.view
        read = read_pixels([image for _, _, image in part], shape, view)
        for row, fault in read.faults.items():
            # The message about a file names it already.
            where = "" if isinstance(part[row].image, str | Path) else f"{part[row].path}: "
            warn(f"{where}{fault}")
        left_out += len(read.faults)
        largest = max([largest, *read.largest.values()])
        if len(read.rows):
            kept = [part[row] for row in read.rows]
            deep = np.isin(read.rows, [*read.largest])
            waiting.append(_Part(kept, classifier.probabilities(read.images), deep))
        if not (any(part.deep.any() for part in waiting) and depth_fault(largest)):
            for ready in waiting:
                table.write(ready.images, ready.probabilities)
            waiting.clear()
    for doubtful in waiting:
        for image, is_deep in zip(doubtful.images, doubtful.deep, strict=True):
            if is_deep:
                warn(f"{image.path}: {depth_fault(largest, 'of those given')}")
        left_out += int(doubtful.deep.sum())
        kept = [doubtful.images[row] for row in np.flatnonzero(~doubtful.deep)]
        if kept:
            table.write(kept, doubtful.probabilities[~doubtful.deep])
    if not table.tally.images:
        raise DataError("no image could be read, so there is nothing to classify")
    return table.tally, left_out
