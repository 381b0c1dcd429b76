"""Mixup against torchvision (`goldens/make_mixup_goldens.py`), with its share and its partners."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods import build_recipe, mixing
from purenoise_jax.runtime import rng
from tests.linear_step import STATS, run
from tests.mixtures import batch_of, outcome_of

GOLDENS = dict(np.load(Path(__file__).parents[1] / "goldens" / "mixup.npz"))
IMAGES, LABELS, KERNEL = (GOLDENS[name] for name in ("images", "labels", "kernel"))
CASES = ("torchvision", "permuted")


@pytest.fixture(params=CASES)
def case(request, monkeypatch):
    """The draws of a step are those of the case."""
    partners = jnp.asarray(GOLDENS[f"{request.param}/partners"])
    monkeypatch.setattr(mixing, "draw_share", lambda key, alpha: jnp.asarray(GOLDENS["share"]))
    monkeypatch.setattr(mixing, "draw_partners", lambda key, batch: partners)
    return request.param


def test_mixed_images_and_targets(case):
    recipe, batch = build_recipe(["mixup"], STATS, {}), batch_of(IMAGES / 255, LABELS)
    columns = []
    for j in range(3):
        # The loss is one entry of the target, and the logits are the pixels.
        looking = dataclasses.replace(recipe, loss=lambda logits, target, j=j: target[:, j])
        found = outcome_of(looking, batch, np.eye(12, dtype=np.float32), rng.root(0))
        columns.append(found.losses)
    np.testing.assert_allclose(found.logits, GOLDENS[f"{case}/pixels"], rtol=1e-6)
    np.testing.assert_allclose(np.stack(columns, 1), GOLDENS[f"{case}/target"], rtol=1e-6)


def test_the_loss_of_a_step_and_its_gradient(case):
    recipe = build_recipe(["mixup"], STATS, {})
    _, sums, grads = run(recipe, IMAGES, LABELS, KERNEL)
    np.testing.assert_allclose(sums.row_loss / 6, GOLDENS[f"{case}/loss"], rtol=1e-5)
    np.testing.assert_allclose(grads, GOLDENS[f"{case}/grad"], rtol=1e-4, atol=1e-6)
