"""Evaluation against the same numbers computed with numpy from the images themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.methods.recipe import identity
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.confusion import Confusion
from purenoise_jax.training.evaluation import ECE_BINS, Evaluator, confidence_bin, in_top
from purenoise_jax.training.metrics import calibration_error
from tests.data.test_feed import InMemory

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (37, 4, 4, 3), np.uint8)
LABELS = RNG.integers(0, 3, 37).astype(np.int32)
MEAN, STD = np.float32([0.4, 0.5, 0.6]), np.float32([0.1, 0.2, 0.15])


class MeanColour:
    """A stand-in for a network: its logits are the mean of each channel as it comes in."""

    @staticmethod
    def apply(variables, image, noise_mask, valid, *, train):
        assert noise_mask is None and not train
        return image.mean((1, 2)) + variables["params"], {}


def no_augmentation(key, images):
    raise AssertionError("evaluation augments nothing")


def evaluate(postprocess=identity, params=0.0, batch_size=10, class_shares=None):
    evaluator = Evaluator(
        MeanColour,
        IMAGES,
        LABELS,
        batch_builder=BatchBuilder(no_augmentation, MEAN, STD, 3),
        placement=Placement(8, 1),
        batch_size=batch_size,
        class_shares=class_shares,
    )
    return evaluator({"params": jnp.float32(params), "batch_stats": {}}, postprocess)


def by_numpy(shift=0.0):
    logits = ((IMAGES / 255 - MEAN) / STD).mean((1, 2)) + shift
    probs = np.exp(logits - logits.max(1, keepdims=True))
    return logits, probs / probs.sum(1, keepdims=True)


@pytest.mark.parametrize("batch_size", [1, 10, 37, 512])
def test_every_number_is_that_of_numpy(batch_size):
    counts = evaluate(batch_size=batch_size)
    logits, probs = by_numpy()
    predicted, confidence = logits.argmax(1), probs.max(1)
    np.testing.assert_array_equal(counts.predicted, predicted)
    sums = counts.sums
    np.testing.assert_allclose(sums.nll, -np.log(probs[range(37), LABELS]).sum(), rtol=1e-5)
    edges = np.arange(16) / 15
    assert np.abs(confidence[:, None] - edges).min() > 1e-5, "no image lies on a border"
    bins = np.zeros((15, 3))
    for low, (i, each) in zip(edges, enumerate(bins), strict=False):
        there = (confidence > low) & (confidence <= edges[i + 1])
        each[:] = there.sum(), confidence[there].sum(), (predicted == LABELS)[there].sum()
    np.testing.assert_allclose(sums.bins, bins, atol=1e-5)
    error = sum(abs(right - sure) for _, sure, right in bins) / 37
    assert calibration_error(sums.bins) == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("batch_size", [10, 512])
@pytest.mark.parametrize("bad", [None, (), (3, 30)])
def test_logits_are_those_of_numpy_and_only_there_if_asked_for(devices, batch_size, bad):
    """Also of images on the host, of which some cannot be read."""
    evaluator = Evaluator(
        MeanColour,
        IMAGES if bad is None else InMemory(IMAGES, bad),
        LABELS,
        batch_builder=BatchBuilder(no_augmentation, MEAN, STD, 3),
        placement=Placement(8, devices),
        batch_size=batch_size,
        skip=lambda line: None,
    )
    given = {"params": jnp.float32(0), "batch_stats": {}}, lambda logits: 2 * logits
    found, without = evaluator(*given, logits=True), evaluator(*given)
    if bad is not None:
        # Those of the batches before would fill the memory.
        parts = evaluator._streamed(given[1], given[0], logits=False)[1]
        assert all(part.logits is None for part in parts)
    evaluator.close()
    kept = np.setdiff1d(np.arange(37), bad or ())
    np.testing.assert_allclose(found.logits[kept], 2 * by_numpy()[0][kept], rtol=1e-5, atol=1e-6)
    assert found.logits.shape == (37, 3) and found.logits.dtype == np.float32
    assert without.logits is None
    np.testing.assert_array_equal(found.predicted, without.predicted)
    assert (found.predicted[kept] == found.logits[kept].argmax(1)).all()


def test_logits_are_postprocessed_before_anything_is_counted():
    counts = evaluate(lambda logits: -logits)
    np.testing.assert_array_equal(counts.predicted, by_numpy()[0].argmin(1))


def test_hits_are_those_of_the_method_that_knows_the_shares():
    shares = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])

    def informed(logits, log_prior=None):
        return logits if log_prior is None else logits + log_prior[None]

    counts = evaluate(informed, class_shares=shares)
    for share, hits in zip(shares, counts.sums.hits, strict=True):
        right = (by_numpy()[0] + np.log(share)).argmax(1) == LABELS
        assert hits.tolist() == [int(right[k == LABELS].sum()) for k in range(3)]
    plain = evaluate(class_shares=shares)
    correct = Confusion.of(LABELS, plain.predicted, 3).correct()
    np.testing.assert_array_equal(plain.sums.hits, [correct] * 2)
    assert evaluate().sums.hits.shape == (0, 3)


def test_a_confidence_on_a_border_belongs_to_the_bin_below():
    assert ECE_BINS == 15
    for k in range(1, 16):
        border = np.float32(k) / np.float32(15)
        near = jnp.asarray([border * (1 - 1e-5), border * (1 + 1e-5)])
        assert confidence_bin(near).tolist() == [k - 1, min(k, 14)]
    # Those borders whose product with 15 is exact.
    exact = np.float32([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert (exact * np.float32(15) == [0, 3, 6, 9, 12, 15]).all()
    assert jax.jit(confidence_bin)(exact).tolist() == [0, 2, 5, 8, 11, 14]


class ImageLogits:
    """A stand-in for a network: its logits are the pixels as they come in."""

    @staticmethod
    def apply(variables, image, noise_mask, valid, *, train):
        return jnp.where(valid[:, None], image.reshape(len(image), -1), jnp.nan), {}


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 64), (1, 5), (2, 5), (2, 6), (8, 3)])
def test_many_classes_are_counted_exactly_over_devices_and_padding(devices, batch_size):
    classes = 48
    # Of few values, so that most logits are equal to others; those of padding are not numbers.
    pixels = np.random.default_rng(1).integers(0, 6, (61, 4, 4, 3), np.uint8)
    labels = np.random.default_rng(2).integers(0, classes, 61).astype(np.int32)
    labels[0] = 0  # padding has the label of the first image, and would be among its top
    evaluator = Evaluator(
        ImageLogits,
        pixels,
        labels,
        batch_builder=BatchBuilder(
            no_augmentation, np.zeros(3, np.float32), np.ones(3, np.float32), classes
        ),
        placement=Placement(8, devices),
        batch_size=batch_size,
    )
    counts = evaluator({"params": 0.0}, identity)
    order = np.argsort(-pixels.reshape(61, -1).astype(int), axis=1, kind="stable")
    np.testing.assert_array_equal(counts.predicted, order[:, 0])
    within = (order[:, :5] == labels[:, None]).any(1)
    assert 0 < within.sum() < 61
    expected = np.bincount(labels[within], minlength=classes)
    np.testing.assert_array_equal(counts.sums.top5, expected)
    for leaf in jax.tree.leaves(counts):
        assert leaf.size < classes**2, "nothing is as large as a confusion matrix"
    assert np.isfinite(counts.sums.nll) and counts.sums.bins[:, 0].sum() == 61


def test_the_top_classes_are_the_first_of_a_stable_sort():
    logits = RNG.integers(0, 4, (200, 9)).astype(np.float32)
    labels = RNG.integers(0, 9, 200)
    order = np.argsort(-logits, axis=1, kind="stable")
    for top in range(1, 10):
        expected = (order[:, :top] == labels[:, None]).any(1)
        assert in_top(logits, labels, top).tolist() == expected.tolist()


def test_the_predicted_class_is_among_the_top_whatever_the_logits_are():
    odd = np.float32(
        [[1, np.nan, 2], [np.nan] * 3, [np.inf, np.inf, 0], [-np.inf] * 3, [0, -0.0, 0]]
    )
    logits = np.concatenate([odd, np.roll(odd, 1, axis=1)])
    predicted = jnp.asarray(logits).argmax(1)
    assert in_top(logits, predicted, 1).all()
    for other in (1, 2):
        assert not in_top(logits, (predicted + other) % 3, 1).any()


def test_a_confusion_matrix_is_that_of_numpy():
    labels, predicted = RNG.integers(0, 50, (2, 300))
    found = Confusion.of(labels, predicted, 50)
    expected = np.zeros((50, 50), int)
    np.add.at(expected, (labels, predicted), 1)
    np.testing.assert_array_equal(found.dense(), expected)
    assert (found.count > 0).all() and found.count.sum() == 300
    for each in (found, Confusion.from_dense(expected)):
        np.testing.assert_array_equal(each.by_true(), expected.sum(1))
        np.testing.assert_array_equal(each.by_predicted(), expected.sum(0))
        np.testing.assert_array_equal(each.correct(), np.diag(expected))
        np.testing.assert_array_equal(each.dense(), expected)


def test_pairs_of_very_many_classes_do_not_overflow():
    labels = np.array([0, 99_999], np.int32)
    found = Confusion.of(labels, labels[::-1], 100_000)
    assert (found.true.tolist(), found.predicted.tolist()) == ([0, 99_999], [99_999, 0])
    assert found.correct().sum() == 0


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("bad", [(), (3, 30)])
def test_images_on_the_host_are_counted_as_those_on_the_devices(devices, bad):
    """Those that are left out are counted nowhere."""
    kept = np.setdiff1d(np.arange(37), bad)
    lines = []
    streamed, resident = (
        Evaluator(
            MeanColour,
            images,
            labels,
            batch_builder=BatchBuilder(no_augmentation, MEAN, STD, 3),
            placement=Placement(8, devices),
            batch_size=10,
            class_shares=np.array([[0.2, 0.3, 0.5]]),
            skip=lines.append,
        )
        for images, labels in ((InMemory(IMAGES, bad), LABELS), (IMAGES[kept], LABELS[kept]))
    )
    variables = {"params": jnp.float32(0), "batch_stats": {}}

    def informed(logits, log_prior=None):
        return logits if log_prior is None else logits + log_prior[None]

    for _ in range(2):
        got, wanted = streamed(variables, informed), resident(variables, informed)
        np.testing.assert_array_equal(got.predicted[kept], wanted.predicted)
        assert (got.predicted[list(bad)] == -1).all()
        matrices = (
            Confusion.of(labels, counts.predicted, 3).dense()
            for counts, labels in ((got, LABELS), (wanted, LABELS[kept]))
        )
        np.testing.assert_array_equal(*matrices)
        np.testing.assert_array_equal(got.sums.top5, wanted.sums.top5)
        np.testing.assert_array_equal(got.sums.hits, wanted.sums.hits)
        np.testing.assert_allclose(got.sums.nll, wanted.sums.nll, rtol=1e-6)
        np.testing.assert_allclose(got.sums.bins, wanted.sums.bins, rtol=1e-6)
    assert len(lines) == 2 * len(bad)
    streamed.close()
