"""The moving average against numpy, in a first and in a later phase, and without decay."""

import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.training.train_step import Inputs, Rows
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


def test_without_decay_the_average_is_the_last_step():
    recipe = build_recipe(["ema"], STATS, {"ema": {"decay": 0.0}})
    kernels, states = train(recipe, 4)
    found = recipe.eval_variables(states[-1])["params"]["head"]["kernel"]
    np.testing.assert_array_equal(found, kernels[-1].astype(np.float32))


def test_the_average_does_not_change_the_training():
    with_average, _ = train(build_recipe(["ema"], STATS, {}), 3)
    without, _ = train(build_recipe(["erm"], STATS, {}), 3)
    np.testing.assert_array_equal(with_average, without)
