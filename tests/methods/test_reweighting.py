"""Class weights by powers of frequency, ADRW with TLA, and the two divisors of the mean."""

import numpy as np
import pytest

from purenoise_jax.config.fields import default_config
from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.config.validation import validate
from purenoise_jax.data.longtail import long_tail_counts
from purenoise_jax.methods import METHODS, arguments_of, build_recipe
from purenoise_jax.methods.reweighting import inverse_weights
from purenoise_jax.runtime.errors import ConfigError
from tests.linear_step import COUNTS, STATS, cross_entropy_gradient, data, run

CIFAR10_LT = long_tail_counts(5000, 10, imbalance_ratio=100)


@pytest.mark.parametrize("power", [0.0, 0.15, 0.5, 1.0, 2.0])
def test_weights_have_a_mean_of_one_and_the_ratio_of_the_power(power):
    found = inverse_weights(CIFAR10_LT, power)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(), 1, rtol=1e-6)
    np.testing.assert_allclose(found[-1] / found[0], 100**power, rtol=1e-5)
    share = CIFAR10_LT / CIFAR10_LT.sum()
    np.testing.assert_allclose(found, share**-power / (share**-power).sum() * 10, rtol=1e-5)


def test_extreme_powers_and_counts_have_finite_weights():
    for counts in (np.array([1]), np.array([10**9, 1]), np.array([7, 7]), CIFAR10_LT):
        for power in (1e-30, 1.0, 1e30):
            found = inverse_weights(counts, power)
            assert np.isfinite(found).all()
            np.testing.assert_allclose(found.mean(), 1, rtol=1e-6)


def test_names_of_the_same_weights():
    weights = {
        name: build_recipe([name], STATS, {name: arguments}).class_weights
        for name, arguments in {
            "adrw": {"t": 0.4},
            "reweight": {"power": 0.4},
            "class_balanced": {},
            "drw": {},
        }.items()
    }
    np.testing.assert_array_equal(weights["adrw"], weights["reweight"])
    np.testing.assert_array_equal(weights["class_balanced"], weights["drw"])
    near_one = build_recipe(["drw"], STATS, {"drw": {"beta": 1 - 1e-9}}).class_weights
    np.testing.assert_allclose(inverse_weights(COUNTS, 1.0), near_one, rtol=1e-5)


@pytest.mark.parametrize("name", ["class_balanced", "drw", "reweight", "adrw"])
def test_the_divisor_is_the_sum_of_weights_or_the_number_of_rows(name):
    images, labels, kernel = data(rows=7)
    valid = np.arange(7) < 5
    features = images[valid].reshape(5, -1) / 255
    for divide_by in ("weights", "rows"):
        recipe = build_recipe([name], STATS, {name: {"divide_by": divide_by}})
        weights = recipe.class_weights[labels[valid]].astype(np.float64)
        expected = cross_entropy_gradient(features, labels[valid], kernel, weights)
        if divide_by == "rows":
            expected *= weights.mean()
        _, _, grads = run(recipe, images, labels, kernel, valid)
        np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-6)
        _, sums, grads = run(recipe, images, labels, kernel, np.zeros(7, bool))
        assert sums.row_loss == 0 and not grads.any()


def test_adrw_and_tla_follow_vector_scaling_in_a_later_phase():
    config = default_config()
    config.num_epochs = 200
    config.phases.initial.methods = ("vs",)
    config.phases.deferred = make_phase(160, ("adrw", "tla"))
    validate(config)
    recipe = build_recipe(("adrw", "tla"), STATS, {"tla": {"tau": 0.75}})
    logits, target = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[1, 2, 0]]
    additive = build_recipe(["vs"], STATS, {"vs": {"gamma": 0.0, "tau": 0.75}})
    np.testing.assert_array_equal(recipe.loss(logits, target), additive.loss(logits, target))
    assert recipe.class_weights[-1] > recipe.class_weights[0] and recipe.weighted_mean
    with pytest.raises(ConfigError, match="methods vs and tla both set loss of a step"):
        build_recipe(["vs", "tla"], STATS, {})


def test_runs_from_before_the_divisor_was_a_field_divided_by_the_weights():
    found = arguments_of(METHODS["drw"])["divide_by"]
    assert found.default == found.absent == "weights"
