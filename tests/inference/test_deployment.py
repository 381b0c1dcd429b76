"""Priors and costs, compared with Bayes' rule and with sums written out."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.inference.deployment import (
    Deployment,
    for_prior,
    read_costs,
    read_prior,
)
from purenoise_jax.methods import METHODS, build_recipe
from purenoise_jax.methods.class_shares import takes_prior, trained_shares
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime.errors import ConfigError
from tests.linear_step import STATS

NAMES = ("cat", "dog", "red panda")
COUNTS = np.array([70, 20, 10])


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def posterior(likelihood, prior):
    """Bayes' rule: f64[N, K] from p(x | class) [N, K] and the prior [K]."""
    joint = likelihood * prior
    return joint / joint.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("prior", [[1 / 3] * 3, [0.7, 0.2, 0.1], [0.05, 0.15, 0.8], [0.5, 0.5, 0]])
def test_a_perfect_network_stays_perfect_under_another_prior(prior):
    likelihood = np.random.default_rng(0).uniform(0.01, 1, (50, 3))
    trained = COUNTS / COUNTS.sum()
    logits = jnp.asarray(np.log(posterior(likelihood, trained)), jnp.float32)
    adapted = for_prior(Recipe().postprocess, trained, np.array(prior))
    np.testing.assert_allclose(
        softmax(adapted(logits)), posterior(likelihood, np.array(prior)), atol=1e-6
    )


def test_the_prior_of_training_changes_nothing_and_none_keeps_the_methods_own():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(9, 3)), jnp.float32)
    trained = COUNTS / COUNTS.sum()
    same = for_prior(Recipe().postprocess, trained, trained)
    np.testing.assert_allclose(same(logits), logits, atol=1e-6)
    own = Recipe().postprocess
    assert for_prior(own, trained, None) is own


def test_a_method_that_takes_a_prior_is_given_it():
    recipe = build_recipe(["balanced_softmax"], STATS, {})
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(9, STATS.num_classes)), jnp.float32)
    prior = np.linspace(1, 2, STATS.num_classes)
    prior /= prior.sum()
    adapted = for_prior(recipe.postprocess, trained_shares(recipe, STATS.class_counts), prior)
    np.testing.assert_allclose(adapted(logits), logits + np.log(prior)[None], atol=1e-6)


def test_every_method_is_known_to_take_a_prior_or_not():
    needed = {"seql": {"threshold": 0.5}}
    takers = {
        name
        for name in METHODS
        if name not in ("tla", "adrw")
        and takes_prior(build_recipe([name], STATS, needed).postprocess, STATS.num_classes)
    }
    # Those whose network fits classes of equal frequency, by their loss.
    assert takers >= {"logit_adjustment", "balanced_softmax", "vs", "cdt", "lade"}
    assert not takers & {"erm", "drs", "open", "ldam", "drw", "focal", "sam", "mixup"}


def test_the_shares_of_training_count_draws_and_weights():
    recipe = Recipe()
    np.testing.assert_allclose(trained_shares(recipe, COUNTS), [0.7, 0.2, 0.1])
    balanced = dataclasses.replace(recipe, class_probs=np.full(3, 1 / 3, np.float32))
    np.testing.assert_allclose(trained_shares(balanced, COUNTS), [1 / 3] * 3)
    inverse = dataclasses.replace(recipe, class_weights=(1 / COUNTS).astype(np.float32))
    np.testing.assert_allclose(trained_shares(inverse, COUNTS), [1 / 3] * 3, rtol=1e-6)
    learnt = dataclasses.replace(recipe, class_draw=lambda key, memories, rows: (key, {}))
    assert trained_shares(learnt, COUNTS) is None
    with pytest.raises(ConfigError, match="which this run's method learns"):
        for_prior(recipe.postprocess, None, np.full(3, 1 / 3))


