"""Invariants of all methods that mix pairs of rows: kinds of rows, shares, padding, limits."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.config.validation import validate
from purenoise_jax.methods import METHODS, build_recipe
from purenoise_jax.methods.mixing import draw_partners
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.train_step import Inputs
from tests.linear_step import run, state_of, step_of
from tests.mixtures import (
    CASES,
    LABELS,
    NOISE,
    SIZE,
    STATS,
    VALID,
    batch_of,
    outcome_of,
    recipe_of,
    shares,
)
from tests.tiny import tiny_config, write_npz

every_case = pytest.mark.parametrize("case", CASES)


def data(rows=7, num_classes=3):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (rows, SIZE, SIZE, 3), dtype=np.uint8)
    kernel = draw.normal(0, 0.3, (images[0].size, num_classes)).astype(np.float32)
    return images, (np.arange(rows) % num_classes).astype(np.int32), kernel


def test_all_mixing_methods_are_tested_here():
    """A method that mixes rows gives places, as none else does."""
    needed = {"seql": {"threshold": 0.5}}
    named = {name for name in METHODS if build_recipe([name], STATS, needed).places}
    assert named == {name for name, _ in CASES.values()}


@pytest.mark.every(3)
@every_case
def test_a_row_is_mixed_with_one_of_its_kind(case):
    of_images, of_labels = shares(recipe_of(case), LABELS, VALID, NOISE)
    natural, noise = VALID & ~NOISE, VALID & NOISE
    same_kind = (np.outer(natural, natural) | np.outer(noise, noise)) > 0
    for found in (of_images, of_labels):
        assert (found[:, VALID] >= 0).all()
        assert not found[:, VALID][:, ~same_kind[VALID]].any()
        np.testing.assert_allclose(found[:, VALID].sum(axis=2), 1, rtol=1e-6)
    others = (of_images > 0) & ~np.eye(len(LABELS), dtype=bool)
    assert others.sum(axis=1).max() == others.sum(axis=2).max() == 1, "pairs are a permutation"
    assert others.any(axis=(0, 2))[VALID].all(), "every row is mixed in some step"
    new_labels = (of_labels > 0) & ~np.eye(len(LABELS), dtype=bool)
    assert not (new_labels & ~others)[:, VALID].any(), "labels are those of the two rows"


@pytest.mark.every(3)
@pytest.mark.parametrize("case", ["mixup", "mixup, weights", "manifold_mixup", "cutmix"])
def test_labels_are_mixed_as_images_are(case):
    of_images, of_labels = shares(recipe_of(case))
    np.testing.assert_allclose(of_images, of_labels, atol=1e-6)
    own = np.diagonal(of_images, axis1=1, axis2=2)
    assert 0.3 < own.mean() < 0.95 and len(np.unique(own.round(4))) > 8


@every_case
@pytest.mark.parametrize("others", [(), ("ldam", "drw")])
def test_with_alpha_zero_nothing_is_mixed(case, others):
    plain = run(build_recipe(others, STATS, {}), *data())
    ours = run(recipe_of(case, *others, alpha=0.0), *data())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), ours, plain)
    mixed = run(recipe_of(case, *others), *data())
    assert np.abs(mixed[2] - plain[2]).max() > 1e-4


@pytest.mark.every(3)
@every_case
def test_values_of_padding_have_no_effect(case):
    images, labels, kernel = data(len(LABELS))
    recipe = recipe_of(case, "drw")
    state, step = state_of(kernel, recipe), step_of(recipe)

    @jax.jit
    @partial(jax.value_and_grad)
    def loss(params, fill):
        filled = jnp.where(VALID[:, None, None, None], images / 255, fill)
        batch = batch_of(filled, labels, VALID, NOISE)
        return step.loss(params, None, state, Inputs(None, None), batch)[0]

    expected, found = (loss(state.params, fill) for fill in (0.0, np.nan))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert found[0] > 0


@pytest.mark.every(3)
@every_case
def test_noise_and_natural_rows_have_no_effect_on_each_other(case):
    images, labels, kernel = data(len(LABELS))
    recipe = recipe_of(case)

    @jax.jit
    def losses(key, filled):
        filled = jnp.where(filled[:, None, None, None], np.nan, images / 255)
        return outcome_of(recipe, batch_of(filled, labels, None, NOISE), kernel, key).losses

    for i in range(4):
        assert (np.isfinite(losses(rng.root(i), NOISE)) == ~NOISE).all()
        assert (np.isfinite(losses(rng.root(i), ~NOISE)) == NOISE).all()


@pytest.mark.every(3)
@every_case
def test_a_step_is_the_same_compiled_or_not(case):
    images, labels, kernel = data()
    batch = batch_of(images / 255, labels)
    outcome = partial(outcome_of, recipe_of(case, "drw"), batch, kernel)
    found, expected = jax.jit(outcome)(rng.root(3)), outcome(rng.root(3))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, expected)
    other = jax.jit(outcome)(rng.root(4))
    assert np.abs(other.losses - found.losses).max() > 1e-4


@every_case
def test_both_passes_of_sam_mix_alike(case):
    plain = run(recipe_of(case), *data())
    name, given = CASES[case]
    methods = {"sam": {"rho": 0.0}, name: given}
    ours = run(build_recipe([name, "sam"], STATS, methods), *data())
    jax.tree.map(np.testing.assert_array_equal, ours, plain)


@every_case
@pytest.mark.parametrize("others", [(), ("drw",)])
def test_a_batch_of_only_padding_has_a_zero_gradient(case, others):
    images, labels, kernel = data()
    _, sums, grads = run(recipe_of(case, *others), images, labels, kernel, np.zeros(7, bool))
    assert sums.row_loss == 0 and not grads.any()


@pytest.mark.every(5)
@every_case
@pytest.mark.parametrize("counts", [(5,), (10**6, 3, 1)])
def test_degenerate_classes_and_extreme_logits_are_finite(case, counts):
    images, labels, kernel = data(num_classes=len(counts))
    stats = dataclasses.replace(STATS, class_counts=np.array(counts))
    recipe = recipe_of(case, "drw", "label_smoothing", stats=stats)
    batch = {**batch_of(images / 255, labels, num_classes=len(counts)), "valid": VALID[:7]}
    batch = recipe.transforms[0](rng.root(0), batch)

    @jax.jit
    @partial(jax.value_and_grad)
    def loss(kernel, key):
        found = outcome_of(recipe, batch, kernel, key)
        return jnp.where(VALID[:7], found.losses * found.weights, 0).sum()

    for i in range(3):
        value, grads = loss(1e5 * kernel, rng.root(i))
        assert np.isfinite(value) and np.isfinite(grads).all()


@every_case
def test_a_second_objective_is_refused_by_name(case):
    name, other = CASES[case][0], "mixup" if CASES[case][0] != "mixup" else "mamix"
    with pytest.raises(ConfigError, match=f"methods {name} and {other} both set objective of a"):
        build_recipe([name, "drw", other], STATS, {name: CASES[case][1]})


def test_a_row_alone_of_its_kind_is_its_own_partner():
    one = {"valid": np.ones(3, bool), "noise_mask": np.array([False, True, False])}
    assert all(draw_partners(rng.root(i), one)[1] == 1 for i in range(5))


def test_the_default_recipe_mixes_nothing():
    of_images, of_labels = shares(Recipe(), keys=rng.root(0)[None])
    np.testing.assert_array_equal(of_images[0], np.eye(len(LABELS)))
    np.testing.assert_array_equal(of_labels[0], np.eye(len(LABELS)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model"),
    [("cutmix", "tiny"), ("remix", "tiny"), ("mamix", "tiny"), ("mfw", "resnet8")],
)
def test_it_trains_at_its_default_place_with_noise_rows(name, model, tmp_path):
    config = tiny_config(
        write_npz(tmp_path / "tiny.npz"),
        **{"model.name": model, "phases.deferred.methods": ("drw", "open", name, "ema"),
           "num_epochs": 3},
    )  # fmt: skip
    validate(config)
    state = train_and_evaluate(config, tmp_path / "run")
    assert state.step == 9 and int(state.extra["ema"]["steps"]) == 3, "no step was skipped"
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
