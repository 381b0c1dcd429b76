"""Test images drawn from a data set that is published without a split, or without test labels.

The draw does not depend on a seed, so runs with different seeds have the same test images.
"""

import dataclasses

import numpy as np

from purenoise_jax.data.sources.file_splits import FileSplits
from purenoise_jax.runtime.errors import DataError

# Tells this draw from those of other images, which have seeds.
STREAM = 2


def with_test_share(files: FileSplits, fraction: float) -> FileSplits:
    """Moves a share of each class from the training images to a test split.

    The number is rounded to the nearest, halves up. Every class keeps an image to train with.

    Args:
        files: without test images.
        fraction: above 0, below 1.

    Raises:
        DataError: a class has too few images to be tested.
    """
    listed = files.splits[files.train]
    labels = np.array([label for _, label in listed], np.int64)
    draw, tests = np.random.RandomState(STREAM), np.zeros(len(listed), bool)
    short = []
    for label, name in enumerate(files.classes):
        places = np.flatnonzero(labels == label)
        count = min(int(len(places) * fraction + 0.5), len(places) - 1)
        if count < 1 and len(places):
            short.append(f"{name} ({len(places)})")
        tests[draw.permutation(places)[: max(count, 0)]] = True
    if short:
        raise DataError(
            f"{files.root}: data.test_fraction={fraction:g} leaves {len(short)} classes without a "
            f"test image, because they have too few: {', '.join(short[:5])}"
        )
    rows = list(zip(listed, tests.tolist(), strict=True))
    splits = {
        **files.splits,
        files.train: [row for row, is_test in rows if not is_test],
        files.test: [row for row, is_test in rows if is_test],
    }
    return dataclasses.replace(files, splits=splits, key=f"{files.key} test_fraction={fraction:g}")
