"""OPeN: oversampling with pure noise images.

Source: Zada, Benou and Irani 2022, section 3.1 and algorithm 1. The variants `space="raw"`,
`noise_stats="explicit"` are those of the published reproduction (Lee and Lee 2023).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.errors import ConfigError, unknown
from purenoise_jax.methods.resampling import balance
from purenoise_jax.noise import replace_probs, replace_with_noise
from purenoise_jax.recipe import Batch, DataStats, Recipe

SPACES = ("pixel", "raw")
STATS = ("train_subset", "full_train", "explicit")


class NoiseLaw(NamedTuple):
    """What noise images of a run are like.

    Attributes:
      mean, std: f32[C], of the normal distribution of each channel.
      clip: clipped to [0, 1].
      space: "pixel" or "raw", see `pure_noise`.
    """

    mean: np.ndarray
    std: np.ndarray
    clip: bool
    space: str


def noise_law(
    stats: DataStats,
    *,
    space: str = "pixel",
    noise_stats: str = "train_subset",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    clip: bool = True,
) -> NoiseLaw:
    """What the noise is like that `pure_noise` draws with the same arguments.

    Raises:
      ConfigError: an argument is out of range.
    """
    for field, value, legal in (("space", space, SPACES), ("noise_stats", noise_stats, STATS)):
        if value not in legal:
            raise unknown(f"method.open.{field}", value, legal)
    channels = stats.image_shape[-1]
    noise_mean, noise_std = {
        "train_subset": (stats.mean, stats.std),
        "full_train": (stats.full_mean, stats.full_std),
        "explicit": (np.asarray(mean, np.float32), np.asarray(std, np.float32)),
    }[noise_stats]
    for field, values in (("mean", noise_mean), ("std", noise_std)):
        if values.shape != (channels,) or not np.isfinite(values).all():
            raise ConfigError(
                f"method.open.{field}={tuple(values.tolist())} must be {channels} finite numbers, "
                "one per channel"
            )
    if (noise_std < 0).any():
        raise ConfigError(f"method.open.std={tuple(noise_std.tolist())} must not be negative")
    return NoiseLaw(noise_mean, noise_std, clip, space)


def pure_noise(
    recipe: Recipe,
    stats: DataStats,
    *,
    delta: float = 1 / 3,
    space: str = "pixel",
    noise_stats: str = "train_subset",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    clip: bool = True,
) -> Recipe:
    """Draws classes uniformly and replaces images of rare classes by noise.

    Args:
      recipe: the recipe so far.
      stats: of the training set.
      delta: the ratio between pure noise and natural images, in [0, 1].
      space: "pixel" = noise is an image like any other and is normalised with the batch; "raw" =
        noise enters the network as it was drawn, next to normalised images.
      noise_stats: whose mean and standard deviation the noise has: "train_subset" (the paper),
        "full_train" (before the long tail was cut), or "explicit" (`mean` and `std`).
      mean: C numbers, for "explicit", in the units in which the noise is drawn.
      std: likewise.
      clip: clip the noise to [0, 1].

    Raises:
      ConfigError: an argument is out of range.
    """
    law = noise_law(stats, space=space, noise_stats=noise_stats, mean=mean, std=std, clip=clip)
    probs = replace_probs(stats.class_counts, delta)

    undo_mean, undo_std = (
        np.reshape(x, (1, 1, 1, x.size)) for x in (stats.normalize_mean, stats.normalize_std)
    )

    def add_noise(key: jax.Array, batch: Batch) -> Batch:
        images, noise_mask = replace_with_noise(
            key,
            batch["image"],
            batch["label"],
            replace_probs=probs,
            mean=law.mean,
            std=law.std,
            clip=law.clip,
        )
        if space == "raw":
            # Undoes in advance the normalisation that all rows are about to get.
            raw = images * undo_std + undo_mean
            images = jnp.where(noise_mask[:, None, None, None], raw, images)
        return {**batch, "image": images, "noise_mask": noise_mask}

    return dataclasses.replace(balance(recipe, stats), transforms=(*recipe.transforms, add_noise))
