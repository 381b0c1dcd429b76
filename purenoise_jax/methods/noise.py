"""Pure noise images that replace oversampled images of rare classes.

Source: Zada, Benou and Irani 2022, section 3.1, equations 1-4 and algorithm 1.
"""

import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from purenoise_jax.data.array_checks import (
    as_array,
    check_labels,
    check_numbers,
    check_unit_interval,
    is_known,
)
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError, DataError, shown


def replace_probs(class_counts: ArrayLike, delta: float) -> jax.Array:
    """Returns the probability that an image of each class is replaced by pure noise (equation 1).

    It is (1 - n_i / n_max) * delta: zero for the largest class, whatever its label.

        >>> counts = [5000, 500, 50]
        >>> replace_probs(counts, delta=1 / 3)  # never the largest class, most often the smallest
        Array([0.  , 0.3 , 0.33], dtype=float32)

    Args:
        class_counts: int[K], training images per class, each at least 1. Their values must be
            concrete, so they cannot be an argument of a function under `jit`.
        delta: the ratio between pure noise and natural images, in [0, 1].

    Returns:
        f32[K] in [0, delta].

    Raises:
        ConfigError: `delta` is not a number in [0, 1].
        DataError: `class_counts` are not integers [K], or one is below 1.
    """
    if not isinstance(delta, numbers.Real) or isinstance(delta, bool) or not 0 <= delta <= 1:
        raise ConfigError(f"delta={shown(delta)} must lie in [0, 1]")
    wanted = "int[K], each at least 1"
    given = as_array("class_counts", class_counts)
    if not is_known(given) or not jnp.issubdtype(given.dtype, jnp.integer):
        raise DataError(f"class_counts must be {wanted}, got {given.dtype}{list(given.shape)}")
    checked = check_numbers("class_counts", given, shape=(None,), wanted=wanted, low=1)
    counts = np.asarray(checked, np.float64)
    return jnp.asarray((1 - counts / counts.max()) * delta, jnp.float32)


