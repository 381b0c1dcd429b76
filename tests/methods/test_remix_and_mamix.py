"""Remix and margin-aware mixup: shares of labels against other forms of the rules, and limits."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.mamix import label_share as label_share_of_mamix
from purenoise_jax.methods.remix import label_share as label_share_of_remix
from purenoise_jax.runtime import rng
from tests.linear_step import STATS as SMALL_STATS
from tests.linear_step import cross_entropy_gradient, data, run
from tests.mixtures import LABELS, STATS, partners, recipe_of, shares

# Ratios of exactly 3, and of a little less.
COUNTS = np.array([300, 100, 101])
EQUAL = dataclasses.replace(STATS, class_counts=np.array([70, 70, 70]))


def shares_of_pairs(recipe, counts):
    """For each row of several steps: shares of its image and label, and its pair's class sizes."""
    of_images, of_labels = shares(recipe)
    own = [np.diagonal(x, axis1=1, axis2=2).ravel() for x in (of_images, of_labels)]
    sizes = np.broadcast_to(counts[LABELS], of_images.shape[:2]).ravel()
    return *own, sizes, counts[LABELS[partners(of_images)]].ravel()


def remixed(s, n, m, kappa, tau):
    """The rule as the paper writes it, with a ratio of sizes."""
    if n / m >= kappa and s < tau:
        return 0.0
    if n / m <= 1 / kappa and 1 - s < tau:
        return 1.0
    return s


@pytest.mark.every(3)
@pytest.mark.parametrize(("kappa", "tau"), [(3.0, 0.5), (3.0, 0.8), (2.9, 0.25), (3.0, 0.0)])
@pytest.mark.parametrize("weight_fn", ["none", "constant"])
def test_labels_of_remix_against_the_rule(kappa, tau, weight_fn):
    stats = dataclasses.replace(STATS, class_counts=COUNTS)
    recipe = recipe_of("remix", stats=stats, kappa=kappa, tau=tau, weight_fn=weight_fn)
    pairs = shares_of_pairs(recipe, COUNTS)
    # Rows near a threshold may fall on either side in float32.
    clear = np.abs(np.stack([pairs[0], 1 - pairs[0]]) - tau).min(axis=0) > 1e-5
    expected = [remixed(s, n, m, kappa, tau) for s, _, n, m in zip(*pairs, strict=True)]
    np.testing.assert_allclose(pairs[1][clear], np.array(expected)[clear], atol=1e-6)
    # Its own image has the larger share, so that a row yields its label only if tau is above 1/2.
    seen = {value for value in (0.0, 1.0) if (pairs[1][(pairs[0] < 1) & clear] == value).any()}
    assert seen == ({0.0, 1.0} if tau > 0.5 else {1.0} if tau else set())
    assert ((pairs[1] > 0.5) & (pairs[1] < 1)).any()


@pytest.mark.parametrize("exponent", [0.25, 0.5])
def test_labels_of_mamix_are_interpolated_between_three_points(exponent):
    stats = dataclasses.replace(STATS, class_counts=np.array([5000, 500, 50]))
    recipe = recipe_of("mamix", stats=stats, exponent=exponent)
    of_image, of_label, n, m = shares_of_pairs(recipe, stats.class_counts)
    half_at = n**exponent / (n**exponent + m**exponent)
    by_hand = [
        np.interp(s, [0, at, 1], [0, 0.5, 1]) for s, at in zip(of_image, half_at, strict=True)
    ]
    np.testing.assert_allclose(of_label, by_hand, atol=2e-5)
    assert (of_image < half_at).any() and (of_image > half_at).any()
    rarer = (n < m) & (of_image < 1)
    assert (of_label[rarer] > of_image[rarer]).all()


def test_a_share_of_mamix_by_hand():
    """Margins of 1 and 2 for 16 and 1 images: equal labels where the shares are 2/3 and 1/3."""
    share = jnp.array([0.0, 1 / 3, 2 / 3, 5 / 6, 1.0])
    found = label_share_of_mamix(share, jnp.full(5, 1.0), jnp.full(5, 2.0))
    np.testing.assert_allclose(found, [0, 0.25, 0.5, 0.75, 1], rtol=1e-6, atol=1e-7)


