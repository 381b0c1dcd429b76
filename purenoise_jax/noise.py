"""Pure noise images in place of oversampled ones.

Source: Zada, Benou and Irani 2022, section 3.1, equations 1-4 and algorithm 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

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
    dtype: DTypeLike,
    *,
    mean: ArrayLike,
    std: ArrayLike,
    clip: bool = True,
) -> jax.Array:
    """Pure noise images: every pixel from N(mean, std) of its channel (equations 2-4).

    Args:
      key: typed key, used up here.
      shape: (B, H, W, C).
      dtype: a float dtype.
      mean: f32[C], in the units that the images are to have.
      std: f32[C], likewise.
      clip: clip to [0, 1] (equation 4).

    Returns:
      float[B, H, W, C].
    """
    channels = (1, 1, 1, shape[-1])
    noise = jax.random.normal(key, shape, dtype)
    noise = noise * jnp.asarray(std, dtype).reshape(channels)
    noise = noise + jnp.asarray(mean, dtype).reshape(channels)
    return jnp.clip(noise, 0, 1) if clip else noise


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

    Every pixel of a noise image is drawn from N(mean, std) of its channel (equations 2-4). Noise
    and choice are drawn for all rows whatever their labels, so shapes are fixed and row j depends
    only on the key, j and its own label.

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
    per_channel = images.shape[-1:]
    if np.shape(mean) != per_channel or np.shape(std) != per_channel:
        raise DataError(
            f"mean and std must be [{per_channel[0]}], one per channel, got {np.shape(mean)} and "
            f"{np.shape(std)}"
        )
    choice_key, pixel_key = jax.random.split(key)
    probs = jnp.asarray(replace_probs, jnp.float32)[labels]
    noise_mask = jax.random.uniform(choice_key, labels.shape) < probs
    noise = draw_noise(pixel_key, images.shape, images.dtype, mean=mean, std=std, clip=clip)
    return jnp.where(noise_mask[:, None, None, None], noise, images), noise_mask
