"""Reported numbers against hand counts."""

import json

import numpy as np
import pytest

from purenoise_jax.training import metrics
from purenoise_jax.training.confusion import Confusion

BINS = np.array([[0, 0, 0], [4, 1.6, 3], [6, 5.4, 5]], np.float32)


def summarize(confusion, *rest):
    return metrics.summarize(Confusion.from_dense(confusion).results(), *rest)


def test_accuracy_recalls_and_geometric_mean():
    confusion = np.array([[8, 2, 0], [1, 4, 0], [0, 0, 5]])
    numbers = summarize(confusion, 10.0, BINS, np.array([200, 50, 5]))
    assert numbers["accuracy"] == 17 / 20
    np.testing.assert_allclose(numbers["per_class_accuracy"], [0.8, 0.8, 1.0])
    assert numbers["balanced_accuracy"] == pytest.approx(2.6 / 3)
    assert numbers["geometric_mean"] == pytest.approx((0.8 * 0.8) ** (1 / 3))
    assert numbers["nll"] == 0.5
    assert (numbers["many_accuracy"], numbers["medium_accuracy"], numbers["few_accuracy"]) == (
        pytest.approx(0.8), pytest.approx(0.8), 1.0)  # fmt: skip


def test_calibration_error_by_hand():
    # |1.6 - 3| + |5.4 - 5| over ten images
    assert metrics.calibration_error(BINS) == pytest.approx(0.18)
    assert metrics.calibration_error(np.zeros((3, 3))) == 0


def test_shot_groups_have_their_borders():
    groups = metrics.shot_groups(np.array([101, 100, 20, 19]))
    assert {k: v.tolist() for k, v in groups.items()} == {"many": [0], "medium": [1, 2], "few": [3]}


@pytest.mark.parametrize(
    ("imbalance", "sizes"), [("cifar10", (8, 2, 0)), ("cifar100", (35, 35, 30))]
)
def test_shot_groups_of_the_papers_data_sets(imbalance, sizes):
    classes, largest = (10, 5000) if imbalance == "cifar10" else (100, 500)
    counts = np.array([int(largest * 0.01 ** (i / (classes - 1))) for i in range(classes)])
    assert tuple(len(v) for v in metrics.shot_groups(counts).values()) == sizes


def test_empty_groups_are_none_and_never_nan():
    confusion = np.eye(2, dtype=int)
    numbers = summarize(confusion, 1.0, BINS, np.array([500, 300]))
    assert (
        numbers["medium_accuracy"] is numbers["few_accuracy"] is numbers["group_accuracy"] is None
    )
    json.dumps(numbers, allow_nan=False)


def test_class_without_test_images_has_no_accuracy():
    confusion = np.array([[3, 1], [0, 0]])
    numbers = summarize(confusion, 1.0, BINS, np.array([5, 5]))
    assert numbers["per_class_accuracy"] == [0.75, None]
    assert numbers["balanced_accuracy"] == numbers["geometric_mean"] == 0.75


def test_geometric_mean_is_zero_when_a_class_is_lost():
    confusion = np.array([[4, 0], [4, 0]])
    assert summarize(confusion, 1.0, BINS, np.array([5, 5]))["geometric_mean"] == 0


def test_frequency_groups_start_with_the_rarest():
    counts = np.array([10, 50, 20, 40, 30, 5, 60, 70, 80, 90])
    groups = [sorted(g.tolist()) for g in metrics.frequency_groups(counts)]
    assert groups == [[0, 5], [2, 4], [1, 3], [6, 7], [8, 9]]


def test_frequency_groups_of_a_balanced_set_follow_the_profile_order():
    groups = [g.tolist() for g in metrics.frequency_groups(np.full(10, 7))]
    assert groups == [[9, 8], [7, 6], [5, 4], [3, 2], [1, 0]]


def test_group_sizes_differ_by_at_most_one():
    sizes = [len(g) for g in metrics.frequency_groups(np.arange(1, 13))]
    assert sum(sizes) == 12 and max(sizes) - min(sizes) == 1
