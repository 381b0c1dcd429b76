"""From a data set to what a training step reads: the subset, its statistics, arrays on devices."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.longtail import (
    count_classes,
    fingerprint,
    long_tail_indices,
    read_indices,
    thin,
)
from purenoise_jax.errors import ConfigError, DataError, unknown
from purenoise_jax.recipe import DataStats

NORMALIZE = ("train_subset", "full_train", "explicit")


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """A long-tailed training set.

    Attributes:
      images: uint8[N, H, W, C].
      labels: int32[N] in [0, K).
      stats: see `DataStats`.
      fingerprint: sha256 of the chosen indices, see `longtail.fingerprint`.
      content: sha256 over these images and labels and those of the other splits.
    """

    images: np.ndarray
    labels: np.ndarray
    stats: DataStats
    fingerprint: str
    content: str


def channel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, pixels in [0, 1] (equation 2).

    Exact: computed from the histogram of each channel.

    Args:
      images: uint8[N, H, W, C].

    Returns:
      mean f32[C] and std f32[C].
    """
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in np.moveaxis(images, -1, 0):
        share = np.bincount(channel.ravel(), minlength=256) / channel.size
        mean.append(share @ values)
        std.append(np.sqrt(share @ np.square(values - mean[-1])))
    return np.array(mean, np.float32), np.array(std, np.float32)


def make_training_set(
    dataset: Dataset,
    *,
    imbalance_ratio: float,
    profile: str,
    rule: str,
    seed: int,
    indices: str,
    normalize: str,
    normalize_mean: Sequence[float],
    normalize_std: Sequence[float],
    limit: int = 0,
) -> TrainingSet:
    """Cuts the long-tailed subset and measures it.

    Args:
      dataset: what a source gave.
      imbalance_ratio: see `long_tail_indices`.
      profile: likewise.
      rule: likewise.
      seed: likewise.
      indices: a file of indices that replaces the rule; "" for none.
      normalize: with which statistics images enter the network: "train_subset", "full_train", or
        "explicit" (`normalize_mean` and `normalize_std`, C numbers each).
      normalize_mean: for "explicit".
      normalize_std: likewise.
      limit: images that the largest class may keep, see `longtail.thin`; 0 = all.

    Raises:
      ConfigError: an argument is out of range.
      DataError: a class has no image, here or in the test set, or a channel is constant.
    """
    absent = np.flatnonzero(count_classes(dataset.test_labels, dataset.num_classes) == 0)
    if absent.size:
        raise DataError(
            f"{dataset.name}, split test: there is no image of classes {absent[:10].tolist()}, so "
            "that nothing could be measured of them"
        )
    if indices:
        chosen = read_indices(indices, len(dataset.train_labels))
    else:
        chosen = long_tail_indices(
            dataset.train_labels,
            imbalance_ratio=imbalance_ratio,
            profile=profile,
            rule=rule,
            seed=seed,
        )
    if limit:
        chosen = thin(chosen, dataset.train_labels, limit)
    images, labels = dataset.train_images[chosen], dataset.train_labels[chosen]
    class_counts = count_classes(labels, dataset.num_classes)
    empty = np.flatnonzero(class_counts == 0)
    if empty.size:
        raise DataError(
            f"the training set leaves classes {empty[:10].tolist()} with no image "
            f"(class counts {class_counts.tolist()[:20]}); every class needs at least one"
        )
    mean, std = channel_moments(images)
    full_mean, full_std = channel_moments(dataset.train_images)
    if normalize not in NORMALIZE:
        raise unknown("data.normalize", normalize, NORMALIZE)
    norm_mean, norm_std = {
        "train_subset": (mean, std),
        "full_train": (full_mean, full_std),
        "explicit": (
            np.asarray(normalize_mean, np.float32),
            np.asarray(normalize_std, np.float32),
        ),
    }[normalize]
    channels = images.shape[-1]
    for field, values in (("normalize_mean", norm_mean), ("normalize_std", norm_std)):
        if values.shape != (channels,) or not np.isfinite(values).all():
            raise ConfigError(
                f"data.{field}={tuple(values.tolist())} must be {channels} finite numbers, "
                "one per channel"
            )
    if not (norm_std > 0).all():
        raise DataError(
            f"images are normalised by their standard deviation, which is {norm_std.tolist()} "
            "per channel: it must be above 0 (are all images the same?)"
        )
    height, width = images.shape[1:3]
    stats = DataStats(
        class_counts=class_counts,
        image_shape=(height, width, channels),
        mean=mean,
        std=std,
        full_mean=full_mean,
        full_std=full_std,
        normalize_mean=norm_mean,
        normalize_std=norm_std,
    )
    splits = [(images, labels), (dataset.test_images, dataset.test_labels)]
    if dataset.val_images is not None and dataset.val_labels is not None:
        splits.append((dataset.val_images, dataset.val_labels))
    return TrainingSet(images, labels, stats, fingerprint(chosen), content_digest(splits))


