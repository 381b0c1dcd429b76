"""A fixed share of pure noise beside every batch, for balanced data.

Source: Zada, Benou and Irani 2022, section 5 ("a noise-to-real ratio of 1:4 in each batch"); that
the noise is appended and its labels are drawn uniformly is from Lee and Lee 2023, section 4.1.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.noise_source import (
    Clip,
    Mean,
    NoiseStats,
    Space,
    Std,
    check_noise,
    noise_source,
)
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.constraints import Real
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.exact import as_meant


def check(arguments: Mapping[str, Any], batch_size: int) -> None:
    """Refuses arguments that do not go together, or with the size of a batch.

    Raises:
        ConfigError: naming the arguments.
    """
    check_noise("append", arguments)
    share = arguments["share"]
    if num_noise_rows(share, batch_size) < 1:
        raise ConfigError(
            f"method.append.share={share} of batch_size={batch_size} is less than one noise image; "
            f"legal: at least {1 / batch_size:g}"
        )


def append_noise(
    recipe: Recipe,
    stats: DataStats,
    *,
    share: Annotated[
        float, Real(0, 1, above=True), "appended noise images over natural ones"
    ] = 0.25,
    space: Space = "pixel",
    noise_stats: NoiseStats = "train_subset",
    mean: Mean = (),
    std: Std = (),
    clip: Clip = True,
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
        rows = valid.size
        # By number of real rows, which with padding are fewer than the batch holds.
        noise_rows = np.array([num_noise_rows(share, real) for real in range(rows + 1)], np.int32)
        num_noise = int(noise_rows[-1])
        label_key, pixel_key = rng.split(key)
        label = rng.randint(label_key, (num_noise,), 0, stats.num_classes)
        wanted = jnp.asarray(noise_rows)[valid.sum()]
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


def num_noise_rows(share: float, real_rows: int) -> int:
    """floor(share * real_rows), exact: 29 for 0.29 of 100, where floats make 28.999999999999996."""
    return math.floor(as_meant(share) * real_rows)
