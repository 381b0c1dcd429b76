"""OPeN: oversampling with pure noise images.

Source: Zada, Benou and Irani 2022, section 3.1 and algorithm 1; appendix B for additive noise. The
variants `space="raw"`, `noise_stats="explicit"` are those of the published reproduction (Lee and
Lee 2023).
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.noise import add_noise, choose_rows, replace_probs
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
from purenoise_jax.methods.resampling import class_balanced_sampling
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.constraints import Real
from purenoise_jax.runtime.errors import ConfigError

ADDITIVE_HELP = (
    "0 = pure noise; above 0 = images with added noise of this standard deviation, pixels in [0, 1]"
)


def check(arguments: Mapping[str, Any], batch_size: int) -> None:
    """Checks that the arguments fit together; see `noise_source.check_noise`."""
    del batch_size
    check_noise("open", arguments)


def pure_noise(
    recipe: Recipe,
    stats: DataStats,
    *,
    delta: Annotated[float, Real(0, 1), "ratio between pure noise and natural images"] = 1 / 3,
    space: Space = "pixel",
    noise_stats: NoiseStats = "train_subset",
    mean: Mean = (),
    std: Std = (),
    clip: Clip = True,
    additive_std: Annotated[float, Real(0), ADDITIVE_HELP] = 0.0,
) -> Recipe:
    """Draws classes uniformly and replaces images of rare classes by noise.

    Args:
        recipe: the recipe so far.
        stats: statistics of the training set.
        delta: the ratio between pure noise and natural images, in [0, 1].
        space: see `noise_source`.
        noise_stats: see `noise_source`.
        mean: see `noise_source`.
        std: see `noise_source`.
        clip: clip the noise to [0, 1].
        additive_std: 0 = pure noise; above 0, the chosen rows keep their image and get Gaussian
            noise of this standard deviation added to pixels in [0, 1] (appendix B).

    Raises:
        ConfigError: an argument is out of range.
    """
    source = noise_source(
        stats, "open", space=space, noise_stats=noise_stats, mean=mean, std=std, clip=clip
    )
    if additive_std < 0 or (additive_std and source.raw):
        raise ConfigError(
            f"method.open.additive_std={additive_std} must be 0, or above 0 with "
            f"method.open.space=pixel (here {space})"
        )
    probs = replace_probs(stats.class_counts, delta)

    def replace(key: jax.Array, batch: Batch) -> Batch:
        image = batch["image"]
        # Drawn for all rows regardless of their labels, so that shapes are fixed.
        choice_key, pixel_key = rng.split(key)
        noise_mask = choose_rows(choice_key, batch["label"], probs)
        if additive_std:
            noise = add_noise(pixel_key, image, std=additive_std, clip=clip)
        else:
            noise = source.draw(pixel_key, image.shape, image.dtype)
        image = jnp.where(noise_mask[:, None, None, None], noise, image)
        return {**batch, "image": image, "noise_mask": noise_mask}

    return dataclasses.replace(
        class_balanced_sampling(recipe, stats), transforms=(*recipe.transforms, replace)
    )
