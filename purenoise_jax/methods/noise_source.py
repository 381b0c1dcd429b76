"""Pure noise of a method: its distribution, and the space in which it enters the network."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from jax.typing import DTypeLike

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.noise import draw_noise
from purenoise_jax.runtime.constraints import (
    OneOf,
    PerChannel,
    Real,
    Switch,
    refuse_idle_statistics,
)
from purenoise_jax.runtime.errors import ConfigError, unknown

SPACES = ("pixel", "raw")
STATS = ("train_subset", "full_train", "explicit")

# Arguments of every method that draws noise.
Space = Annotated[
    str, OneOf(SPACES), "pixel: noise is normalised with the images; raw: it enters as drawn"
]
NoiseStats = Annotated[str, OneOf(STATS), "source of the noise's mean and standard deviation"]
Mean = Annotated[
    Sequence[float],
    PerChannel(Real(-math.inf)),
    "with noise_stats=explicit: mean of the noise, one number per channel",
]
Std = Annotated[
    Sequence[float],
    PerChannel(Real(0)),
    "with noise_stats=explicit: standard deviation of the noise, one number per channel",
]
Clip = Annotated[bool, Switch(), "clip noise to [0, 1]"]


class NoiseSource(NamedTuple):
    """A distribution of pure noise images.

    Attributes:
        mean, std: f32[C], for pixels in [0, 1] or, in raw space, in units of normalised images.
        clip: True = clip the noise to [0, 1].
        raw: True = noise enters the network as drawn, next to normalised images.
        normalize_mean, normalize_std: f32[1, 1, 1, C], by which the step normalises all images.
    """

    mean: np.ndarray
    std: np.ndarray
    clip: bool
    raw: bool
    normalize_mean: np.ndarray
    normalize_std: np.ndarray

    def draw(
        self, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = np.float32
    ) -> jax.Array:
        """Draws noise images [B, H, W, C] for a batch that is not normalised yet."""
        noise = draw_noise(key, shape, mean=self.mean, std=self.std, clip=self.clip, dtype=dtype)
        if self.raw:
            # Undoes in advance the normalisation that the step applies to all rows.
            noise = noise * self.normalize_std + self.normalize_mean
        return noise


def check_noise(method: str, arguments: Mapping[str, Any]) -> None:
    """Checks that `mean` and `std` are given if, and only if, `noise_stats` is "explicit".

    Args:
        method: name of the method, for messages.
        arguments: arguments of the method, by name.

    Raises:
        ConfigError: they are not; the message names both arguments.
    """
    names = {f"method.{method}.{name}": arguments[name] for name in ("mean", "std")}
    refuse_idle_statistics(f"method.{method}.noise_stats", arguments["noise_stats"], names)


def noise_source(
    stats: DataStats,
    method: str,
    *,
    space: str,
    noise_stats: str,
    mean: Sequence[float],
    std: Sequence[float],
    clip: bool,
) -> NoiseSource:
    """Checks a method's noise arguments and builds its noise source.

    Args:
        stats: statistics of the training set.
        method: name of the method, for messages.
        space: "pixel" = noise is an image like any other and is normalised with the batch; "raw" =
            noise enters the network as drawn, next to normalised images (Lee and Lee 2023).
        noise_stats: source of the noise's mean and standard deviation: "train_subset" (Zada et al.
            2022), "full_train" (before the long tail was cut), or "explicit" (`mean` and `std`).
        mean: C numbers, for "explicit", in the units in which the noise is drawn.
        std: C numbers of at least 0, for "explicit", in the same units.
        clip: clip the noise to [0, 1].

    Raises:
        ConfigError: an argument is out of range.
    """
    for field, value, legal in (("space", space, SPACES), ("noise_stats", noise_stats, STATS)):
        if value not in legal:
            raise unknown(f"method.{method}.{field}", value, legal)
    channels = stats.image_shape[-1]
    noise_mean, noise_std = {
        "train_subset": (stats.mean, stats.std),
        "full_train": (stats.full_mean, stats.full_std),
        "explicit": (np.asarray(mean, np.float32), np.asarray(std, np.float32)),
    }[noise_stats]
    for field, values in (("mean", noise_mean), ("std", noise_std)):
        if values.shape != (channels,) or not np.isfinite(values).all():
            raise ConfigError(
                f"method.{method}.{field}={tuple(values.tolist())} must be {channels} finite "
                "numbers, one per channel"
            )
    if (noise_std < 0).any():
        raise ConfigError(f"method.{method}.std={tuple(noise_std.tolist())} must not be negative")
    undo_mean, undo_std = (
        np.reshape(x, (1, 1, 1, channels)) for x in (stats.normalize_mean, stats.normalize_std)
    )
    return NoiseSource(noise_mean, noise_std, clip, space == "raw", undo_mean, undo_std)
