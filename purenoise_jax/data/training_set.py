"""Builds a training set: holds images out of a data set, cuts a long-tailed subset, measures it."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.decoded_images import DecodedImages
from purenoise_jax.data.held_out import hold_out, in_fold
from purenoise_jax.data.host_images import Images, chunks, row_digests, subset
from purenoise_jax.data.longtail import (
    count_classes,
    fingerprint,
    long_tail_indices,
    read_indices,
    thin,
)
from purenoise_jax.data.statistics import DataStats, channel_moments
from purenoise_jax.runtime.errors import (
    ConfigError,
    DataError,
    NothingToMeasureError,
    counted,
    unknown,
)

NORMALIZE = ("train_subset", "full_train", "explicit")


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """A long-tailed training set, and the images that were held out of it.

    Attributes:
        images: uint8[N, H, W, C].
        labels: int32[N] in [0, K).
        stats: see `DataStats`.
        fingerprint: sha256 of the chosen indices, see `longtail.fingerprint`.
        content: sha256 over these images and labels and those of the other splits, or
            `Dataset.content`.
        val_images: uint8[V, H, W, C], held out for validation; None = none are.
        val_labels: int32[V]; None = none are held out.
        test_images: uint8[M, H, W, C], held out to test with; None = none are.
        test_labels: int32[M]; None = none are held out.
        shared: one line for each two splits that have images in common.
    """

    images: Images
    labels: np.ndarray
    stats: DataStats
    fingerprint: str
    content: str
    val_images: Images | None = None
    val_labels: np.ndarray | None = None
    test_images: Images | None = None
    test_labels: np.ndarray | None = None
    shared: tuple[str, ...] = ()

    @property
    def num_held_out(self) -> int:
        """The number of images that were held out for validation and test."""
        return sum(len(part) for part in (self.val_labels, self.test_labels) if part is not None)


@dataclasses.dataclass(frozen=True)
class HoldOut:
    """Rules for images that are held out of the training images, named as the fields of `data`.

    Attributes:
        test_fraction: share of each class for the test, see `held_out_counts`; 0 = none.
        val_fraction: share of each class of the others for validation; 0 = none.
        val_per_class: instead of a share: images of each class.
        folds: instead of a share: number of parts, one of which is for validation; 0 = none.
        fold: that part, counted from 0.
        group_column: column of a table with the groups that stay together; "" = there are none.
    """

    test_fraction: float = 0.0
    val_fraction: float = 0.0
    val_per_class: int = 0
    folds: int = 0
    fold: int = 0
    group_column: str = ""

    @property
    def val_rule(self) -> str:
        """The rule for validation images in words; "" if none are held out."""
        by = f", by {self.group_column}" if self.group_column else ""
        if self.folds:
            return f"fold {self.fold} of {self.folds}{by}"
        if self.val_per_class:
            return f"{self.val_per_class} of each class"
        return f"a share of each class{by}" if self.val_fraction else ""

    @property
    def fields(self) -> str:
        """The fields with their values that hold validation images out."""
        if self.folds:
            return f"data.folds={self.folds}"
        if self.val_per_class:
            return f"data.val_per_class={self.val_per_class}"
        return f"data.val_fraction={self.val_fraction:g}"


NOTHING = HoldOut()


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
    held_out: HoldOut = NOTHING,
    class_counts: Sequence[int] = (),
    measured: bool = True,
) -> TrainingSet:
    """Holds test images out, cuts the subset, holds validation images out, measures the rest.

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
        held_out: rules for images that are held out of the training images.
        class_counts: images of each class instead of ratio and profile, before any are held out
            for validation; () = by the profile.
        measured: refuse data without test and validation images.

    Raises:
        ConfigError: an argument is out of range, or the data set has images of its own for what is
            to be held out, or there is nothing to measure with.
        DataError: a class has no image, here or in the test set of a balanced benchmark, or a
            channel is constant.
    """
    is_test = _test_images(dataset, held_out.test_fraction, seed)
    test_labels = dataset.train_labels[is_test] if is_test.any() else dataset.test_labels
    absent = np.flatnonzero(count_classes(test_labels, dataset.num_classes) == 0)
    # Natural data are as they are: the accuracy of such a class does not exist.
    if absent.size and len(test_labels) and profile != "natural":
        raise DataError(
            f"{dataset.name}, split test: there is no image of classes {_named(absent, dataset)}, "
            "so their accuracy could not be measured"
        )
    others = np.flatnonzero(~is_test)
    absent = np.flatnonzero(count_classes(dataset.train_labels[others], dataset.num_classes) == 0)
    if absent.size:
        raise DataError(
            f"{dataset.name}: there is no training image of classes {_named(absent, dataset)}; "
            "every class needs at least one"
        )
    if indices:
        chosen = read_indices(indices, len(dataset.train_labels))
        chosen = chosen[~is_test[chosen]]
    else:
        chosen = others[
            long_tail_indices(
                dataset.train_labels[others],
                imbalance_ratio=imbalance_ratio,
                profile=profile,
                rule=rule,
                seed=seed,
                class_counts=class_counts,
            )
        ]
    if limit:
        chosen = thin(chosen, dataset.train_labels, limit)
    val = np.zeros(0, np.int64)
    if held_out.val_rule:
        chosen, val = _without_validation(dataset, chosen, held_out, seed)
    images, labels = subset(dataset.train_images, chosen), dataset.train_labels[chosen]
    kept_counts = count_classes(labels, dataset.num_classes)
    empty = np.flatnonzero(kept_counts == 0)
    if empty.size:
        raise DataError(
            f"the training set has no image of classes {_named(empty, dataset)} "
            f"(class counts {kept_counts.tolist()[:20]}); every class needs at least one"
        )
    mean, std = channel_moments(images)
    whole = subset(dataset.train_images, others) if is_test.any() else dataset.train_images
    full_mean, full_std = channel_moments(whole)
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
        class_counts=kept_counts,
        image_shape=(height, width, channels),
        mean=mean,
        std=std,
        full_mean=full_mean,
        full_std=full_std,
        normalize_mean=norm_mean,
        normalize_std=norm_std,
    )
    splits = {"training": (images, labels), "test": (dataset.test_images, dataset.test_labels)}
    if dataset.val_images is not None and dataset.val_labels is not None:
        splits["validation"] = (dataset.val_images, dataset.val_labels)
    drawn = {"test": np.flatnonzero(is_test), "validation": val}
    for split, index in drawn.items():
        if index.size:
            splits[split] = subset(dataset.train_images, index), dataset.train_labels[index]
    if measured and not len(splits["test"][1]) and "validation" not in splits:
        raise NothingToMeasureError(
            f"{dataset.name} has no test images and no validation images, so nothing could be "
            "measured; legal: data.val_fraction=0.2 or another rule for validation images, "
            "data.test_fraction=0.2, or both; or eval.test=optional, to train on all"
        )
    contents = read_contents([*splits.values()])
    shared = shared_lines(dict(zip(splits, contents.digests, strict=True)))
    held = {split: splits[split] if index.size else (None, None) for split, index in drawn.items()}
    return TrainingSet(
        images,
        labels,
        stats,
        fingerprint(chosen),
        dataset.content or contents.sha256,
        val_images=held["validation"][0],
        val_labels=held["validation"][1],
        test_images=held["test"][0],
        test_labels=held["test"][1],
        shared=shared,
    )


def _test_images(dataset: Dataset, fraction: float, seed: int) -> np.ndarray:
    """Draws the images that are held out to test with, bool[N]."""
    if not fraction:
        return np.zeros(len(dataset.train_labels), bool)
    if len(dataset.test_labels):
        raise ConfigError(
            f"data.test_fraction={fraction:g}: {dataset.name} has test images of its own; legal: 0"
        )
    return hold_out(
        dataset.train_labels,
        dataset.num_classes,
        fraction=fraction,
        per_class=0,
        seed=seed,
        split="test",
        groups=dataset.train_groups,
    )


def _without_validation(
    dataset: Dataset, chosen: np.ndarray, rule: HoldOut, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits the indices of a subset into those that train and those held out for validation."""
    if dataset.val_images is not None:
        raise ConfigError(
            f"{rule.fields}: {dataset.name} has validation images of its own; legal: 0"
        )
    labels, classes = dataset.train_labels[chosen], dataset.num_classes
    groups = None if dataset.train_groups is None else dataset.train_groups[chosen]
    if rule.folds:
        is_val = in_fold(
            labels, classes, folds=rule.folds, fold=rule.fold, seed=seed, groups=groups
        )
    else:
        is_val = hold_out(
            labels,
            classes,
            fraction=rule.val_fraction,
            per_class=rule.val_per_class,
            seed=seed,
            groups=groups,
        )
    return chosen[~is_val], chosen[is_val]


