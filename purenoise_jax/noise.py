"""Pure noise images in place of oversampled ones.

Source: Zada, Benou and Irani 2022, section 3.1, equations 1-4 and algorithm 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from purenoise_jax import rng
from purenoise_jax.errors import ConfigError, DataError


def replace_probs(class_counts: ArrayLike, delta: float) -> jax.Array:
    """The probability that an image of each class is replaced by pure noise (equation 1).

    It is (1 - n_i / n_max) * delta: zero for the largest class, whichever that is.

    Args:
      class_counts: int[K], training images per class, each at least 1.
      delta: the ratio between pure noise and natural images, in [0, 1].

    Returns:
      f32[K] in [0, delta].

    Raises:
      ConfigError: delta is outside [0, 1].
      DataError: a class count is below 1.
    """
    if not 0 <= delta <= 1:
        raise ConfigError(f"method.open.delta={delta} must lie in [0, 1]")
    counts = np.asarray(class_counts, np.float64)
    if counts.ndim != 1 or counts.size == 0 or not (counts >= 1).all():
        raise DataError(f"class_counts must be numbers [K], each at least 1, got {class_counts}")
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
    """Pure noise images: every pixel from N(mean, std) of its channel (equations 2-4).

    Args:
      key: typed key, used up here.
      shape: (B, H, W, C).
      mean: f32[C].
      std: f32[C], in the units of `mean`.
      clip: clip to [0, 1] (equation 4).
      dtype: of the result.

    Returns:
      [B, H, W, C].

    Raises:
      DataError: mean or std is not one number per channel.
    """
    if np.shape(mean) != shape[-1:] or np.shape(std) != shape[-1:]:
        raise DataError(
            f"mean and std must be [{shape[-1]}], one per channel, got {np.shape(mean)} and "
            f"{np.shape(std)}"
        )
    noise = rng.normal(key, shape, dtype)
    channels = (1, 1, 1, shape[-1])
    noise = noise * jnp.asarray(std, dtype).reshape(channels)
    noise = noise + jnp.asarray(mean, dtype).reshape(channels)
    return jnp.clip(noise, 0, 1) if clip else noise


def add_noise(key: jax.Array, images: jax.Array, *, std: ArrayLike, clip: bool = True) -> jax.Array:
    """Natural images under additive Gaussian noise (appendix B).

    Args:
      key: typed key, used up here.
      images: float[B, H, W, C], in [0, 1] when `clip`.
      std: of the noise, in the units of `images`.
      clip: clip the sum to [0, 1].

    Returns:
      [B, H, W, C], of the images' dtype.
    """
    noise = rng.normal(key, images.shape, images.dtype)
    noisy = images + noise * jnp.asarray(std, images.dtype)
    return jnp.clip(noisy, 0, 1) if clip else noisy


def choose_rows(key: jax.Array, labels: jax.Array, replace_probs: ArrayLike) -> jax.Array:
    """Which rows of a batch are replaced: bool[B], each by the probability of its label.

    Args:
      key: typed key, used up here.
      labels: int[B] in [0, K).
      replace_probs: f32[K] in [0, 1], by class; see `purenoise_jax.replace_probs`.
    """
    probs = jnp.asarray(replace_probs, jnp.float32)[labels]
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
    """Replaces randomly chosen images by pure random noise; labels stay as they are.

    Noise and choice are drawn for all rows whatever their labels, so shapes are fixed and row j
    depends only on the key, j and its own label.

    Args:
      key: typed key, used up here.
      images: float[B, H, W, C], in [0, 1] when `clip`.
      labels: int[B] in [0, K).
      replace_probs: f32[K] in [0, 1], by class; see `purenoise_jax.replace_probs`.
      mean: f32[C], in the units of `images`.
      std: f32[C], likewise.
      clip: clip the noise to [0, 1] (equation 4).

    Raises:
      DataError: an array has another shape or dtype.

    Returns:
      images of the same shape and dtype, and noise_mask bool[B], True where a row is noise now.
    """
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise DataError(f"images must be float[B, H, W, C], got {images.dtype}{images.shape}")
    choice_key, pixel_key = rng.split(key)
    noise_mask = choose_rows(choice_key, labels, replace_probs)
    noise = draw_noise(pixel_key, images.shape, mean=mean, std=std, clip=clip, dtype=images.dtype)
    return jnp.where(noise_mask[:, None, None, None], noise, images), noise_mask