def content_digest(splits: Iterable[tuple[np.ndarray, np.ndarray]]) -> str:
    """Sha256, in hex, over every pixel and label, so that a run goes on with its own data only.

    Args:
      splits: images uint8[N, H, W, C] and labels int[N] of each; 184 MB take 0.1 s.
    """
    digest = hashlib.sha256()
    for images, labels in splits:
        digest.update(f"{images.shape}".encode())
        digest.update(np.ascontiguousarray(images))
        digest.update(np.ascontiguousarray(labels, "<i4"))
    return digest.hexdigest()


class Placement:
    """Where arrays live: one mesh axis over all devices of all processes.

    Args:
      batch_size: B; must be divisible by the number of devices.
      num_devices: how many devices to use; 0 = all there are.

    Raises:
      ConfigError: more devices are wanted than there are, or B is not divisible by them.
    """

    def __init__(self, batch_size: int, num_devices: int = 0) -> None:
        devices = jax.devices()
        if num_devices > len(devices):
            raise ConfigError(
                f"num_devices={num_devices} but this machine has {len(devices)} "
                f"({devices[0].platform}); legal: 0 (all) .. {len(devices)}"
            )
        devices = devices[: num_devices or len(devices)]
        count = len(devices)
        if batch_size % count:
            lower = batch_size // count * count
            near = [size for size in (lower, lower + count) if size]
            raise ConfigError(
                f"batch_size={batch_size} is not divisible by the {count} devices; "
                f"nearest legal: {' or '.join(map(str, near))}"
            )
        self.mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.rows = NamedSharding(self.mesh, PartitionSpec(None, "data"))
        self.batch = NamedSharding(self.mesh, PartitionSpec("data"))

    @property
    def memory(self) -> int | None:
        """Bytes of each device's memory; None where JAX does not tell, as on a CPU."""
        return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")

    def check_fits(self, arrays: Iterable[np.ndarray | None]) -> None:
        """Refuses arrays that would not fit on each device, before they are sent there.

        Raises:
          DataError: they are larger than the device's memory.
        """
        needed = sum(array.nbytes for array in arrays if array is not None)
        if self.memory is not None and needed > self.memory:
            raise DataError(
                f"all images together take {needed / 2**30:,.1f} GiB, but a device has "
                f"{self.memory / 2**30:,.1f} GiB, and they lie there as a whole; use a smaller "
                "data.image_size or fewer images"
            )

    def replicate(self, array: ArrayLike) -> jax.Array:
        """A full copy on every device."""
        return self._place(array, self.replicated)

    def split_rows(self, array: ArrayLike) -> jax.Array:
        """[steps, B] with the batch axis split over the devices."""
        return self._place(array, self.rows)

    @staticmethod
    def _place(array: ArrayLike, sharding: NamedSharding) -> jax.Array:
        # Every process holds the same host array, and gives its own devices their part of it.
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])
