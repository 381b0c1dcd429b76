"""The checks of a data set, and the limit on its test images."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from purenoise_jax.data.dataset import Dataset, check_dataset, keep_classes, limit_test
from purenoise_jax.runtime.errors import ConfigError, DataError


def make(**changes: Any) -> Dataset:
    rng = np.random.default_rng(0)
    dataset = Dataset(
        name="tiny",
        train_images=rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
        train_labels=np.array([0, 1, 2, 0, 1, 2], np.int32),
        test_images=rng.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8),
        test_labels=np.array([0, 1, 2], np.int32),
        class_names=("a", "b", "c"),
    )
    return dataclasses.replace(dataset, **changes)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_labels_of_any_integer_dtype_become_int32(dtype: type) -> None:
    labels = np.array([2, 1, 0], dtype)
    checked = check_dataset(
        make(test_labels=labels, val_images=make().test_images, val_labels=labels)
    )
    assert checked.num_classes == 3
    for split in (checked.train_labels, checked.test_labels, checked.val_labels):
        assert split is not None
        assert split.dtype == np.int32
    np.testing.assert_array_equal(checked.test_labels, [2, 1, 0])


GOOD = make()
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "float images": ({"train_images": GOOD.train_images / 255}, "train: .*uint8.*float64"),
    "images as list": ({"train_images": [1, 2]}, "uint8.*list"),
    "int images": ({"test_images": GOOD.test_images.astype(int)}, "test: .*uint8.*int64"),
    "no channel axis": (
        {"train_images": GOOD.train_images[..., 0]},
        r"\[N, H, W, C\].*\(6, 4, 5\)",
    ),
    "two channels": ({"train_images": GOOD.train_images[..., :2]}, "1 or 3 channels, got 2"),
    "test shape": ({"test_images": GOOD.test_images[:, :3]}, "3 x 5 x 3 .* 4 x 5 x 3"),
    "test channels": ({"test_images": GOOD.test_images[..., :1]}, "4 x 5 x 1 .* 4 x 5 x 3"),
    "no training images": (
        {"train_images": GOOD.train_images[:0], "train_labels": GOOD.train_labels[:0]},
        "no images",
    ),
    "no pixels": ({"train_images": GOOD.train_images[:, :0]}, "no images"),
    "too few labels": ({"train_labels": GOOD.train_labels[:5]}, "train: 6 images, but 5 labels"),
    "two label axes": ({"train_labels": GOOD.train_labels[None]}, r"\[1, 6\]"),
    "one-hot labels": ({"test_labels": np.eye(3, dtype=int)}, r"test: .*one-hot; use .*argmax"),
    "text labels": ({"test_labels": np.array(["a", "b", "c"])}, "test: .*got <U1: text"),
    "float labels": (
        {"train_labels": GOOD.train_labels.astype(float)},
        "integer array, got float64",
    ),
    "boolean labels": ({"test_labels": np.array([True, False, True])}, "integer array, got bool"),
    "NaN labels": ({"test_labels": np.array([0, np.nan, 1])}, "integer array, got float64"),
    "object labels": ({"test_labels": np.array([0, None, 1])}, "integer array, got object"),
    "negative": ({"test_labels": np.array([0, -1, 2])}, r"1 labels .* 0\.\.2, .*\[1\] = -1$"),
    "too large": (
        {"train_labels": np.array([3, 0, 4, 5, 6, 7])},
        r"5 labels .* \[0\] = 3, \[2\] = 4, \[3\] = 5, \[4\] = 6, \[5\] = 7$",
    ),
    "too large for int32": ({"test_labels": np.array([0, 2**32, 2])}, r"\[1\] = 4294967296"),
    "only five are shown": ({"train_labels": np.full(6, 9)}, r"6 labels .* \[4\] = 9$"),
    "no classes": ({"class_names": ()}, r"there must be two classes, got \(\)"),
    "one class": ({"class_names": ("a",)}, r"there must be two classes, got \('a',\)"),
    "validation without labels": ({"val_images": GOOD.test_images}, "come together"),
    "validation labels": (
        {"val_images": GOOD.test_images, "val_labels": np.array([0, 1, 3])},
        r"val: 1 labels .*\[2\] = 3",
    ),
    "validation shape": (
        {"val_images": GOOD.test_images[:, :, :4], "val_labels": GOOD.test_labels},
        "val: images are 4 x 4 x 3",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_dataset_is_refused(case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(DataError, match=f"tiny.*{message}"):
        check_dataset(make(**changes))


def test_a_column_of_labels_is_read_as_its_entries() -> None:
    checked = check_dataset(make(train_labels=GOOD.train_labels[:, None].astype(np.uint8)))
    np.testing.assert_array_equal(checked.train_labels, GOOD.train_labels)
    assert checked.train_labels.dtype == np.int32


def test_a_limit_keeps_the_first_test_images_of_each_class() -> None:
    labels = np.array([2, 0, 0, 1, 2, 2, 0], np.int32)
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    dataset = make(
        test_images=images, test_labels=labels, val_images=images[::-1], val_labels=labels[::-1]
    )
    assert limit_test(dataset, 0) is dataset
    limited = limit_test(dataset, 2)
    assert limited.test_labels.tolist() == [2, 0, 0, 1, 2]
    assert limited.test_images.ravel().tolist() == [0, 1, 2, 3, 4]
    assert limited.val_images is not None and limited.val_labels is not None
    assert limited.val_images.ravel().tolist() == [6, 5, 4, 3, 2]
    assert limited.train_images is dataset.train_images


def test_kept_classes_are_renumbered_in_every_split() -> None:
    labels = np.array([2, 0, 0, 1, 2, 2, 0], np.int32)
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    dataset = make(
        train_images=images, train_labels=labels, test_images=images[:4], test_labels=labels[:4],
        val_images=images[::-1], val_labels=labels[::-1], content="abc",
    )  # fmt: skip
    assert keep_classes(dataset, ()) is dataset
    kept = keep_classes(dataset, (2, 0))
    assert kept.class_names == ("c", "a")
    assert kept.train_images.ravel().tolist() == [0, 1, 2, 4, 5, 6]
    assert kept.train_labels.tolist() == [0, 1, 1, 0, 0, 1]
    assert kept.test_images.ravel().tolist() == [0, 1, 2]
    assert kept.test_labels.tolist() == [0, 1, 1]
    assert kept.val_images is not None and kept.val_labels is not None
    assert kept.val_images.ravel().tolist() == [6, 5, 4, 2, 1, 0]
    assert kept.val_labels.tolist() == [1, 0, 0, 1, 1, 0]
    assert kept.train_labels.dtype == np.int32
    assert len({dataset.content, kept.content, keep_classes(dataset, (0, 2)).content}) == 3


def test_a_validation_split_without_an_image_of_the_kept_classes_is_none() -> None:
    dataset = make(val_images=make().test_images[:1], val_labels=np.array([1], np.int32))
    kept = keep_classes(dataset, (0, 2))
    assert kept.val_images is None and kept.val_labels is None


def test_a_class_that_the_data_lack_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"data.classes=\(0, 3\): tiny has no class 3; legal: 0 .. 2"
    ):
        keep_classes(make(), (0, 3))
