"""What the noise of a recipe looks like, and in which space it enters the network."""

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
Space = Annotated[str, OneOf(SPACES), "noise is normalised with the images, or enters raw"]
NoiseStats = Annotated[str, OneOf(STATS), "whose mean and standard deviation noise has"]
Mean = Annotated[
    Sequence[float], PerChannel(Real(-math.inf)), "for explicit: one number per channel"
]
Std = Annotated[Sequence[float], PerChannel(Real(0)), "for explicit: one number per channel"]
Clip = Annotated[bool, Switch(), "clip noise to [0, 1]"]


class NoiseSource(NamedTuple):
    """How pure noise images are drawn.

    Attributes:
        mean, std: f32[C], in pixels [0, 1] or, in raw space, in units of normalised images.
        clip: to [0, 1].
        raw: noise enters the network as it was drawn, next to normalised images.
        normalize_mean, normalize_std: f32[1, 1, 1, C], with which all images will be normalised.
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
        """Noise images [B, H, W, C], such that normalising them gives what is to enter."""
        noise = draw_noise(key, shape, mean=self.mean, std=self.std, clip=self.clip, dtype=dtype)
        if self.raw:
            # Undoes in advance the normalisation that all rows are about to get.
            noise = noise * self.normalize_std + self.normalize_mean
        return noise


def check_noise(method: str, arguments: Mapping[str, Any]) -> None:
    """Refuses numbers that nobody would use, and explicit statistics without numbers.

    Args:
        method: named in messages.
        arguments: of the method, by name.

    Raises:
        ConfigError: naming both arguments.
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
    """Checks a method's arguments about its noise.

    Args:
        stats: of the training set.
        method: named in messages.
        space: "pixel" = noise is an image like any other and is normalised with the batch; "raw" =
            noise enters the network as it was drawn, next to normalised images (Lee and Lee 2023).
        noise_stats: whose mean and standard deviation the noise has: "train_subset" (Zada et al.
            2022), "full_train" (before the long tail was cut), or "explicit" (`mean` and `std`).
        mean: C numbers, for "explicit", in the units in which the noise is drawn.
        std: likewise.
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
