"""Validation images held out of a training set: the same share, or the same number, of each class.

Sources: three images of each class are held out by Ye et al. 2021 ("Procrustean training for
imbalanced deep learning", supplement, section C.2), who tune on them; a share of each class is the
stratified split of scikit-learn.
"""

import numpy as np

from purenoise_jax.data.longtail import count_classes
from purenoise_jax.runtime.errors import ConfigError

# Tells this choice from that of the subset, which has the same seed.
STREAM = 1


def held_out_counts(
    class_counts: np.ndarray, *, fraction: float = 0.0, per_class: int = 0
) -> np.ndarray:
    """Returns the number of validation images of every class, int64[K].

    A fraction is rounded to the nearest number, halves up. Every class keeps an image to train
    with, so a class with one image has none for validation.

    READING: Ye et al. ignore classes with fewer than three images, and do not say what is left
    to train with of a class with three. Here a class with no more than `per_class` images keeps
    them all.

        >>> held_out_counts(np.array([100, 7, 3, 1]), fraction=0.2)
        array([20,  1,  1,  0])
        >>> held_out_counts(np.array([100, 7, 3, 1]), per_class=3)
        array([3, 3, 0, 0])

    Args:
        class_counts: int[K], training images of each class.
        fraction: of each class, in [0, 1).
        per_class: images of each class.
    """
    counts = np.asarray(class_counts, np.int64)
    if per_class:
        return np.where(counts > per_class, per_class, 0)
    return np.minimum(np.floor(counts * fraction + 0.5).astype(np.int64), np.maximum(counts - 1, 0))


def hold_out(
    labels: np.ndarray, num_classes: int, *, fraction: float, per_class: int, seed: int
) -> np.ndarray:
    """Draws the validation images of a training set.

    Args:
        labels: int[N] in [0, K), of the training set.
        num_classes: K.
        fraction: of each class; 0 if `per_class` is given.
        per_class: images of each class; 0 if `fraction` is given.
        seed: of the draw.

    Returns:
        bool[N], True for validation.

    Raises:
        ConfigError: no class has an image to spare.
    """
    counts = held_out_counts(
        count_classes(labels, num_classes), fraction=fraction, per_class=per_class
    )
    if not counts.any():
        given = f"per_class={per_class}" if per_class else f"fraction={fraction:g}"
        raise ConfigError(
            f"data.val_{given} leaves every class without a validation image; the largest class "
            f"has {count_classes(labels, num_classes).max():,} images"
        )
    # numpy's legacy generator, because its numbers never change.
    draw = np.random.RandomState([seed, STREAM])
    chosen = np.zeros(len(labels), bool)
    for k, count in enumerate(counts):
        chosen[draw.permutation(np.flatnonzero(labels == k))[:count]] = True
    return chosen
