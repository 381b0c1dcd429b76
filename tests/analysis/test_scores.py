"""Scores by class, probabilities and intervals, each beside another computation of them."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from purenoise_jax.analysis.class_scores import class_scores
from purenoise_jax.analysis.probability_scores import average_precisions, top_accuracies
from purenoise_jax.inference.reliability import log_probabilities, reliability
from purenoise_jax.training.confusion import Confusion
from purenoise_jax.training.intervals import bootstrap
from purenoise_jax.training.metrics import ClassResults


@pytest.fixture(scope="module")
def known():
    """Logits of 300 images of six classes, the last of them without images."""
    rng = np.random.default_rng(3)
    labels = rng.choice(6, size=300, p=[0.4, 0.3, 0.2, 0.08, 0.02, 0])
    logits = rng.normal(size=(300, 6)) + 1.5 * np.eye(6)[labels]
    return logits.astype(np.float32), labels


def test_precision_recall_and_f1_are_those_of_scikit_learn(known):
    logits, labels = known
    predicted = logits.argmax(axis=1)
    found = class_scores(Confusion.of(labels, predicted, 6))
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, predicted, labels=range(6), zero_division=np.nan
    )
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.recall[:5], recall[:5])
    np.testing.assert_allclose(found.f1[:5], f1[:5])
    # The last class has no image, so it has neither an accuracy nor F1.
    assert found.recall[5] is None and found.f1[5] is None
    assert found.macro_f1 == pytest.approx(f1[:5].mean())


def test_a_class_that_is_never_predicted_has_no_precision():
    found = class_scores(Confusion.of(np.array([0, 1]), np.array([0, 0]), 2))
    assert found.precision == [0.5, None] and found.recall == [1, 0]
    assert found.f1 == [pytest.approx(2 / 3), 0]


def test_probabilities_score_as_in_scikit_learn(known):
    logits, labels = known
    shares = np.exp(log_probabilities(logits))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert reliability(logits, labels).nll == pytest.approx(
        sk.log_loss(labels, shares, labels=range(6))
    )
    tops = top_accuracies(logits, labels)
    assert list(tops) == ["1", "2", "3", "5"]
    for k, share in tops.items():
        wanted = sk.top_k_accuracy_score(labels, logits, k=int(k), labels=range(6))
        assert share == pytest.approx(wanted)


def test_average_precision_is_the_mean_precision_at_the_images_of_the_class(known):
    logits, labels = known
    found = average_precisions(logits, labels)
    assert found[5] is None
    shares = np.exp(log_probabilities(logits))
    for k in range(5):
        ranked = (labels == k)[np.argsort(-shares[:, k])]
        at = np.flatnonzero(ranked)
        wanted = np.mean([ranked[: place + 1].mean() for place in at])
        assert found[k] == pytest.approx(wanted)


def test_the_calibration_error_is_the_mean_gap_of_fifteen_bins(known):
    logits, labels = known
    shares = np.exp(log_probabilities(logits))
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    gaps, images = 0.0, []
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        images.append(inside.sum())
        if inside.any():
            gaps += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    found = reliability(logits, labels)
    assert found.ece == pytest.approx(gaps, rel=1e-6)
    assert found.bins[:, 0].tolist() == images and found.bins[:, 2].sum() == right.sum()


def test_extreme_logits_have_finite_scores():
    logits, labels = np.array([[1e4, 0], [0, -1e4]], np.float32), np.array([1, 0])
    found = reliability(logits, labels)
    assert found.nll == pytest.approx(5000) and found.ece == pytest.approx(0.5)
    assert found.bins[-1].tolist() == [2, 2, 1]


def test_the_interval_is_that_of_test_images_drawn_one_by_one():
    images, correct = np.array([40, 30, 8, 0]), np.array([30, 12, 4, 0])
    found = bootstrap(ClassResults(images, correct))
    classes = np.repeat(np.arange(4), images)
    right = np.concatenate([np.arange(n) < c for n, c in zip(images, correct, strict=True)])
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, len(right), (4000, len(right)))
    accuracy = right[drawn].mean(axis=1)
    by_class = np.array(
        [[row[each == k].mean() for k in range(3)]
         for row, each in zip(right[drawn], classes[drawn], strict=True)]
    )  # fmt: skip
    ends = [0.025, 0.975]
    np.testing.assert_allclose(found.accuracy, np.quantile(accuracy, ends), atol=0.015)
    balanced = by_class.mean(axis=1)
    np.testing.assert_allclose(found.balanced_accuracy, np.quantile(balanced, ends), atol=0.015)
    for k in range(3):
        wanted = np.quantile(by_class[:, k], ends)
        np.testing.assert_allclose(found.per_class[k], wanted, atol=0.03)
    assert found.per_class[3] is None


def test_many_images_have_the_interval_of_a_normal_distribution():
    found = bootstrap(ClassResults(np.array([10_000]), np.array([7_000])))
    wanted = 0.7 + np.array([-1, 1]) * 1.96 * np.sqrt(0.21 / 10_000)
    np.testing.assert_allclose(found.accuracy, wanted, atol=1e-3)
    np.testing.assert_allclose(found.per_class[0], found.accuracy, atol=1e-6)


@pytest.mark.parametrize(("correct", "images"), [(0, 12), (12, 12), (1, 1), (0, 1)])
def test_a_class_that_is_always_or_never_right_has_an_exact_interval(correct, images):
    found = bootstrap(ClassResults(np.array([images, 5]), np.array([correct, 3])))
    wanted = stats.binomtest(correct, images).proportion_ci(0.95, "exact")
    np.testing.assert_allclose(found.per_class[0], [wanted.low, wanted.high])
    alone = bootstrap(ClassResults(np.array([images]), np.array([correct])))
    np.testing.assert_allclose(alone.accuracy, [wanted.low, wanted.high])


def test_intervals_do_not_depend_on_how_many_resamples_are_drawn_at_a_time(monkeypatch):
    results = ClassResults(np.array([9, 4, 3]), np.array([5, 2, 1]))
    whole = bootstrap(results)
    monkeypatch.setattr("purenoise_jax.training.intervals.CHUNK", 60)
    assert bootstrap(results) == whole
    assert bootstrap(results, seed=1) != whole
