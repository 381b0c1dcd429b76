"""Evaluation against the same numbers computed with numpy from the images themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.methods.recipe import identity
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.evaluation import ECE_BINS, Evaluator, confidence_bin
from purenoise_jax.training.metrics import calibration_error

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
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (LABELS, predicted), 1)
    np.testing.assert_array_equal(counts.confusion, confusion)
    np.testing.assert_allclose(counts.nll, -np.log(probs[range(37), LABELS]).sum(), rtol=1e-5)
    edges = np.arange(16) / 15
    assert np.abs(confidence[:, None] - edges).min() > 1e-5, "no image lies on a border"
    bins = np.zeros((15, 3))
    for low, (i, each) in zip(edges, enumerate(bins), strict=False):
        there = (confidence > low) & (confidence <= edges[i + 1])
        each[:] = there.sum(), confidence[there].sum(), (predicted == LABELS)[there].sum()
    np.testing.assert_allclose(counts.bins, bins, atol=1e-5)
    error = sum(abs(right - sure) for _, sure, right in bins) / 37
    assert calibration_error(counts.bins) == pytest.approx(error, abs=1e-6)


def test_logits_are_postprocessed_before_anything_is_counted():
    counts = evaluate(lambda logits: -logits)
    np.testing.assert_array_equal(
        counts.confusion.sum(0), np.bincount(by_numpy()[0].argmin(1), minlength=3)
    )


def test_hits_are_those_of_the_method_that_knows_the_shares():
    shares = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])

    def informed(logits, log_prior=None):
        return logits if log_prior is None else logits + log_prior[None]

    counts = evaluate(informed, class_shares=shares)
    for share, hits in zip(shares, counts.hits, strict=True):
        right = (by_numpy()[0] + np.log(share)).argmax(1) == LABELS
        assert hits.tolist() == [int(right[k == LABELS].sum()) for k in range(3)]
    plain = evaluate(class_shares=shares)
    np.testing.assert_array_equal(plain.hits, [np.diag(plain.confusion)] * 2)
    assert evaluate().hits.shape == (0, 3)


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
