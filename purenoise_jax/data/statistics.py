"""Statistics of a training set: class counts and moments of the pixels."""

import dataclasses

import numpy as np

from purenoise_jax.data.host_images import Images, channel_histograms


@dataclasses.dataclass(frozen=True)
class DataStats:
    """The facts about the training set that methods receive.

    Attributes:
        class_counts: int64[K], training images per class.
        image_shape: (H, W, C).
        mean, std: f32[C], per channel over the training subset, pixels in [0, 1].
        full_mean, full_std: f32[C], the same over the training split before subsetting.
        normalize_mean, normalize_std: f32[C], for the normalisation of the network's input.
    """

    class_counts: np.ndarray
    image_shape: tuple[int, int, int]
    mean: np.ndarray
    std: np.ndarray
    full_mean: np.ndarray
    full_std: np.ndarray
    normalize_mean: np.ndarray
    normalize_std: np.ndarray

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return len(self.class_counts)


def channel_moments(images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, pixels in [0, 1].

    Exact, because they are computed from the histogram of each channel.

    Args:
        images: uint8[N, H, W, C].

    Returns:
        mean f32[C] and std f32[C].

    Source: Zada et al. 2022, equation 2.
    """
    values = np.arange(256) / 255
    mean, std = [], []
    for count in channel_histograms(images):
        share = count / count.sum()
        mean.append(share @ values)
        std.append(np.sqrt(share @ np.square(values - mean[-1])))
    return np.array(mean, np.float32), np.array(std, np.float32)
