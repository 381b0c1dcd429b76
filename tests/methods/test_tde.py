"""TDE: the mean feature against numpy, and that only evaluation takes it out."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.config.fields import validate
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Recipe, current_variables
from purenoise_jax.models import HEADS
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.experiment import build
from purenoise_jax.training.loop import train_and_evaluate
from tests.linear_step import BUILDER, STATS
from tests.tiny import TinyNet, tiny_config, write_npz

MODEL = TinyNet(num_classes=3, head=HEADS["causal"])
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (6, 2, 2, 3)), jnp.float32)
LABEL = jnp.array([0, 1, 2, 2, 0, 1])
RECIPE = build_recipe(["tde"], STATS, {"tde": {"mu": 0.75, "alpha": 1.5}})


@pytest.fixture(scope="module")
def variables():
    return jax.jit(partial(MODEL.init, train=False))(rng.root(0), IMAGES)


def batch_of(valid, noise, fill=0.0):
    image = jnp.where(jnp.asarray(valid)[:, None, None, None], IMAGES, fill)
    batch = {"image": image, "label": LABEL, "target": jnp.eye(3)[LABEL]}
    return {**batch, "valid": jnp.asarray(valid), "noise_mask": jnp.asarray(noise)}


@partial(jax.jit, static_argnames="recipe_of")
def step(variables, batch, recipe_of=lambda: RECIPE):
    """Returns the outcome, the statistics after it, and the gradient of the mean loss."""
    recipe = recipe_of()

    def loss(params):
        networks = Networks(
            MODEL, BUILDER.normalize, params, variables["batch_stats"],
            valid=batch["valid"], dropout_key=rng.root(0),
        )  # fmt: skip
        outcome = recipe.objective(recipe, networks, batch, rng.root(0))
        mean = jnp.where(batch["valid"], outcome.losses, 0).mean()
        return mean, (outcome, networks.batch_stats)

    grads, (outcome, statistics) = jax.grad(loss, has_aux=True)(variables["params"])
    return outcome, statistics, grads


def test_the_mean_feature_moves_by_the_natural_rows(variables):
    valid, noise = np.arange(6) < 5, np.array([0, 1, 0, 0, 0, 0], bool)
    batch = batch_of(valid, noise, fill=np.nan)
    (_, outputs), _ = MODEL.apply(
        variables, jnp.where(valid[:, None, None, None], IMAGES, 0), batch["noise_mask"],
        batch["valid"], train=True, mutable=["batch_stats"],
    )  # fmt: skip
    natural = np.asarray(outputs["features"])[valid & ~noise].mean(0)
    _, first, _ = step(variables, batch)
    np.testing.assert_allclose(first["head"]["mean_feature"], 0.25 * natural, rtol=1e-5)
    _, second, _ = step({**variables, "batch_stats": first}, batch)
    np.testing.assert_allclose(
        second["head"]["mean_feature"], (0.75 * 0.25 + 0.25) * natural, rtol=1e-5
    )
    assert second["head"]["alpha"] == 0 and "norm" in second


def test_a_batch_without_natural_rows_leaves_the_mean_feature(variables):
    every = np.ones(6, bool)
    _, before, _ = step(variables, batch_of(every, ~every))
    for batch in (batch_of(every, every), batch_of(~every, ~every, fill=np.nan)):
        _, after, grads = step({**variables, "batch_stats": before}, batch)
        np.testing.assert_array_equal(after["head"]["mean_feature"], before["head"]["mean_feature"])
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_training_is_that_of_the_loss_of_the_recipe(variables):
    """Neither the mean feature nor alpha changes the loss of a step or its gradient."""
    batch = batch_of(np.arange(6) < 5, np.zeros(6, bool))
    _, statistics, _ = step(variables, batch)
    moved = {**variables, "batch_stats": statistics}
    ours, plain = step(moved, batch), step(variables, batch, recipe_of=Recipe)
    jax.tree.map(np.testing.assert_array_equal, ours[0], plain[0])
    jax.tree.map(np.testing.assert_array_equal, ours[2], plain[2])


def test_evaluation_takes_alpha_times_the_mean_direction_out(variables):
    _, statistics, _ = step(variables, batch_of(np.ones(6, bool), np.zeros(6, bool)))

    class State:
        params, batch_stats = variables["params"], statistics

    used = RECIPE.eval_variables(State)
    assert used["batch_stats"]["head"]["alpha"] == 1.5 and statistics["head"]["alpha"] == 0
    apply = jax.jit(partial(MODEL.apply, train=False))
    logits, outputs = apply(used, IMAGES)
    plain, _ = apply(current_variables(State), IMAGES)
    x, c = (
        np.asarray(a, np.float64).reshape(-1, 2, 16)
        for a in (outputs["features"], statistics["head"]["mean_feature"])
    )
    unit, c = (a / np.linalg.norm(a, axis=2, keepdims=True) for a in (x, c))
    w = np.asarray(State.params["head"]["kernel"], np.float64).reshape(2, 16, 3)
    w = w / (np.linalg.norm(w, axis=1, keepdims=True) + 1 / 32)
    effect = 8 * 1.5 * np.einsum("bhf,xhf,xhg,hgk->bk", unit, c, c, w)
    np.testing.assert_allclose(plain - logits, effect, rtol=1e-4, atol=1e-4)
    none = build_recipe(["tde"], STATS, {"tde": {"alpha": 0.0}}).eval_variables(State)
    np.testing.assert_array_equal(apply(none, IMAGES)[0], plain)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def test_another_head_is_refused(npz):
    config = tiny_config(npz, **{"model.name": "resnet8", "phases.deferred.methods": ("tde",)})
    with pytest.raises(ConfigError, match=r"needs model\.head=causal"):
        build(config)


@pytest.mark.slow
def test_it_trains_with_other_methods_and_resumes_bitwise(npz, tmp_path):
    methods = ("tde", "open", "sam")
    config = tiny_config(
        npz,
        **{"model.head": "causal", "phases.deferred.methods": methods, "num_epochs": 3,
           "optimizer.milestones": (), "checkpoint.every_steps": 1, "checkpoint.keep": 9},
    )  # fmt: skip
    validate(config)
    whole = train_and_evaluate(config, tmp_path / "run")
    assert whole.batch_stats["head"]["mean_feature"].any()
    for name in ("8", "9"):
        (tmp_path / "run/checkpoints" / name).rename(tmp_path / name)
    again = train_and_evaluate(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, again, whole)