class Contents(NamedTuple):
    """The content of splits.

    Attributes:
        sha256: in hex, of every pixel and label.
        digests: uint64[N] of the images of each split, see `host_images.row_digests`.
    """

    sha256: str
    digests: list[np.ndarray]


def read_contents(splits: Iterable[tuple[Images, np.ndarray]]) -> Contents:
    """Reads every pixel and label; of images that are decoded from files only their manifest.

    A run compares it before it continues, so that it only continues with the same data.

    Args:
        splits: images uint8[N, H, W, C] and labels int[N] of each.
    """
    digest, digests = hashlib.sha256(), []
    for images, labels in splits:
        digest.update(f"{images.shape}".encode())
        if isinstance(images, DecodedImages):
            digests.append(images.digests())
            digest.update(digests[-1])
        else:
            parts = [np.zeros(0, np.uint64)]
            for chunk in chunks(images):
                digest.update(np.ascontiguousarray(chunk))
                parts.append(row_digests(chunk))
            digests.append(np.concatenate(parts))
        digest.update(np.ascontiguousarray(labels, "<i4"))
    return Contents(digest.hexdigest(), digests)


def content_digest(splits: Iterable[tuple[Images, np.ndarray]]) -> str:
    """Returns the sha256, in hex, of every pixel and label; see `read_contents`."""
    return read_contents(splits).sha256


def shared_lines(digests: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Describes the images that two splits have in common, a line for each two.

    Args:
        digests: by split, uint64[N].
    """
    lines = []
    for first, second in itertools.combinations(digests, 2):
        count = int(np.isin(digests[second], digests[first]).sum())
        if count:
            are = f"is a {first} image" if count == 1 else f"are {first} images"
            lines.append(
                f"{count:,} of {counted(len(digests[second]), f'{second} image')} {are} too, "
                f"with the same content, so {second} results are too good"
            )
    return tuple(lines)


def _named(classes: np.ndarray, dataset: Dataset) -> str:
    """The first ten of int[A] labels, and the names of these classes, for a message."""
    first = classes[:10].tolist()
    return f"{first} ({', '.join(repr(dataset.class_names[label]) for label in first)})"
