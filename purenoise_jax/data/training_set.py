"""Builds a training set: cuts the long-tailed subset of a data set and measures it."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.longtail import (
    count_classes,
    fingerprint,
    long_tail_indices,
    read_indices,
    thin,
)
from purenoise_jax.data.statistics import DataStats, channel_moments
from purenoise_jax.runtime.errors import ConfigError, DataError, unknown

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
        dataset: from a source.
        imbalance_ratio: largest over smallest class, see `long_tail_indices`.
        profile: "exp", "step" or "natural", see `long_tail_indices`.
        rule: "cao" or "first", see `long_tail_indices`.
        seed: of the rule "cao".
        indices: a file of indices that replaces the rule; "" for none.
        normalize: the statistics that normalise the network's input: "train_subset", "full_train",
            or "explicit" (`normalize_mean` and `normalize_std`).
        normalize_mean: C numbers, only used by "explicit".
        normalize_std: C numbers, only used by "explicit".
        limit: images that the largest class may keep, see `longtail.thin`; 0 = all.

    Raises:
        ConfigError: an argument is out of range.
        DataError: a class has no image, here or in the test set, or a channel is constant.
    """
    absent = np.flatnonzero(count_classes(dataset.test_labels, dataset.num_classes) == 0)
    if absent.size:
        raise DataError(
            f"{dataset.name}, split test: there is no image of classes {absent[:10].tolist()}, so "
            "their accuracy could not be measured"
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
            f"the training set has no image of classes {empty[:10].tolist()} "
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
    """Returns the sha256, in hex, of every pixel and label.

    A run compares it before it continues, so that it only continues with the same data.

    Args:
        splits: images uint8[N, H, W, C] and labels int[N] of each; 184 MB take 0.1 s.
    """
    digest = hashlib.sha256()
    for images, labels in splits:
        digest.update(f"{images.shape}".encode())
        digest.update(np.ascontiguousarray(images))
        digest.update(np.ascontiguousarray(labels, "<i4"))
    return digest.hexdigest()
