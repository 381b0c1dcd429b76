"""Losses of methods and their gradients against PyTorch (`goldens/make_loss_goldens.py`)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.runtime import rng
from tests.linear_step import COUNTS, STATS, run

GOLDENS = dict(np.load(Path(__file__).parents[1] / "goldens" / "losses.npz"))
TWO = {"gamma": 2.0}
WEIGHTS = {"beta": 0.9}
BY_ROWS = {"beta": 0.9, "divide_by": "rows"}
LADE = {"alpha": 0.7, "penalty": 0.3}
CASES = {
    "ldam": {"ldam": {"max_margin": 0.4, "scale": 8.0}},
    "vs": {"vs": {"gamma": 0.3, "tau": 1.25}},
    "cdt": {"cdt": {"gamma": 0.4}},
    "inverse": {"reweight": {}},
    "square_root": {"reweight": {"power": 0.5}},
    "adrw_tla": {"adrw": {"t": 0.15}, "tla": {}},
    "effective_number": {"class_balanced": WEIGHTS},
    "effective_number_by_rows": {"class_balanced": BY_ROWS},
    "focal_half": {"focal": {"gamma": 0.5}},
    "focal_two": {"focal": TWO},
    "focal_two_weighted": {"focal": {**TWO, "form": "weighted"}, "drw": WEIGHTS},
    "focal_two_sigmoid": {"focal": {**TWO, "form": "sigmoid"}, "drw": BY_ROWS},
    "label_aware": {"label_aware_smoothing": {"head": 0.4, "tail": 0.1}},
    "lade_code": {"lade": LADE},
    "lade_paper": {"lade": {**LADE, "weights": "paper"}},
    "lade_weighted": {"lade": LADE, "drw": WEIGHTS},
    "lade_weighted_by_rows": {"lade": LADE, "drw": BY_ROWS},
}


# The same for given logits.
SEQL = {"gamma": 0.6, "threshold": 0.2}
OF_LOGITS = {
    "seql": {"seql": SEQL},
    "seql_always": {"seql": {**SEQL, "gamma": 1.0}},
    "maxnorm": {"maxnorm": {}},
    "maxnorm_binary": {"maxnorm": {"loss": "binary"}},
    "uniform": {"label_smoothing": {}},
    "over": {"los": {}},
    "tau_half": {"logit_adjustment": {"tau": 0.5}},
    "tau_two": {"logit_adjustment": {"tau": 2.0}},
    **{rule: {"label_smoothing": {"rule": rule}} for rule in ("literal", "inverse", "one_minus_p")},
    **{
        rule: {"label_smoothing": {"rule": rule, "head": 0.3, "tail": 0.02}}
        for rule in ("concave", "linear", "convex")
    },
}
# No method trains with it, see `softmax_equalisation`.
WITHOUT_A_KEY = "seql_mean"


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_a_batch_with_padding_and_its_gradient(case):
    arguments = CASES[case]
    images, labels, kernel, valid = (GOLDENS[k] for k in ("images", "labels", "kernel", "valid"))
    recipe = build_recipe(tuple(arguments), STATS, arguments)
    _, sums, grads = run(recipe, images, labels, kernel, valid)
    np.testing.assert_allclose(sums.row_loss / valid.sum(), GOLDENS[f"{case}/loss"], rtol=1e-5)
    np.testing.assert_allclose(grads, GOLDENS[f"{case}/grad"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", OF_LOGITS)
def test_the_loss_of_given_logits_and_its_gradient_to_them(case, monkeypatch):
    arguments = OF_LOGITS[case]
    logits, labels, beta = (GOLDENS[f"logits/{k}"] for k in ("logits", "labels", "beta"))
    # Only the draws of `seql` have this shape; with gamma = 1, all of them are true by themselves.
    if case == "seql":
        monkeypatch.setattr(
            rng, "bernoulli", lambda key, p, shape: jnp.asarray(beta).reshape(shape)
        )
    recipe = build_recipe(tuple(arguments), STATS, arguments)
    # Of image i only pixel i is 1, so the logits of the linear network are the rows of its kernel.
    images = (255 * np.eye(12, dtype=np.uint8)).reshape(12, 2, 2, 3)
    _, sums, grads = run(recipe, images, labels, logits)
    np.testing.assert_allclose(sums.row_loss / 12, GOLDENS[f"logits/{case}/loss"], rtol=1e-5)
    np.testing.assert_allclose(grads, GOLDENS[f"logits/{case}/grad"], rtol=1e-4, atol=1e-7)


def test_the_loss_of_softmax_equalisation_without_a_key():
    recipe = build_recipe(["seql"], STATS, {"seql": SEQL})
    target = jnp.eye(3)[GOLDENS["logits/labels"]]
    logits = jnp.asarray(GOLDENS["logits/logits"])
    loss, grad = jax.value_and_grad(lambda z: recipe.loss(z, target).mean())(logits)
    np.testing.assert_allclose(loss, GOLDENS[f"logits/{WITHOUT_A_KEY}/loss"], rtol=1e-5)
    np.testing.assert_allclose(grad, GOLDENS[f"logits/{WITHOUT_A_KEY}/grad"], rtol=1e-4, atol=1e-7)


def test_every_case_is_compared():
    compared = {*CASES, *(f"logits/{case}" for case in (*OF_LOGITS, WITHOUT_A_KEY))}
    assert {name.removesuffix("/loss") for name in GOLDENS if name.endswith("/loss")} == compared
    assert COUNTS.tolist() == [40, 10, 5], "the counts of the goldens"
