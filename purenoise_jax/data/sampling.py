"""Samples the images of every step: a pure function of (key, epoch).

Source: Lee and Lee 2023, section 5.2 (the balanced loader draws with replacement, as many times as
the training set has images); Zada et al. 2022, section 3.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from purenoise_jax.data.array_checks import check_labels
from purenoise_jax.data.labels import as_labels
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError, DataError, shown


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Number of steps that cover the training set once; the last one may not be full."""
    return -(-num_images // batch_size)


class ByClass(NamedTuple):
    """The images of a training set by class.

    Attributes:
        order: i32[N], the image indices sorted by class.
        counts: i32[K], images per class.
    """

    order: jax.Array | np.ndarray
    counts: jax.Array | np.ndarray


def by_class(labels: np.ndarray, num_classes: int) -> ByClass:
    """Sorts the images of a training set by their labels int[N] in [0, K), on the host."""
    order = np.argsort(labels, kind="stable").astype(np.int32)
    return ByClass(order, np.bincount(labels, minlength=num_classes).astype(np.int32))


def images_of(key: jax.Array, label: jax.Array, images: ByClass) -> jax.Array:
    """Draws an image of each of the classes i32[M], uniformly and with replacement: i32[M]."""
    order, counts = (jnp.asarray(array) for array in images)
    first = jnp.cumsum(counts) - counts
    return order[first[label] + rng.randint(key, label.shape, 0, counts[label])]


@partial(jax.jit, static_argnames=("num_images",))
def permutation(key: jax.Array, *, num_images: int) -> jax.Array:
    """Returns the indices of all images in random order, i32[num_images]."""
    return rng.permutation(key, num_images)


@partial(jax.jit, static_argnames=("num_draws",))
def class_draws(
    key: jax.Array,
    class_probs: jax.Array,
    by_class: jax.Array,
    counts: jax.Array,
    *,
    num_draws: int,
) -> jax.Array:
    """Draws with replacement: first a class by its probability, then one of its images uniformly.

    Args:
        key: typed key.
        class_probs: f32[K], summing to 1; a class without images has 0.
        by_class: i32[N], the image indices sorted by class.
        counts: i32[K], images per class.
        num_draws: M.

    Returns:
        i32[M], indices of images.
    """
    class_key, image_key = rng.split(key)
    # Inverse transform sampling. The minimum is needed because rounding at the upper end could
    # select a class without images.
    edges = jnp.cumsum(class_probs)
    uniform = rng.uniform(class_key, (num_draws,)) * edges[-1]
    last = jnp.max(jnp.where(class_probs > 0, jnp.arange(class_probs.size), 0))
    label = jnp.minimum(jnp.searchsorted(edges, uniform, side="right"), last)
    return images_of(image_key, label, ByClass(by_class, counts))


def balanced_indices(
    key: jax.Array, labels: ArrayLike, *, num_draws: int | None = None
) -> np.ndarray:
    """Draws the images of one class-balanced epoch: on average, all classes equally often.

    Draws with replacement: first a class, then one of its images, both uniformly.

        >>> import jax, numpy as np
        >>> labels = np.repeat([0, 1, 2], [6000, 600, 60])
        >>> index = balanced_indices(jax.random.key(0), labels)
        >>> (np.bincount(labels[index]) / len(index)).round(1).tolist()
        [0.3, 0.3, 0.3]

    Args:
        key: typed key; every epoch needs another one.
        labels: int[N] in [0, K), of the training images. Their values must be known, so this
            function does not work under `jit`.
        num_draws: M, at least 1; None = N, the number of images.

    Returns:
        i32[M], indices of images.

    Raises:
        DataError: `labels` are not integers [N] from 0, are empty, or skip a class below the
            largest label.
        ConfigError: `num_draws` is not a positive integer.
    """
    known = check_labels(labels)
    if isinstance(known, jax.core.Tracer) or not known.size:
        raise DataError(
            f"labels must be int[N] of known values, got {known.dtype}{list(known.shape)}"
        )
    known = np.asarray(known).astype(np.int64)
    # With more classes than images, one of the first N + 1 is empty. Only these are looked at,
    # because counts up to a huge label might not fit into memory.
    empty = np.setdiff1d(np.arange(min(int(known.max()) + 1, len(known) + 1)), known)
    if empty.size:
        raise DataError(
            f"labels must name every class from 0, but classes {empty[:10].tolist()} have no image"
        )
    counts = np.bincount(known)
    draws = len(known) if num_draws is None else num_draws
    if not isinstance(draws, int | np.integer) or isinstance(draws, bool) or draws < 1:
        raise ConfigError(f"num_draws={shown(num_draws)} must be an integer of at least 1")
    flat = class_draws(
        key,
        jnp.asarray(np.full(len(counts), 1 / len(counts), np.float32)),
        jnp.asarray(np.argsort(known, kind="stable"), jnp.int32),
        jnp.asarray(counts, jnp.int32),
        num_draws=int(draws),
    )
    return np.asarray(flat)


class EpochSampler:
    """Samples epochs as fixed-shape batches of image indices.

    Args:
        labels: int[N] or int[N, 1] in [0, K), of the training images.
        num_classes: K.
        batch_size: B.
        seed: the run's seed.

    Attributes:
        by_class: the images by class.

    Raises:
        DataError: labels have another dtype or shape, or lie outside [0, K).
    """

    def __init__(self, labels: np.ndarray, num_classes: int, batch_size: int, seed: int) -> None:
        labels = as_labels("labels", np.asarray(labels), num_classes=num_classes)
        self.num_images = len(labels)
        self.batch_size = batch_size
        self.steps = steps_per_epoch(self.num_images, batch_size)
        self._key = rng.stream(seed, "sampling")
        self.by_class = by_class(labels, num_classes)

    def epoch(self, epoch: int, class_probs: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Samples the rows of one epoch.

        Args:
            epoch: counted from 0.
            class_probs: f32[K], the probabilities of the classes; N rows are then drawn with
                replacement, see `class_draws`. None = every image once in random order.

        Returns:
            index i32[steps, B] into the training images, and valid bool[steps, B], False for the
            padding that fills up the last step. Padding rows have index 0 and are never used.
        """
        key = rng.at(self._key, epoch)
        if class_probs is None:
            flat = permutation(key, num_images=self.num_images)
        else:
            probs = jnp.asarray(class_probs, jnp.float32)
            order, counts = (jnp.asarray(array) for array in self.by_class)
            flat = class_draws(key, probs, order, counts, num_draws=self.num_images)
        return pad_rows(np.asarray(flat, np.int32), self.batch_size)


def pad_rows(flat: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts indices i32[N] into rows [steps, B], with valid bool[steps, B], False = padding."""
    rows = (steps_per_epoch(len(flat), batch_size), batch_size)
    index = np.zeros(rows, np.int32)
    valid = np.zeros(rows, bool)
    index.reshape(-1)[: len(flat)] = flat
    valid.reshape(-1)[: len(flat)] = True
    return index, valid