def draw_noise(
    key: jax.Array,
    shape: tuple[int, ...],
    *,
    mean: ArrayLike,
    std: ArrayLike,
    clip: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """Draws pure noise images: every pixel from N(mean, std) of its channel (equations 2-4).

        >>> import jax
        >>> noise = draw_noise(jax.random.key(0), (8, 32, 32, 3), mean=[0.5] * 3, std=[0.2] * 3)
        >>> noise.shape, bool((noise >= 0).all() and (noise <= 1).all())
        ((8, 32, 32, 3), True)

    Args:
        key: typed key, consumed here.
        shape: (B, H, W, C).
        mean: f32[C].
        std: f32[C], at least 0, in the units of `mean`.
        clip: clip to [0, 1] (equation 4). If `mean` is near 0, as in normalised units, this sets
            about half of the pixels to 0.
        dtype: of the result, a float dtype.

    Returns:
        [B, H, W, C].

    Raises:
        DataError: an argument has the wrong shape or dtype or, if its value is known, is out of
            range. Under `jit`, a NaN in `mean` or `std` gives NaN pixels, and a negative `std`
            gives the noise of its absolute value.
    """
    if len(shape) != 4 or not jnp.issubdtype(dtype, jnp.floating):
        raise DataError(f"noise must be float[B, H, W, C], got {np.dtype(dtype)}{list(shape)}")
    per_channel = f"float[{shape[-1]}], one finite number per channel"
    check_numbers("mean", mean, shape=shape[-1:], wanted=per_channel)
    check_numbers("std", std, shape=shape[-1:], wanted=f"{per_channel}, each at least 0", low=0)
    noise = rng.normal(key, shape, dtype)
    channels = (1, 1, 1, shape[-1])
    noise = noise * jnp.asarray(std, dtype).reshape(channels)
    noise = noise + jnp.asarray(mean, dtype).reshape(channels)
    return jnp.clip(noise, 0, 1) if clip else noise


def add_noise(key: jax.Array, images: jax.Array, *, std: ArrayLike, clip: bool = True) -> jax.Array:
    """Adds Gaussian noise to natural images (appendix B).

        >>> import jax, jax.numpy as jnp
        >>> noisy = add_noise(jax.random.key(0), jnp.full((8, 32, 32, 3), 0.5), std=0.1)
        >>> float(noisy.std().round(1))
        0.1...

    Args:
        key: typed key, consumed here.
        images: float[B, H, W, C], in [0, 1] if `clip`.
        std: number [], at least 0: standard deviation of the noise, in the units of `images`.
        clip: clip the sum to [0, 1].

    Returns:
        [B, H, W, C], of the images' dtype.

    Raises:
        DataError: an argument has the wrong shape or dtype or, if its value is known, is out of
            range. Under `jit`, images outside [0, 1] are clipped like all others.
    """
    images = _float_images(images, clip)
    check_numbers("std", std, shape=(), wanted="a finite number of at least 0", low=0)
    noise = rng.normal(key, images.shape, images.dtype)
    noisy = images + noise * jnp.asarray(std, images.dtype)
    return jnp.clip(noisy, 0, 1) if clip else noisy


def choose_rows(key: jax.Array, labels: jax.Array, replace_probs: ArrayLike) -> jax.Array:
    """Chooses rows of a batch to replace: bool[B], each with the probability of its label.

        >>> import jax, jax.numpy as jnp
        >>> choose_rows(jax.random.key(0), jnp.array([0, 1, 0, 1]), [0.0, 1.0]).tolist()
        [False, True, False, True]

    Args:
        key: typed key, consumed here.
        labels: int[B] in [0, K).
        replace_probs: f32[K] in [0, 1], by class; see `purenoise_jax.replace_probs`.

    Raises:
        DataError: an array has the wrong shape or dtype or, if its values are known, is out of
            range. Under `jit`, a label of K or more counts as K - 1, and a negative label counts
            back from K, but not below 0; a probability above 1 counts as 1, and one below 0 or NaN
            as 0.
    """
    probs = _check_probs(replace_probs)
    labels = jnp.asarray(check_labels(labels, num_classes=len(probs)))
    probs = jnp.asarray(probs, jnp.float32)[labels]
    return rng.uniform(key, labels.shape) < probs


def replace_with_noise(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    replace_probs: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    clip: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Replaces randomly chosen images by pure random noise; labels do not change.

    The choice and the noise are drawn for all rows regardless of their labels, so shapes are fixed
    and row j depends only on the key, j and its own label. This is one half of OPeN; the other half
    draws the rows of a batch with `purenoise_jax.balanced_indices`.

        >>> import jax, jax.numpy as jnp
        >>> images, labels = jnp.full((4, 8, 8, 3), 0.5), jnp.array([0, 1, 0, 1])
        >>> noise = dict(replace_probs=[0.0, 1.0], mean=[0.5] * 3, std=[0.2] * 3)
        >>> images, noise_mask = replace_with_noise(jax.random.key(0), images, labels, **noise)
        >>> noise_mask.tolist()
        [False, True, False, True]

    Args:
        key: typed key, consumed here.
        images: float[B, H, W, C], in [0, 1] if `clip`: normalise them afterwards.
        labels: int[B] in [0, K).
        replace_probs: f32[K] in [0, 1], by class; see `purenoise_jax.replace_probs`.
        mean: f32[C], in the units of `images`.
        std: f32[C], at least 0, in the units of `images`.
        clip: clip the noise to [0, 1] (equation 4).

    Returns:
        images of the same shape and dtype, and noise_mask bool[B], True where a row is noise now.

    Raises:
        DataError: an array has the wrong shape or dtype or, if its values are known, is out of
            range. Under `jit`, values are not checked: noise for images that are already normalised
            is still clipped to [0, 1]; for the other arguments see `choose_rows` and `draw_noise`.
    """
    images = _float_images(images, clip)
    probs = _check_probs(replace_probs)
    checked = jnp.asarray(check_labels(labels, rows=len(images), num_classes=len(probs)))
    choice_key, pixel_key = rng.split(key)
    noise_mask = choose_rows(choice_key, checked, probs)
    noise = draw_noise(pixel_key, images.shape, mean=mean, std=std, clip=clip, dtype=images.dtype)
    return jnp.where(noise_mask[:, None, None, None], noise, images), noise_mask


def _check_probs(replace_probs: ArrayLike) -> jax.Array | np.ndarray:
    return check_numbers(
        "replace_probs", replace_probs, shape=(None,), wanted="float[K] in [0, 1]", low=0, high=1
    )


def _float_images(images: ArrayLike, clip: bool) -> jax.Array:
    """Returns images as a float array; with `clip`, checks that they lie in [0, 1]."""
    array = as_array("images", images)
    if array.ndim != 4 or not jnp.issubdtype(array.dtype, jnp.floating):
        raise DataError(f"images must be float[B, H, W, C], got {array.dtype}{list(array.shape)}")
    if clip:
        check_unit_interval(
            "images", array, "normalise them afterwards, or pass clip=False for unclipped noise"
        )
    return jnp.asarray(array)
