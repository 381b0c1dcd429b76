"""Accuracy under other class frequencies: against a test set that is made to have them."""

import numpy as np
import pytest

from purenoise_jax.training.shifted_tests import NAMES, RATIOS, class_shares, shifted_accuracy

COUNTS = np.array([20, 100, 50])


def test_shares_follow_the_order_of_the_training_set_or_the_reverse():
    shares = dict(zip(NAMES, class_shares(COUNTS), strict=True))
    np.testing.assert_allclose(shares["uniform"], 1 / 3)
    for ratio in RATIOS:
        forward, backward = shares[f"forward {ratio}"], shares[f"backward {ratio}"]
        assert forward[1] / forward[0] == pytest.approx(ratio)
        assert backward[0] / backward[1] == pytest.approx(ratio)
        assert forward[2] ** 2 == pytest.approx(forward[0] * forward[1])
        assert forward.sum() == pytest.approx(1) and backward.sum() == pytest.approx(1)
    assert len(NAMES) == 11 and class_shares(np.array([7])).tolist() == [[1.0]] * 11


def test_the_accuracy_is_that_of_a_test_set_with_these_frequencies():
    confusion = np.array([[3, 1, 0], [0, 8, 2], [1, 1, 3]])
    hits = np.tile([2, 9, 4], (11, 1))
    found = shifted_accuracy(confusion.sum(1), np.diag(confusion), hits, COUNTS)
    for share, (unknown, known) in zip(class_shares(COUNTS), found, strict=True):
        # A test set of a million images, of which each class has its share.
        drawn = share * 1e6
        assert unknown == pytest.approx((drawn * [3 / 4, 8 / 10, 3 / 5]).sum() / 1e6)
        assert known == pytest.approx((drawn * [2 / 4, 9 / 10, 4 / 5]).sum() / 1e6)


def test_a_test_set_without_images_of_a_class_tells_nothing_about_such_sets():
    assert shifted_accuracy(np.array([1, 0, 2]), np.zeros(3), np.zeros((11, 3)), COUNTS) is None
