"""Validation and test images held out of a training set: a share, a number, or a fold, by class.

Sources: three images of each class are held out by Ye et al. 2021 ("Procrustean training for
imbalanced deep learning", supplement, section C.2), who tune on them; a share of each class is the
stratified split of scikit-learn, and folds are as large as those of its `StratifiedKFold`.
"""

import numpy as np

from purenoise_jax.data.longtail import count_classes
from purenoise_jax.runtime.errors import ConfigError

# Tell these choices from that of the subset, which has the same seed.
STREAMS = {"val": 1, "test": 2, "fold": 3}


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
    labels: np.ndarray,
    num_classes: int,
    *,
    fraction: float,
    per_class: int,
    seed: int,
    split: str = "val",
) -> np.ndarray:
    """Draws the validation or test images of a training set.

    Args:
        labels: int[N] in [0, K), of the training set.
        num_classes: K.
        fraction: of each class; 0 if `per_class` is given.
        per_class: images of each class; 0 if `fraction` is given.
        seed: of the draw.
        split: "val" or "test", whose draws are independent.

    Returns:
        bool[N], True for images of the split.

    Raises:
        ConfigError: no class has an image to spare.
    """
    counts = held_out_counts(
        count_classes(labels, num_classes), fraction=fraction, per_class=per_class
    )
    if not counts.any():
        given = f"per_class={per_class}" if per_class else f"fraction={fraction:g}"
        name = {"val": "validation"}.get(split, split)
        raise ConfigError(
            f"data.{split}_{given} leaves every class without a {name} image; the largest class "
            f"has {count_classes(labels, num_classes).max():,} images"
        )
    # numpy's legacy generator, because its numbers never change.
    draw = np.random.RandomState([seed, STREAMS[split]])
    chosen = np.zeros(len(labels), bool)
    for k, count in enumerate(counts):
        chosen[draw.permutation(np.flatnonzero(labels == k))[:count]] = True
    return chosen


def in_fold(
    labels: np.ndarray, num_classes: int, *, folds: int, fold: int, seed: int
) -> np.ndarray:
    """Draws one of several parts of a training set, which have no image in common.

    The images of a class are dealt out to the folds in turn, in an order that is drawn, and each
    class begins where the class before has ended. So folds differ by at most one image, in all and
    in each class, and classes with fewer images than folds are spread over all folds. A class with
    one image is in no fold, because every class keeps an image to train with.

    Args:
        labels: int[N] in [0, K), of the training set.
        num_classes: K.
        folds: number of parts, at least 2.
        fold: one of them, counted from 0.
        seed: of the draw.

    Returns:
        bool[N], True for images of the fold.

    Raises:
        ConfigError: no image is in the fold.
    """
    draw = np.random.RandomState([seed, STREAMS["fold"]])
    counts = count_classes(labels, num_classes)
    dealt = [
        draw.permutation(np.flatnonzero(labels == k)) for k in np.flatnonzero(counts > 1).tolist()
    ]
    chosen = np.zeros(len(labels), bool)
    chosen[np.concatenate([np.zeros(0, np.int64), *dealt])[fold::folds]] = True
    if not chosen.any():
        raise ConfigError(
            f"data.fold={fold} of data.folds={folds} has no image; there are "
            f"{int(counts[counts > 1].sum()):,} images in classes of two or more"
        )
    return chosen
