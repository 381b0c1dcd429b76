"""Evaluation with known class shares: Bayes' rule for evenly trained networks, others as they are."""

import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.class_shares import for_evaluation
from tests.linear_step import COUNTS, STATS

KNOWN = np.array([0.05, 0.25, 0.7])
# Those that leave logits as they are, or say themselves how shares enter.
OWN = [
    *("erm", "ldam", "focal", "sam", "mixup", "tau_norm", "ncm", "los", "append", "tde"),
    *("logit_adjustment", "balanced_softmax", "vs", "cdt", "lade", "rs+balanced_softmax"),
    *("decoupled_softmax", "meta_sampler", "drw+vs"),
]
EVEN = ["rs", "drs", "open", "crt", "lws", "mislas", "reweight", "open+focal", "rs+mixup+sam"]


def recipe_of(names):
    return build_recipe(names.split("+"), STATS, {})


def posterior(likelihood, prior):
    joint = likelihood * prior
    return joint / joint.sum(axis=1, keepdims=True)


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("names", OWN)
def test_methods_without_class_shares_of_their_own_keep_their_evaluation(names):
    recipe = recipe_of(names)
    assert for_evaluation(recipe, COUNTS) is recipe.postprocess


@pytest.mark.parametrize("names", EVEN)
def test_a_perfect_network_of_even_classes_is_perfect_for_the_known_shares(names):
    recipe = recipe_of(names)
    likelihood = np.random.default_rng(0).uniform(0.01, 1, (50, 3))
    logits = jnp.asarray(np.log(posterior(likelihood, np.ones(3))), jnp.float32)
    evaluate = for_evaluation(recipe, COUNTS)
    found = softmax(evaluate(logits, jnp.log(jnp.float32(KNOWN))))
    np.testing.assert_allclose(found, posterior(likelihood, KNOWN), atol=1e-5)
    np.testing.assert_array_equal(evaluate(logits), recipe.postprocess(logits))


def test_weights_that_are_not_even_are_those_of_the_classes():
    """Half the power of the inverse frequency leaves shares in proportion to sqrt(n)."""
    recipe = build_recipe(["reweight"], STATS, {"reweight": {"power": 0.5}})
    likelihood = np.random.default_rng(1).uniform(0.01, 1, (50, 3))
    logits = jnp.asarray(np.log(posterior(likelihood, COUNTS**0.5)), jnp.float32)
    found = softmax(for_evaluation(recipe, COUNTS)(logits, jnp.log(jnp.float32(KNOWN))))
    np.testing.assert_allclose(found, posterior(likelihood, KNOWN), atol=1e-5)


def test_logits_are_scaled_as_the_method_has_it_before_the_shares_are_added():
    recipe = recipe_of("ldam+drs")
    logits = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (4, 3)), jnp.float32)
    found = for_evaluation(recipe, COUNTS)(logits, jnp.log(jnp.float32(KNOWN)))
    np.testing.assert_allclose(found, 30 * np.asarray(logits) + np.log(3 * KNOWN), rtol=1e-5)
