"""The tau-normalised classifier: against numpy, its limits, and with a moving average."""

import jax
import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.recipe import current_variables
from tests.headed_step import params_of, train
from tests.linear_step import STATS


def evaluated(state, *methods, **arguments):
    return build_recipe(methods, STATS, {"tau_norm": arguments}).evaluated(state)


@pytest.fixture(scope="module")
def state():
    return train(build_recipe(["erm"], STATS, {}), params_of())[0]


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_weight_vectors_against_numpy(state, tau):
    kernel = np.asarray(state.params["head"]["fc"]["kernel"], float)
    found = evaluated(state, "tau_norm", tau=tau, bias=True)["params"]["head"]["fc"]
    expected = kernel / np.sqrt((kernel**2).sum(axis=0)) ** tau
    np.testing.assert_allclose(found["kernel"], expected, rtol=1e-5)
    np.testing.assert_array_equal(found["bias"], state.params["head"]["fc"]["bias"])


def test_only_the_head_changes_and_only_in_evaluation(state):
    found = evaluated(state, "tau_norm")
    np.testing.assert_array_equal(found["params"]["body"], state.params["body"])
    assert found["batch_stats"] is state.batch_stats
    normalised, *_ = train(build_recipe(["tau_norm"], STATS, {}), params_of())
    jax.tree.map(np.testing.assert_array_equal, normalised, state)


def test_an_exponent_of_zero_changes_nothing(state):
    found = evaluated(state, "tau_norm", tau=0.0, bias=True)
    jax.tree.map(np.testing.assert_array_equal, found, current_variables(state))


def test_the_bias_is_left_out_and_zero_vectors_stay_zero(state):
    params = params_of()
    params["head"]["fc"]["kernel"][:, 1] = 0
    found = evaluated(state.replace(params=params), "tau_norm", tau=2.0)
    assert not np.asarray(found["params"]["head"]["fc"]["bias"]).any()
    kernel = np.asarray(found["params"]["head"]["fc"]["kernel"])
    assert not kernel[:, 1].any() and np.isfinite(kernel).all()


@pytest.mark.parametrize("methods", [("ema", "tau_norm"), ("tau_norm", "ema")])
def test_it_normalises_a_moving_average_in_either_order(methods):
    recipe = build_recipe(methods, STATS, {})
    state, *_ = train(recipe, params_of(), steps=3)
    averaged = np.asarray(state.extra["ema"]["params"]["head"]["fc"]["kernel"], float)
    found = recipe.evaluated(state)["params"]["head"]["fc"]["kernel"]
    np.testing.assert_allclose(found, averaged / np.linalg.norm(averaged, axis=0), rtol=1e-5)
    assert np.abs(averaged - state.params["head"]["fc"]["kernel"]).max() > 1e-3