def test_the_class_of_the_least_expected_cost_is_predicted():
    rng = np.random.default_rng(0)
    probabilities, costs = rng.dirichlet(np.ones(3), 200), rng.uniform(0, 9, (3, 3))
    chosen, expected = Deployment(None, costs).decide(probabilities)
    for row in range(200):
        sums = [
            sum(probabilities[row, true] * costs[true, k] for true in range(3)) for k in range(3)
        ]
        assert chosen[row] == int(np.argmin(sums)) and np.isclose(expected[row], min(sums))
    equal, _ = Deployment(None, 1 - np.eye(3)).decide(probabilities)
    np.testing.assert_array_equal(equal, probabilities.argmax(axis=1))
    np.testing.assert_array_equal(Deployment().decide(probabilities)[0], equal)


def test_priors_are_words_files_mappings_or_numbers(tmp_path):
    def prior(given):
        return read_prior(given, NAMES, COUNTS)

    assert prior(None) is None
    np.testing.assert_allclose(prior("uniform"), [1 / 3] * 3)
    np.testing.assert_allclose(prior("train"), [0.7, 0.2, 0.1])
    file = tmp_path / "counts.csv"
    for text in (
        "class,count\nred panda,5\ncat,10\ndog, 5\n",
        "red panda,5\n\ncat,10\ndog,5\n",
        '\ufeff"red panda",0.25\ncat,0.5\ndog,0.25',
    ):
        file.write_text(text, encoding="utf-8")
        np.testing.assert_allclose(prior(file), [0.5, 0.25, 0.25])
        np.testing.assert_allclose(prior(str(file)), [0.5, 0.25, 0.25])
    np.testing.assert_allclose(prior({"dog": 1, "cat": 2, "red panda": 1}), [0.5, 0.25, 0.25])
    np.testing.assert_allclose(prior([2, 1, 1]), [0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "a class is unknown": ("cat,1\ndgo,2\nred panda,1", "'dgo' is no class of the run; did"),
        "a class is missing": ("cat,1", "lacks the classes dog, red panda"),
        "twice": ("cat,1\ncat,2\ndog,1\nred panda,1", "has 'cat' twice"),
        "three cells": ("cat,1,2", "wanted lines class,number, got 'cat,1,2'"),
        "text": ("cat,1\ndog,many\nred panda,1", "holds something else than numbers"),
        "negative": ("cat,1\ndog,-2\nred panda,1", "negative or not finite"),
        "NaN": ("cat,1\ndog,nan\nred panda,1", "negative or not finite"),
        "all zero": ("cat,0\ndog,0\nred panda,0", "all shares are 0"),
        "no table": ('cat,"1', "no CSV table"),
        "empty": ("", "lacks the classes cat, dog, red panda"),
    }.values(),
)
def test_a_wrong_prior_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "counts.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_prior(tmp_path / "counts.csv", NAMES, COUNTS)
    with pytest.raises(ConfigError, match="has the shape"):
        read_prior([1, 2], NAMES, COUNTS)


def test_costs_are_read_by_name_in_any_order(tmp_path):
    file = tmp_path / "costs.csv"
    file.write_text(",dog,cat,red panda\nred panda,5,6,0\ncat,1,0,2\ndog,0,3,4\n")
    expected = np.array([[0, 1, 2], [3, 0, 4], [6, 5, 0]])
    np.testing.assert_array_equal(read_costs(file, NAMES), expected)
    np.testing.assert_array_equal(read_costs(expected, NAMES), expected)
    assert read_costs(None, NAMES) is None
    for text, message in (
        (",cat,dog\ncat,0,1\ndog,1,0\n", "lacks the classes red panda"),
        (",cat,dog,red panda\ncat,0,1\n", "rows differ in length"),
        (",cat,dog,red panda\ncat,0,1,1\ndog,1,0,1\n", "lacks the classes red panda"),
        (",cat,dog,red panda\ncat,0,1,1\ndog,1,x,1\nred panda,1,1,0\n", "something else than"),
        ("", "lacks the classes"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_costs(file, NAMES)
