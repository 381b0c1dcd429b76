"""Losses of methods and their gradients against PyTorch (`goldens/make_loss_goldens.py`)."""

from pathlib import Path

import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
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


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_a_batch_with_padding_and_its_gradient(case):
    arguments = CASES[case]
    images, labels, kernel, valid = (GOLDENS[k] for k in ("images", "labels", "kernel", "valid"))
    recipe = build_recipe(tuple(arguments), STATS, arguments)
    _, sums, grads = run(recipe, images, labels, kernel, valid)
    np.testing.assert_allclose(sums.row_loss / valid.sum(), GOLDENS[f"{case}/loss"], rtol=1e-5)
    np.testing.assert_allclose(grads, GOLDENS[f"{case}/grad"], rtol=1e-4, atol=1e-6)


def test_every_case_is_compared():
    assert {name.split("/")[0] for name in GOLDENS if name.endswith("/loss")} == set(CASES)
    assert COUNTS.tolist() == [40, 10, 5], "the counts of the goldens"
