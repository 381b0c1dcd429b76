"""Scores by class, and of probabilities, each beside another computation of them."""

import numpy as np
import pytest
from sklearn import metrics as sk

from purenoise_jax.analysis.class_scores import class_scores
from purenoise_jax.analysis.probability_scores import average_precisions, top_accuracies
from purenoise_jax.inference.reliability import log_probabilities, reliability
from purenoise_jax.training.confusion import Confusion


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
