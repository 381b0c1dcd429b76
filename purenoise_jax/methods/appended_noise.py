"""A fixed share of pure noise beside every batch, for balanced data.

Source: Zada, Benou and Irani 2022, section 5 ("a noise-to-real ratio of 1:4 in each batch"); that
the noise is appended and its labels are drawn uniformly is from Lee and Lee 2023, section 4.1.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from purenoise_jax import rng
from purenoise_jax.errors import ConfigError
from purenoise_jax.methods.noise_source import noise_source
from purenoise_jax.recipe import Batch, DataStats, Recipe


def append_noise(
    recipe: Recipe,
    stats: DataStats,
    *,
    share: float = 0.25,
    space: str = "pixel",
    noise_stats: str = "train_subset",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    clip: bool = True,
) -> Recipe:
    """Appends noise images with uniformly drawn labels; natural rows stay as they are.

    A batch of B rows becomes one of B + floor(share * B). Where padding fills a batch up, as many
    noise rows are padding as keeps the share of noise to real images.

    Args:
      recipe: the recipe so far.
      stats: of the training set.
      share: noise images over natural ones, in (0, 1].
      space: see `noise_source`.
      noise_stats: likewise.
      mean: likewise.
      std: likewise.
      clip: clip the noise to [0, 1].

    Raises:
      ConfigError: an argument is out of range.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"method.append.share={share} must lie in (0, 1]")
    source = noise_source(
        stats, "append", space=space, noise_stats=noise_stats, mean=mean, std=std, clip=clip
    )

    def append(key: jax.Array, batch: Batch) -> Batch:
        valid = batch["valid"]
        rows, num_noise = valid.size, math.floor(share * valid.size)
        label_key, pixel_key = rng.split(key)
        label = rng.randint(label_key, (num_noise,), 0, stats.num_classes)
        # The share of the real rows, which with padding are fewer than the batch holds.
        wanted = jnp.floor(valid.sum() * jnp.float32(share))
        added = {
            "image": source.draw(pixel_key, (num_noise, *stats.image_shape), batch["image"].dtype),
            "label": label,
            "target": jax.nn.one_hot(label, stats.num_classes, dtype=batch["target"].dtype),
            "valid": jnp.arange(num_noise) < wanted,
            "noise_mask": jnp.ones(num_noise, bool),
        }
        before = {**batch, "noise_mask": batch.get("noise_mask", jnp.zeros(rows, bool))}
        return {name: jnp.concatenate([before[name], added[name]]) for name in added}

    return dataclasses.replace(recipe, transforms=(*recipe.transforms, append))
