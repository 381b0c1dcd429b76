"""Validation and test images held out of a training set: a share, a number, or a fold, by class.

Sources: three images of each class are held out by Ye et al. 2021 ("Procrustean training for
imbalanced deep learning", supplement, section C.2), who tune on them; a share of each class is the
stratified split of scikit-learn, and folds are as large as those of its `StratifiedKFold`. Groups
of images, such as those of a patient, stay together, as in its `StratifiedGroupKFold`.
"""

import numpy as np

from purenoise_jax.data.group_split import deal, without_whole_classes
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
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Draws the validation or test images of a training set.

    With groups, whole groups are drawn, so that each class has about its fraction; every class
    keeps a group to train with.

    Args:
        labels: int[N] in [0, K), of the training set.
        num_classes: K.
        fraction: of each class; 0 if `per_class` is given.
        per_class: images of each class; 0 if `fraction` is given.
        seed: of the draw.
        split: "val" or "test", whose draws are independent.
        groups: int[N], the same number for images that stay together; only with a fraction. None =
            images are drawn one by one.

    Returns:
        bool[N], True for images of the split.

    Raises:
        ConfigError: no class has an image, or no group can be spared.
    """
    # numpy's legacy generator, because its numbers never change.
    draw = np.random.RandomState([seed, STREAMS[split]])
    if groups is not None:
        shares = (fraction, 1 - fraction)
        chosen = _part(labels, groups, num_classes, shares, part=0, draw=draw)
        if not chosen.any():
            raise ConfigError(
                f"data.{split}_fraction={fraction:g} holds no group out; there are "
                f"{len(np.unique(groups)):,}, the largest with "
                f"{np.unique(groups, return_counts=True)[1].max():,} of {len(labels):,} images"
            )
        return chosen
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
    chosen = np.zeros(len(labels), bool)
    for k, count in enumerate(counts):
        chosen[draw.permutation(np.flatnonzero(labels == k))[:count]] = True
    return chosen


def in_fold(
    labels: np.ndarray,
    num_classes: int,
    *,
    folds: int,
    fold: int,
    seed: int,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Draws one of several parts of a training set, which have no image in common.

    The images of a class are dealt out to the folds in turn, in an order that is drawn, and each
    class begins where the class before has ended. So folds differ by at most one image, in all and
    in each class, and classes with fewer images than folds are spread over all folds. A class with
    one image is in no fold, because every class keeps an image to train with.

    With groups, whole groups are dealt out, so that each fold has about its share of every class;
    where a class would be in one fold alone, its smallest group is in none.

    Args:
        labels: int[N] in [0, K), of the training set.
        num_classes: K.
        folds: number of parts, at least 2.
        fold: one of them, counted from 0.
        seed: of the draw.
        groups: see `hold_out`.

    Returns:
        bool[N], True for images of the fold.

    Raises:
        ConfigError: no image is in the fold.
    """
    draw = np.random.RandomState([seed, STREAMS["fold"]])
    if groups is not None:
        chosen = _part(labels, groups, num_classes, (1 / folds,) * folds, part=fold, draw=draw)
        if not chosen.any():
            raise ConfigError(
                f"data.fold={fold} of data.folds={folds} has no group; there are "
                f"{len(np.unique(groups)):,}"
            )
        return chosen
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


def _part(
    labels: np.ndarray,
    groups: np.ndarray,
    num_classes: int,
    shares: tuple[float, ...],
    *,
    part: int,
    draw: np.random.RandomState,
) -> np.ndarray:
    """The images bool[N] of one of the parts that groups are dealt to."""
    parts = deal(labels, groups, num_classes, shares=shares, draw=draw)
    _, place = np.unique(groups, return_inverse=True)
    return without_whole_classes(labels, groups, parts[place] == part)
