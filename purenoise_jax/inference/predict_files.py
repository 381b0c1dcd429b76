"""Classifies images of files and folders, and writes a table of the predictions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from purenoise_jax.data.progress import progress
from purenoise_jax.data.sources.decode import depth_fault
from purenoise_jax.inference.classifier import BATCH_SIZE, Classifier
from purenoise_jax.inference.image_inputs import read_pixels
from purenoise_jax.inference.listed_images import list_images
from purenoise_jax.inference.prediction_table import PredictionTable, Tally
from purenoise_jax.runtime.errors import DataError


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
        warn: called with a line for each image that cannot be read.

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
        largest = max(largest, read.largest or 0)
        if len(read.rows):
            kept = [part[row] for row in read.rows]
            table.write(kept, classifier.probabilities(read.images))
    if largest and (doubt := depth_fault(largest)):
        warn(doubt)
    if not table.tally.images:
        raise DataError("no image could be read, so there is nothing to classify")
    return table.tally, left_out
