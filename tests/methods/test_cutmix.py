"""CutMix: boxes against torchvision and numpy, pasted pixels, and the probability of a step."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods.cutmix import box, cutmix
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime import rng
from tests.linear_step import Linear, cross_entropy_gradient, run
from tests.mixtures import SIZE, STATS, batch_of, partners, recipe_of, shares

GOLDENS = Path(__file__).parents[1] / "goldens/cutmix.npz"


def test_boxes_and_shares_equal_those_of_torchvision():
    with np.load(GOLDENS) as file:
        draws = [dict(zip(file, row, strict=True)) for row in zip(*file.values(), strict=True)]
    cut = jax.jit(box, static_argnums=2)
    for d in draws:
        shape = int(d["height"]), int(d["width"])
        found = cut(jnp.float32(d["ratio"]), jnp.array([d["row"], d["column"]], jnp.int32), shape)
        expected = np.zeros(shape, bool)
        expected[d["top"] : d["bottom"], d["left"] : d["right"]] = True
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(1 - expected.mean(), d["share"], rtol=1e-6)


def test_boxes_by_hand():
    """Sides of 8 * sqrt(1/4) = 4 and 6 * sqrt(1/4) = 3, which is rounded to 2."""
    found = np.asarray(box(jnp.float32(0.75), jnp.array([4, 3]), (8, 6)))
    rows, columns = np.nonzero(found)
    assert found.sum() == 8 and {*rows} == {2, 3, 4, 5} and {*columns} == {2, 3}
    assert np.asarray(box(jnp.float32(0.75), jnp.array([0, 5]), (8, 6))).sum() == 2 * 2
    assert not box(jnp.float32(1), jnp.array([4, 3]), (8, 6)).any()
    assert box(jnp.float32(0), jnp.array([4, 3]), (8, 6)).all()


def pasted_steps(images, labels, recipe, keys):
    """The batch at the input of the network, and the outcome of each step."""
    batch, seen = batch_of(images, labels), []

    class Recording:
        def forward(self, images, noise_mask=None, *, mix):
            seen.append(np.asarray(mix("input", images)))
            variables = {"params": {"head": {"kernel": jnp.zeros((images[0].size, 3))}}}
            return Linear().apply(variables, images, train=False)

    for key in keys:
        recipe.objective(recipe, Recording(), batch, key)
    return seen


def test_a_box_of_the_partners_image_is_pasted_unchanged():
    """Every pixel is that of the row or, in one box for all rows, that of its partner."""
    images = np.random.default_rng(0).uniform(0, 1, (6, SIZE, SIZE, 3)).astype(np.float32)
    keys = rng.split(rng.root(0), 10)
    steps = pasted_steps(images, np.arange(6) % 3, recipe_of("cutmix"), keys)
    of_images, _ = shares(recipe_of("cutmix"), np.arange(6) % 3, keys=keys)
    corners = set()
    for found, share, partner in zip(steps, of_images, partners(of_images), strict=True):
        changed = (found != images).any(axis=(0, 3))
        rows, columns = (np.flatnonzero(changed.any(axis=i)) for i in (1, 0))
        if not changed.any():
            continue
        inside = np.ix_(range(6), rows, columns)
        expected = images.copy()
        expected[inside] = images[partner][inside]
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(1 - np.diag(share)[partner != np.arange(6)], changed.mean())
        corners.add((rows[0], columns[0]))
    assert len(corners) > 4


@pytest.mark.parametrize(
    ("probability", "low", "high"), [(0.0, 0, 0), (0.5, 0.4, 0.6), (1.0, 1, 1)]
)
def test_the_probability_of_a_step(probability, low, high):
    recipe = cutmix(Recipe(), STATS, alpha=1e3, probability=probability)
    of_images, _ = shares(recipe, np.arange(6) % 3, keys=rng.split(rng.root(1), 300))
    pasted = (np.diagonal(of_images, axis1=1, axis2=2) < 1).any(axis=1)
    assert low <= pasted.mean() <= high


def test_the_share_is_that_of_the_ratio_where_nothing_is_cut_off():
    """Half of the area, up to the rounding of the sides, with ratios near 1/2 and central boxes."""
    recipe = cutmix(Recipe(), STATS, alpha=1e3, probability=1.0)
    own = np.diagonal(shares(recipe, np.arange(6) % 3)[0], axis1=1, axis2=2).min(axis=1)
    # Sides of 8 * sqrt(1/2) = 5.7, rounded to 4, of which at least 2 x 2 pixels are inside.
    assert own.min() == 1 - 4 * 4 / 64 and own.max() <= 1 - 2 * 2 / 64


def test_a_step_against_numpy():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (7, SIZE, SIZE, 3), dtype=np.uint8)
    labels = (np.arange(7) % 3).astype(np.int32)
    kernel = draw.normal(0, 0.3, (images[0].size, 3)).astype(np.float32)
    recipe = recipe_of("cutmix")
    key = rng.at(rng.stream(0, "objective"), 0)
    of_images, _ = shares(recipe, labels, keys=key[None])
    (mixed,) = pasted_steps(images / 255, labels, recipe, [key])
    partner, own = partners(of_images)[0], np.diag(of_images[0]).min()
    assert 0 < own < 1 and (labels != labels[partner]).any()
    _, _, grads = run(recipe, images, labels, kernel)
    features = mixed.reshape(7, -1).astype(np.float64)
    expected = cross_entropy_gradient(
        np.concatenate([features, features]),
        np.concatenate([labels, labels[partner]]),
        kernel,
        np.repeat([own, 1 - own], 7),
    )
    np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-6)
