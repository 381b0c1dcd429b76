"""Builds a training set: cuts the long-tailed subset of a data set and measures it."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.held_out import hold_out
from purenoise_jax.data.host_images import Images, chunks, subset
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
        content: sha256 over these images and labels and those of the other splits, or
            `Dataset.content`.
        val_images: uint8[V, H, W, C], held out for validation; None = none are.
        val_labels: int32[V]; None = none are held out.
    """

    images: Images
    labels: np.ndarray
    stats: DataStats
    fingerprint: str
    content: str
    val_images: Images | None = None
    val_labels: np.ndarray | None = None


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
    val_fraction: float = 0.0,
    val_per_class: int = 0,
) -> TrainingSet:
    """Cuts the long-tailed subset, holds validation images out of it, and measures the rest.

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
        val_fraction: share of each class that is held out, see `held_out_counts`; 0 = none.
        val_per_class: images of each class that are held out; 0 = none.

    Raises:
        ConfigError: an argument is out of range, or the data set has validation images already.
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
    val = np.zeros(0, np.int64)
    if val_fraction or val_per_class:
        chosen, val = _without_validation(dataset, chosen, val_fraction, val_per_class, seed)
    images, labels = subset(dataset.train_images, chosen), dataset.train_labels[chosen]
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
    val_images, val_labels = dataset.val_images, dataset.val_labels
    if val.size:
        val_images, val_labels = subset(dataset.train_images, val), dataset.train_labels[val]
    splits = [(images, labels), (dataset.test_images, dataset.test_labels)]
    if val_images is not None and val_labels is not None:
        splits.append((val_images, val_labels))
    content = dataset.content or content_digest(splits)
    held_out = (val_images, val_labels) if val.size else (None, None)
    return TrainingSet(images, labels, stats, fingerprint(chosen), content, *held_out)


def _without_validation(
    dataset: Dataset, chosen: np.ndarray, fraction: float, per_class: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits the indices of a subset into those that train and those held out for validation."""
    field = f"data.val_fraction={fraction:g}" if fraction else f"data.val_per_class={per_class}"
    if dataset.val_images is not None:
        raise ConfigError(f"{field}: {dataset.name} has validation images of its own; legal: 0")
    held_out = hold_out(
        dataset.train_labels[chosen],
        dataset.num_classes,
        fraction=fraction,
        per_class=per_class,
        seed=seed,
    )
    return chosen[~held_out], chosen[held_out]


def content_digest(splits: Iterable[tuple[Images, np.ndarray]]) -> str:
    """Returns the sha256, in hex, of every pixel and label.

    A run compares it before it continues, so that it only continues with the same data.

    Args:
        splits: images uint8[N, H, W, C] and labels int[N] of each; 184 MB take 0.1 s.
    """
    digest = hashlib.sha256()
    for images, labels in splits:
        digest.update(f"{images.shape}".encode())
        for chunk in chunks(images):
            digest.update(np.ascontiguousarray(chunk))
        digest.update(np.ascontiguousarray(labels, "<i4"))
    return digest.hexdigest()
