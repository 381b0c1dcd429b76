"""The digits of scikit-learn: shapes, split and resizing."""

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from purenoise_jax.data.sources.digits import load_digits


def test_shapes_counts_and_balance() -> None:
    dataset = load_digits()
    assert dataset.train_images.shape == (1397, 16, 16, 1)
    assert dataset.test_images.shape == (400, 16, 16, 1)
    assert dataset.train_images.dtype == np.uint8
    assert dataset.train_images.max() == 255
    assert dataset.train_images.min() == 0
    assert dataset.class_names == tuple("0123456789")
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), [40] * 10)


def test_split_takes_the_last_40_of_every_class_in_file_order() -> None:
    dataset = load_digits(image_size=8)
    stored = datasets.load_digits()
    left = {digit: 40 for digit in range(10)}
    train, test = [], []
    for index in reversed(range(len(stored.target))):
        digit = stored.target[index]
        (test if left[digit] > 0 else train).append(index)
        left[digit] -= 1
    for images, labels, wanted in (
        (dataset.train_images, dataset.train_labels, train[::-1]),
        (dataset.test_images, dataset.test_labels, test[::-1]),
    ):
        np.testing.assert_array_equal(labels, stored.target[wanted])
        np.testing.assert_allclose(images[..., 0], stored.images[wanted] * 255 / 16, atol=0.5)


@pytest.mark.parametrize("side", [8, 16, 32])
def test_image_size(side: int) -> None:
    small = load_digits(image_size=8)
    dataset = load_digits(image_size=side)
    assert dataset.train_images.shape[1:] == (side, side, 1)
    np.testing.assert_array_equal(dataset.train_labels, small.train_labels)
    wanted = Image.fromarray(small.train_images[5, :, :, 0]).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    np.testing.assert_array_equal(dataset.train_images[5, :, :, 0], np.asarray(wanted))
