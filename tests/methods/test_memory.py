"""Memories, projections and second views: against hand-written recipes on a linear network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.methods.recipe import Memory, Recipe
from purenoise_jax.runtime import rng
from purenoise_jax.training.build import build
from purenoise_jax.training.train_step import Inputs, Rows
from tests.linear_step import data, run, state_of, step_of
from tests.tiny import tiny_config, write_npz


def class_sums():
    """A memory that adds up the features of every class."""

    def update(sums, observed):
        batch = observed.batch
        features = jnp.where(batch["valid"][:, None], observed.outputs["features"], 0)
        return sums + batch["target"].T @ features

    return Memory(lambda variables: jnp.zeros((3, 12)), update)


def test_a_memory_sees_the_features_and_labels_of_the_step():
    images, labels, kernel = data(rows=6)
    valid = np.array([1, 1, 1, 1, 0, 1], bool)
    recipe = Recipe(memory={"sums": class_sums()})
    state, *_ = run(recipe, images, labels, kernel, valid)
    pixels = images.reshape(6, -1) / 255
    expected = np.stack([pixels[valid & (labels == k)].sum(axis=0) for k in range(3)])
    np.testing.assert_allclose(state.extra["sums"], expected, rtol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_memory_sees_the_learning_rate_of_the_head(factor):
    memory = Memory(
        lambda variables: jnp.float32(0), lambda tree, observed: tree + observed.learning_rate
    )
    recipe = Recipe(memory={"rate": memory}).with_head_factor(factor)
    state, *_ = run(recipe, *data(), lr=0.5)
    np.testing.assert_allclose(state.extra["rate"], factor * 0.5)


def test_a_projection_follows_the_update_and_sees_the_memories():
    def project(params, memory):
        limit = memory["limit"]
        return jax.tree.map(lambda x: jnp.clip(x, -limit, limit), params)

    recipe = Recipe(
        memory={"limit": Memory(lambda variables: jnp.float32(0.05), lambda tree, observed: tree)},
        project=project,
    )
    images, labels, kernel = data()
    free, *_ = run(Recipe(), images, labels, kernel)
    bound, *_ = run(recipe, images, labels, kernel)
    free, bound = (np.asarray(s.params["head"]["kernel"]) for s in (free, bound))
    assert np.abs(free).max() > 0.05
    np.testing.assert_array_equal(bound, np.clip(free, np.float32(-0.05), np.float32(0.05)))


def test_two_views_are_augmented_independently_and_one_is_as_before():
    def augment(key, images):
        return images + rng.uniform(key, (len(images), 1, 1, 1))

    builder = BatchBuilder(augment, np.zeros(3, np.float32), np.ones(3, np.float32), 3)
    images, labels, _ = data()
    rows = (jnp.asarray(images), jnp.asarray(labels), jnp.arange(6), jnp.ones(6, bool))
    key = rng.root(0)
    one, two = builder.make_batch(key, *rows), builder.make_batch(key, *rows, views=2)
    assert "second" not in one and two["second"].shape == two["image"].shape
    change = [np.asarray(x)[:, 0, 0, 0] - images[:, 0, 0, 0] / 255 for x in (two["image"], two["second"])]  # fmt: skip
    assert np.abs(change[0] - change[1]).min() > 1e-4
    recipe = Recipe(views=2)
    step = step_of(recipe)
    inputs = Inputs(jnp.asarray(images), jnp.asarray(labels))
    batch = step.batch(jnp.int32(0), inputs, Rows(rows[2], rows[3]))
    assert "second" in batch and state_of(data()[2], recipe).extra == {}


@pytest.mark.parametrize("views", [1, 2])
def test_a_recipe_may_take_images_as_they_are_stored(views):
    def augment(key, images):
        return 1 - images

    builder = BatchBuilder(augment, np.zeros(3, np.float32), np.ones(3, np.float32), 3)
    images, labels, _ = data()
    inputs = Inputs(jnp.asarray(images), jnp.asarray(labels))
    rows = Rows(jnp.arange(6), jnp.ones(6, bool))
    for augments in (True, False):
        recipe = Recipe(augments=augments, views=views)
        step = step_of(recipe, builder=builder)
        batch = step.batch(jnp.int32(0), inputs, rows)
        expected = images / 255 if not augments else 1 - images / 255
        for name in ("image", "second")[:views]:
            np.testing.assert_allclose(batch[name], expected, atol=1e-6)


def test_a_memory_begins_anew_in_the_phase_that_begins_to_use_it(tmp_path):
    config = tiny_config(write_npz(tmp_path / "data.npz"))
    config.phases = ConfigDict({"initial": make_phase(0, ("ema",))})
    experiment = build(config)
    (phase,) = experiment.phases
    plain = dataclasses.replace(phase, recipe=Recipe())
    later = dataclasses.replace(phase, start=1)
    experiment = dataclasses.replace(experiment, phases=(plain, later))
    state = experiment.init()
    trained = state.replace(params=jax.tree.map(lambda x: x + 1, state.params))
    begun = experiment.enter(later, trained)
    jax.tree.map(np.testing.assert_array_equal, begun.extra["ema"]["params"], trained.params)
    both = dataclasses.replace(experiment, phases=(phase, later))
    kept = both.enter(later, trained)
    jax.tree.map(np.testing.assert_array_equal, kept.extra["ema"]["params"], state.params)
    # An average that holds the classifier begins anew where that is reset, but not for a momentum.
    for reset, anew in ((("head",), True), (("opt_state",), False)):
        again = dataclasses.replace(later, reset=reset)
        state = trained.replace(extra=jax.tree.map(lambda x: x + 5, trained.extra))
        found = dataclasses.replace(experiment, phases=(phase, again)).enter(again, state)
        wanted = (0, found.params) if anew else (5, state.extra["ema"]["params"])
        assert int(found.extra["ema"]["steps"]) == wanted[0]
        jax.tree.map(np.testing.assert_array_equal, found.extra["ema"]["params"], wanted[1])
