"""Compares an exported network with the run that it came from."""

from collections.abc import Callable, Sequence

import numpy as np

from purenoise_jax.inference.classifier import Classifier
from purenoise_jax.runtime.errors import StorageError, counted

BATCHES = (1, 7, 33)
# Of two probabilities. Programs that fuse operations in another way round in another way.
LARGEST_DIFFERENCE = 1e-5


def largest_difference(
    classifier: Classifier,
    exported: Callable[[np.ndarray], np.ndarray],
    batches: Sequence[int] = BATCHES,
) -> float:
    """Returns the largest difference of probabilities between a run and its export.

    The images are uniformly random, and others in every batch, so that the network sees all values
    of a pixel.

    Args:
        classifier: of the run.
        exported: uint8[N, H, W, C] -> probabilities f32[N, K], read back from the file.
        batches: numbers N of images.

    Raises:
        StorageError: it is above `LARGEST_DIFFERENCE`, or not a number.
    """
    generator = np.random.default_rng(0)
    found = []
    for size in batches:
        images = generator.integers(0, 256, (size, *classifier.image_shape), np.uint8)
        expected, seen = classifier.probabilities(images), np.asarray(exported(images))
        if seen.shape != expected.shape:
            raise StorageError(
                f"the export gives probabilities of shape {list(seen.shape)} for "
                f"{counted(size, 'image')}, and the run {list(expected.shape)}"
            )
        found.append(float(np.abs(seen - expected).max()))
    largest = float(np.max(found))
    if not largest <= LARGEST_DIFFERENCE:
        raise StorageError(
            f"probabilities of the export differ by up to {largest:.1e} from those of the run; "
            f"legal: at most {LARGEST_DIFFERENCE:g}"
        )
    return largest
