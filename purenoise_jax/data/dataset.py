"""The data set class that every source returns, and the checks of its arrays."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from purenoise_jax.data.host_images import HostImages, Images, subset
from purenoise_jax.data.labels import as_labels
from purenoise_jax.runtime.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled image data set, in memory or, as `HostImages`, in files.

    Attributes:
        name: name for messages and logs, for example `"cifar10"`.
        train_images: `uint8[N, H, W, C]`, values 0..255, C is 1 or 3.
        train_labels: `int32[N]`, values 0..K-1.
        test_images: `uint8[M, H, W, C]`, same H, W and C as the training images; M is 0 without a
            test set.
        test_labels: `int32[M]`, values 0..K-1.
        class_names: the K class names in label order.
        val_images: `uint8[V, H, W, C]`, or None if the source has no validation split.
        val_labels: `int32[V]`, or None if the source has no validation split.
        content: sha256, in hex, that identifies images and labels; "" = computed from the pixels.
        left_out: one line about each image that could not be read and was left out.
        train_groups: `int32[N]`, the same number for training images that stay together when some
            are held out; None = there are no groups.
    """

    name: str
    train_images: Images
    train_labels: np.ndarray
    test_images: Images
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    val_images: Images | None = None
    val_labels: np.ndarray | None = None
    content: str = ""
    left_out: tuple[str, ...] = ()
    train_groups: np.ndarray | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return len(self.class_names)

    @property
    def shown(self) -> str:
        """The split whose numbers are a run's: "test", or "val" without a test set."""
        return "test" if len(self.test_labels) else "val"

    @property
    def shown_images(self) -> tuple[Images, np.ndarray]:
        """Images and labels of the split `shown`."""
        if self.shown == "val" and self.val_images is not None and self.val_labels is not None:
            return self.val_images, self.val_labels
        return self.test_images, self.test_labels


def without_test(dataset: Dataset) -> Dataset:
    """Returns a data set whose test images are left out, as if there were none."""
    return dataclasses.replace(
        dataset,
        test_images=no_images(dataset.test_images),
        test_labels=np.zeros(0, dataset.test_labels.dtype),
    )


def no_images(like: Images) -> np.ndarray:
    """Returns the images of a split that has none, `uint8[0, H, W, C]`, with the size of others."""
    return np.zeros((0, *like.shape[1:]), np.uint8)


def check_dataset(dataset: Dataset) -> Dataset:
    """Checks shapes, dtypes and labels of every split.

    Args:
        dataset: from a loader. Labels may have any integer dtype, and the shape `[N, 1]`.

    Returns:
        The same data set with its labels as `int32[N]`.

    Raises:
        DataError: the images are not `uint8[N, H, W, C]` with C 1 or 3, there is no training image,
            the splits differ in image shape, the counts of images and labels differ, or a label is
            not an integer in 0..K-1. The message names the split and the first offending labels.
    """
    if dataset.num_classes < 2:
        raise DataError(f"{dataset.name}: there must be two classes, got {dataset.class_names}")
    if (dataset.val_images is None) != (dataset.val_labels is None):
        raise DataError(f"{dataset.name}: validation images and labels must come together")

    splits: dict[str, tuple[Any, Any]] = {
        "train": (dataset.train_images, dataset.train_labels),
        "test": (dataset.test_images, dataset.test_labels),
    }
    if dataset.val_images is not None:
        splits["val"] = (dataset.val_images, dataset.val_labels)

    labels: dict[str, np.ndarray] = {}
    for split, (split_images, split_labels) in splits.items():
        where = f"{dataset.name}, split {split}"
        _check_images(where, split_images, may_be_none=split == "test")
        flat = as_labels(
            where, split_labels, images=len(split_images), num_classes=dataset.num_classes
        )
        if split_images.shape[1:] != dataset.train_images.shape[1:]:
            raise DataError(
                f"{where}: images are {_shape(split_images)} but the training images are "
                f"{_shape(dataset.train_images)}"
            )
        labels[split] = flat.astype(np.int32, copy=False)
    return dataclasses.replace(
        dataset,
        train_labels=labels["train"],
        test_labels=labels["test"],
        val_labels=labels.get("val"),
    )


def _check_images(where: str, images: Any, may_be_none: bool) -> None:
    if not isinstance(images, np.ndarray | HostImages) or images.dtype != np.uint8:
        seen = getattr(images, "dtype", type(images).__name__)
        raise DataError(f"{where}: images must be a uint8 array, got {seen}")
    if images.ndim != 4:
        raise DataError(f"{where}: images must be [N, H, W, C], got shape {images.shape}")
    if images.shape[3] not in (1, 3):
        raise DataError(f"{where}: images must have 1 or 3 channels, got {images.shape[3]}")
    if images.size == 0 and not (may_be_none and len(images) == 0):
        raise DataError(f"{where}: there are no images, shape {images.shape}")


def _shape(images: Images) -> str:
    return " x ".join(str(size) for size in images.shape[1:])


def keep_classes(dataset: Dataset, classes: Sequence[int]) -> Dataset:
    """Keeps the images of some classes, in file order, of every split.

    Args:
        dataset: checked.
        classes: their labels, which become 0, 1, ... in this order; () = all classes as they are.

    Raises:
        ConfigError: the data set has no such class.
    """
    if not classes:
        return dataset
    unknown = [k for k in classes if not 0 <= k < dataset.num_classes]
    if unknown:
        raise ConfigError(
            f"data.classes={tuple(classes)}: {dataset.name} has no class {unknown[0]}; legal: "
            f"0 .. {dataset.num_classes - 1}"
        )
    new_labels = np.full(dataset.num_classes, -1, np.int32)
    new_labels[list(classes)] = np.arange(len(classes))

    def of_classes(images: Images, labels: np.ndarray) -> tuple[Images, np.ndarray]:
        index = np.flatnonzero(new_labels[labels] >= 0)
        return subset(images, index), new_labels[labels[index]]

    train_images, train_labels = of_classes(dataset.train_images, dataset.train_labels)
    test_images, test_labels = of_classes(dataset.test_images, dataset.test_labels)
    val_images, val_labels = dataset.val_images, dataset.val_labels
    if val_images is not None and val_labels is not None:
        val_images, val_labels = of_classes(val_images, val_labels)
        if not len(val_labels):
            val_images = val_labels = None
    groups = dataset.train_groups
    if groups is not None:
        groups = groups[new_labels[dataset.train_labels] >= 0]
    content = f"{dataset.content} classes {' '.join(map(str, classes))}"
    return dataclasses.replace(
        dataset,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple(dataset.class_names[k] for k in classes),
        val_images=val_images,
        val_labels=val_labels,
        content=hashlib.sha256(content.encode()).hexdigest() if dataset.content else "",
        train_groups=groups,
    )


def limit_test(dataset: Dataset, limit: int) -> Dataset:
    """Keeps the first `limit` test (and validation) images of each class; 0 = all."""
    if not limit:
        return dataset

    def first(images: Images, labels: np.ndarray) -> tuple[Images, np.ndarray]:
        kept = [np.flatnonzero(labels == k)[:limit] for k in range(dataset.num_classes)]
        index = np.sort(np.concatenate(kept))
        return subset(images, index), labels[index]

    test_images, test_labels = first(dataset.test_images, dataset.test_labels)
    smaller = dataclasses.replace(dataset, test_images=test_images, test_labels=test_labels)
    if dataset.val_images is not None and dataset.val_labels is not None:
        val_images, val_labels = first(dataset.val_images, dataset.val_labels)
        smaller = dataclasses.replace(smaller, val_images=val_images, val_labels=val_labels)
    return smaller
