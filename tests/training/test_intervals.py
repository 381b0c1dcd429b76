"""Intervals of accuracies beside SciPy's, bootstraps, and the share of simulations that they cover."""

import numpy as np
import pytest
from scipy import stats

from purenoise_jax.training.intervals import (
    accuracy_intervals,
    interval_numbers,
    of_classes,
    of_share,
)
from purenoise_jax.training.metrics import ClassResults, summarize


def results(images, correct, top5=None):
    return ClassResults(
        *(None if part is None else np.array(part) for part in (images, correct, top5))
    )


def balanced(images, correct):
    return of_classes(results(images, correct), np.arange(len(images)))


@pytest.mark.parametrize(
    ("correct", "images"), [(0, 12), (12, 12), (1, 1), (0, 1), (5, 8), (70, 99)]
)
def test_a_share_has_the_interval_of_clopper_and_pearson(correct, images):
    wanted = stats.binomtest(correct, images).proportion_ci(0.95, "exact")
    np.testing.assert_allclose(of_share(correct, images), [wanted.low, wanted.high], atol=1e-9)
    found = accuracy_intervals(results([images, 0], [correct, 0]))
    # Of one class, all three are the same.
    np.testing.assert_allclose(found.accuracy, [wanted.low, wanted.high], atol=1e-9)
    np.testing.assert_allclose(found.balanced_accuracy, [wanted.low, wanted.high], atol=1e-9)
    np.testing.assert_allclose(found.per_class[0], [wanted.low, wanted.high], atol=1e-9)
    assert found.per_class[1] is None


@pytest.mark.parametrize(
    ("images", "correct"),
    [
        ([9, 5, 2, 1, 1], [9, 5, 2, 1, 1]),
        ([9, 5, 2, 1, 1], [9, 0, 0, 0, 0]),
        ([9, 5, 2, 1, 1], [0, 0, 0, 0, 0]),
        ([1], [1]),
        ([1] * 50, [1] * 49 + [0]),
        ([1000, 1], [999, 1]),
    ],
)
def test_an_interval_has_its_estimate_inside_and_room_on_both_sides(images, correct):
    mean = np.mean(np.array(correct) / images)
    low, high = balanced(images, correct)
    assert 0 <= low <= mean <= high <= 1
    assert low < mean or mean == 0
    assert high > mean or mean == 1
    assert high - low > 0.02


FEW_IMAGES = {
    "a tail down to one image": [9, 5, 2, 1, 1],
    "one image of each of 20": [1] * 20,
    "one image of each of 100": [1] * 100,
    "three images of each of 12": [3] * 12,
    "two classes": [30, 2],
    "a long tail": [60, 40, 25, 16, 10, 6, 4, 3, 2, 1],
}


@pytest.mark.parametrize("images", FEW_IMAGES.values(), ids=FEW_IMAGES)
def test_intervals_of_few_images_cover_the_balanced_accuracy(images):
    classes = len(images)
    rng = np.random.default_rng(0)
    for shares in (
        np.full(classes, 0.5),
        np.full(classes, 0.9),
        np.linspace(0.97, 0.3, classes),
        np.linspace(0.99, 0.8, classes),
    ):
        drawn = rng.binomial(images, shares, (400, classes))
        ends = np.array([balanced(images, correct) for correct in drawn])
        covered = ((ends[:, 0] <= shares.mean()) & (shares.mean() <= ends[:, 1])).mean()
        # 0.95, and three standard errors of 400 simulations.
        assert covered > 0.917


def test_many_images_have_the_interval_of_the_bootstrap():
    images, correct = np.array([600, 300, 250, 200]), np.array([570, 120, 200, 30])
    rng = np.random.default_rng(0)
    drawn = rng.binomial(images, correct / images, (20_000, 4))
    ends = [0.025, 0.975]
    wanted = np.quantile((drawn / images).mean(axis=1), ends)
    found = accuracy_intervals(results(images, correct))
    np.testing.assert_allclose(found.balanced_accuracy, wanted, atol=2e-3)
    whole = rng.binomial(images.sum(), correct.sum() / images.sum(), 20_000) / images.sum()
    np.testing.assert_allclose(found.accuracy, np.quantile(whole, ends), atol=2e-3)


def test_many_images_have_the_interval_of_a_normal_distribution():
    found = accuracy_intervals(results([10_000], [7_000]))
    wanted = 0.7 + np.array([-1, 1]) * 1.96 * np.sqrt(0.21 / 10_000)
    np.testing.assert_allclose(found.accuracy, wanted, atol=1e-3)


def test_equal_classes_of_equal_accuracy_have_the_interval_of_all_images():
    np.testing.assert_allclose(balanced([20] * 10, [15] * 10), of_share(150, 200), atol=1e-9)
    np.testing.assert_allclose(balanced([3] * 4, [3] * 4), of_share(12, 12), atol=1e-9)


def test_every_accuracy_of_an_evaluation_has_an_interval():
    counts = np.array([300, 150, 80, 50, 20, 10, 5])
    found = results([5, 5, 4, 3, 2, 0, 1], [5, 4, 4, 1, 1, 0, 0], [5, 5, 4, 3, 2, 0, 1])
    numbers = summarize(found, 1.0, np.zeros((15, 3)), counts)
    intervals = interval_numbers(found, counts)
    assert intervals.keys() == {name for name in numbers if name.endswith("accuracy")}
    for name, ends in intervals.items():
        values, ends = np.atleast_1d(numbers[name]), np.atleast_1d(np.array(ends, object))
        pairs = (
            [(numbers[name], ends)]
            if np.isscalar(numbers[name])
            else zip(values, ends, strict=True)
        )
        for value, interval in pairs:
            assert interval is None if value is None else interval[0] <= value <= interval[1]
    assert intervals["group_accuracy"][0] == [*of_classes(found, np.array([5, 6]))]
    assert intervals["many_accuracy"] == [*of_classes(found, np.array([0, 1]))]


def test_classes_without_images_have_no_interval_and_few_classes_no_groups():
    found = interval_numbers(results([3, 0], [2, 0]), np.array([200, 5]))
    assert found["few_accuracy"] is None and found["per_class_accuracy"][1] is None
    assert found["group_accuracy"] is None and found["top5_accuracy"] is None
