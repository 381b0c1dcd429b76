"""The moving averages against numpy, in a first and in a later phase, and without decay."""

import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.training.train_step import Inputs, Rows
from tests.headed_step import params_of, setup
from tests.linear_step import STATS, data, state_of, step_of


def train(recipe, steps, start=0):
    """Returns kernels and states after each step; the method starts after `start` steps."""
    images, labels, kernel = data()
    state = state_of(kernel, recipe)
    inputs, rows = Inputs(images, labels), Rows(np.arange(6), np.ones(6, bool))
    plain = build_recipe(["erm"], STATS, {})
    kernels, states = [], []
    for i in range(start + steps):
        state, _, _ = step_of(plain if i < start else recipe).update(state, inputs, rows)
        kernels.append(np.asarray(state.params["head"]["kernel"], np.float64))
        states.append(state)
    return kernels, states


@pytest.mark.parametrize("start", [0, 3])
def test_the_average_against_numpy(start):
    recipe = build_recipe(["ema"], STATS, {"ema": {"decay": 0.4}})
    kernels, states = train(recipe, 6, start)
    average = None
    for t, kernel in enumerate(kernels[start:]):
        kept = 0 if average is None else min(0.4, (1 + t) / (10 + t))
        average = kernel if average is None else kept * average + (1 - kept) * kernel
        found = recipe.eval_variables(states[start + t])
        np.testing.assert_allclose(found["params"]["head"]["kernel"], average, rtol=1e-5)
        assert set(found) == {"params", "batch_stats"}
        assert int(states[start + t].extra["ema"]["steps"]) == t + 1


def test_running_statistics_have_an_average_of_their_own_against_numpy():
    recipe = build_recipe(["ema"], STATS, {"ema": {"decay": 0.4}})
    step, state, inputs, rows = setup(recipe, params_of(), mean=0.2)
    pixels = data()[0].reshape(6, -1).mean(axis=0) / 255
    mean, averages = np.full(12, 0.2), {}
    for t in range(6):
        body = np.asarray(state.params["body"], np.float64)
        mean = 0.5 * mean + 0.5 * pixels * body
        state, _, _ = step.update(state, inputs, rows)
        np.testing.assert_allclose(state.batch_stats["mean"], mean, rtol=1e-5)
        new = {"mean": mean, "body": np.asarray(state.params["body"], np.float64)}
        kept = 0 if t == 0 else min(0.4, (1 + t) / (10 + t))
        averages = {
            name: kept * averages.get(name, 0) + (1 - kept) * value for name, value in new.items()
        }
        found = recipe.evaluated(state)
        np.testing.assert_allclose(found["batch_stats"]["mean"], averages["mean"], rtol=1e-5)
        np.testing.assert_allclose(found["params"]["body"], averages["body"], rtol=1e-5)
    # Neither the statistics of the last step nor those of the averaged parameters.
    assert np.abs(averages["mean"] - mean).max() > 1e-3
    assert np.abs(averages["mean"] - pixels * averages["body"]).max() > 1e-3


def test_without_decay_the_average_is_the_last_step():
    recipe = build_recipe(["ema"], STATS, {"ema": {"decay": 0.0}})
    kernels, states = train(recipe, 4)
    found = recipe.eval_variables(states[-1])["params"]["head"]["kernel"]
    np.testing.assert_array_equal(found, kernels[-1].astype(np.float32))


def test_the_average_does_not_change_the_training():
    with_average, _ = train(build_recipe(["ema"], STATS, {}), 3)
    without, _ = train(build_recipe(["erm"], STATS, {}), 3)
    np.testing.assert_array_equal(with_average, without)
