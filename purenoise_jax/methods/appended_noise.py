"""Appends a fixed share of pure noise images to every batch, for balanced data.

Source: Zada, Benou and Irani 2022, section 5 ("a noise-to-real ratio of 1:4 in each batch"); Lee
and Lee 2023, section 4.1, for appending the noise and drawing its labels uniformly.
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
    """Checks that the arguments fit together and fit the batch size.

    Raises:
        ConfigError: they do not; the message names them.
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
        float, Real(0, 1, above=True), "appended noise images per natural image"
    ] = 0.25,
    space: Space = "pixel",
    noise_stats: NoiseStats = "train_subset",
    mean: Mean = (),
    std: Std = (),
    clip: Clip = True,
) -> Recipe:
    """Appends noise images with uniformly drawn labels; natural rows do not change.

    A batch of B rows becomes one of B + floor(share * B) rows. If only R of the B rows are real,
    floor(share * R) noise rows are valid and the other noise rows are padding too.

    Args:
        recipe: the recipe so far.
        stats: statistics of the training set.
        share: noise images per natural image, in (0, 1].
        space: see `noise_source`.
        noise_stats: see `noise_source`.
        mean: see `noise_source`.
        std: see `noise_source`.
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
        # Indexed by the number of real rows, which padding makes smaller than the batch.
        noise_rows = np.array([num_noise_rows(share, real) for real in range(rows + 1)], np.int32)
        num_noise = int(noise_rows[-1])
        label_key, pixel_key = rng.split(key)
        label = rng.randint(label_key, (num_noise,), 0, stats.num_classes)
        num_valid = jnp.asarray(noise_rows)[valid.sum()]
        added = {
            "image": source.draw(pixel_key, (num_noise, *stats.image_shape), batch["image"].dtype),
            "label": label,
            "target": jax.nn.one_hot(label, stats.num_classes, dtype=batch["target"].dtype),
            "valid": jnp.arange(num_noise) < num_valid,
            "noise_mask": jnp.ones(num_noise, bool),
        }
        if "second" in batch:
            added["second"] = added["image"]
        before = {**batch, "noise_mask": batch.get("noise_mask", jnp.zeros(rows, bool))}
        return {name: jnp.concatenate([before[name], added[name]]) for name in added}

    return dataclasses.replace(recipe, transforms=(*recipe.transforms, append))


def num_noise_rows(share: float, real_rows: int) -> int:
    """Returns exactly floor(share * real_rows): 29 for 0.29 of 100, which is below 29 in floats."""
    return math.floor(as_meant(share) * real_rows)