def test_a_share_of_remix_by_hand():
    """With 90 and 30 images: shares below 0.4 lose the label, and those above 0.6 take it."""
    share = jnp.array([0.39, 0.41, 0.59, 0.61])
    more, less = jnp.full(4, 90.0), jnp.full(4, 30.0)
    found = label_share_of_remix(share, more, less, kappa=3.0, tau=0.4)
    np.testing.assert_allclose(found, [0, 0.41, 0.59, 0.61], rtol=1e-6)
    found = label_share_of_remix(share, less, more, kappa=3.0, tau=0.4)
    np.testing.assert_allclose(found, [0.39, 0.41, 0.59, 1], rtol=1e-6)
    found = label_share_of_remix(share, less, more - 1, kappa=3.0, tau=0.4)
    np.testing.assert_array_equal(found, share)


def test_both_rows_of_a_pair_agree_on_their_labels():
    """Because of this symmetry, both methods may take the larger share, as mixup does."""
    draw = np.random.default_rng(0)
    share = jnp.asarray(draw.uniform(0, 1, 200), jnp.float32)
    size, other = jnp.asarray(draw.choice([1.0, 3.0, 40.0], (2, 200)), jnp.float32)
    for tau in (0.0, 0.3, 0.5, 0.7, 1.0):
        one = label_share_of_remix(share, size, other, kappa=3.0, tau=tau)
        two = label_share_of_remix(1 - share, other, size, kappa=3.0, tau=tau)
        np.testing.assert_allclose(one + two, 1, rtol=1e-6)
    one, two = (
        label_share_of_mamix(s, a**-0.25, b**-0.25)
        for s, a, b in ((share, size, other), (1 - share, other, size))
    )
    np.testing.assert_allclose(one + two, 1, rtol=1e-6)


@pytest.fixture(scope="module")
def mixup_shares():
    return shares(recipe_of("mixup"))


@pytest.mark.parametrize(
    ("name", "arguments", "stats"),
    [
        ("remix", {"kappa": 1e30}, STATS),
        ("remix", {"tau": 0.0}, STATS),
        ("remix", {}, EQUAL),
        ("mamix", {"exponent": 0.0}, STATS),
        ("mamix", {}, EQUAL),
    ],
)
def test_limits_in_which_they_are_mixup(name, arguments, stats, mixup_shares):
    found = shares(recipe_of(name, stats=stats, **arguments))
    np.testing.assert_allclose(found, mixup_shares, atol=1e-6)


def shares_of_first_step(recipe, labels):
    """Shares of each row's image and label, and its partner, in the first step with seed 0.

    The draws do not depend on the images.
    """
    key = rng.at(rng.stream(0, "objective"), 0)
    of_images, of_labels = shares(recipe, labels, keys=key[None])
    own = [np.diagonal(x[0]) for x in (of_images, of_labels)]
    return *own, partners(of_images)[0]


@pytest.mark.parametrize("name", ["remix", "mamix"])
def test_a_step_against_numpy(name):
    images, labels, kernel = data(rows=7)
    recipe = build_recipe([name], SMALL_STATS, {})
    own, of_label, partner = shares_of_first_step(recipe, labels)
    _, sums, grads = run(recipe, images, labels, kernel)
    features = images.reshape(7, -1) / 255
    mixed = own[:, None] * features + (1 - own)[:, None] * features[partner]
    assert (of_label != own).any()
    expected = cross_entropy_gradient(
        np.concatenate([mixed, mixed]),
        np.concatenate([labels, labels[partner]]),
        kernel,
        np.concatenate([of_label, 1 - of_label]),
    )
    np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-6)
    assert sums.correct == ((mixed @ kernel).argmax(axis=1) == labels).sum()


def test_margins_of_extreme_sizes_are_finite():
    counts = np.array([2**31, 1, 1000])
    stats = dataclasses.replace(STATS, class_counts=counts)
    for exponent in (0.25, 4.0):
        _, of_label, *_ = shares_of_pairs(
            recipe_of("mamix", stats=stats, exponent=exponent), counts
        )
        assert ((of_label >= 0) & (of_label <= 1)).all()
