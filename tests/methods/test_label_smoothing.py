"""Label smoothing: amounts by class by hand, targets, and the rows that have none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.label_smoothing import LABEL_AWARE, RULES, smoothing
from purenoise_jax.runtime.errors import ConfigError
from tests.linear_step import COUNTS, STATS

FREQUENCY = COUNTS / COUNTS.sum()
AMOUNTS = {
    "uniform": [0.1, 0.1, 0.1],
    "literal": 0.1 / (1 - FREQUENCY),
    "inverse": 0.1 * FREQUENCY.min() / FREQUENCY,
    "one_minus_p": 0.1 * (1 - FREQUENCY),
    # The middle class has a seventh of the way from 5 images to 40.
    "concave": [0.3, 0.02 + 0.28 * np.sin(np.pi / 14), 0.02],
    "linear": [0.3, 0.02 + 0.28 / 7, 0.02],
    "convex": [0.3, 0.3 - 0.28 * np.cos(np.pi / 14), 0.02],
}


def amounts(rule):
    return smoothing(COUNTS, rule, epsilon=0.1, head=0.3, tail=0.02)


@pytest.mark.parametrize("rule", RULES)
def test_amounts_by_hand(rule):
    np.testing.assert_allclose(amounts(rule), AMOUNTS[rule], rtol=1e-5)


def test_which_classes_are_smoothed_more():
    order = {rule: np.sign(np.diff(amounts(rule))).tolist() for rule in RULES}
    assert order.pop("uniform") == [0, 0]
    assert order.pop("inverse") == order.pop("one_minus_p") == [1, 1]
    assert set(order) == {"literal", *LABEL_AWARE}
    assert all(signs == [-1, -1] for signs in order.values())
    assert amounts("concave")[1] > amounts("linear")[1] > amounts("convex")[1]


def test_equal_classes_and_a_single_class_have_finite_amounts():
    for counts in (np.array([7, 7]), np.array([9])):
        for rule in RULES:
            found = smoothing(counts, rule, epsilon=0.1, head=0.3, tail=0.02)
            assert np.isfinite(found).all() and (found >= 0).all() and (found <= 1).all()
    with pytest.raises(ConfigError, match="convex"):
        smoothing(COUNTS, "concav", epsilon=0.1, head=0.3, tail=0.0)


def test_targets_against_numpy_and_without_smoothing():
    label = jnp.array([0, 2, 1])
    batch = {"label": label, "target": jnp.eye(3)[label]}
    arguments = {"label_smoothing": {"rule": "linear", "head": 0.3, "tail": 0.02}}
    (smooth,) = build_recipe(["label_smoothing"], STATS, arguments).transforms
    found = smooth(jax.random.key(0), batch)["target"]
    share = amounts("linear")[np.asarray(label)][:, None]
    np.testing.assert_allclose(found, (1 - share) * np.eye(3)[label] + share / 3, rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    none = {"label_smoothing": {"epsilon": 0.0}}
    (nothing,) = build_recipe(["label_smoothing"], STATS, none).transforms
    np.testing.assert_array_equal(nothing(jax.random.key(0), batch)["target"], batch["target"])
