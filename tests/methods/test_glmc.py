"""GLMC against PyTorch, with its constants; the box, the rows that count, and the share of time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.cutmix import box
from purenoise_jax.methods.glmc import two_heads
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.reweighting import inverse_weights
from tests.linear_step import COUNTS, STATS
from tests.methods.test_joint_ssl import GOLDEN
from tests.two_views import (
    batch_of,
    draw_batch,
    draw_params,
    loss_and_grads,
    networks_of,
    params_of,
    rows_of,
)

NAMES = ("head", "plain", "projection", "prediction")
KERNELS = {name: GOLDEN[f"glmc/kernel/{name}"] for name in NAMES}
IMAGES, LABEL = GOLDEN["glmc/images"], GOLDEN["glmc/label"]
GIVEN = {
    "share": jnp.float32(GOLDEN["glmc/given/share"]),
    "partner": jnp.asarray(GOLDEN["glmc/given/partner"]),
    "pasted": jnp.asarray(GOLDEN["glmc/given/box"]),
    "contrast_weight": float(GOLDEN["glmc/given/contrast_weight"]),
}
PROGRESS = float(GOLDEN["glmc/given/progress"])
RECIPE = Recipe(views=2)


def outcome(params, batch, recipe=RECIPE, progress=PROGRESS, **changes):
    class_weights = jnp.asarray(inverse_weights(COUNTS, 1.2))
    given = {**GIVEN, "class_weights": class_weights, **changes}
    return two_heads(recipe, networks_of(params, batch, progress), batch, **given)


def total(*given, **changes):
    """The mean loss of a row, with the consistency."""
    found = outcome(*given, **changes)
    return found.losses.mean() + found.batch_loss


def value_and_grads(params, batch, **changes):
    return jax.value_and_grad(lambda p: total(p, batch, **changes))(params)


def test_the_loss_and_its_gradient_against_pytorch():
    value, grads = value_and_grads(params_of(KERNELS), batch_of(*IMAGES, LABEL))
    np.testing.assert_allclose(value, GOLDEN["glmc/loss"], rtol=1e-5)
    for name, grad in {"head": grads["head"]["kernel"], **grads["projector"]}.items():
        np.testing.assert_allclose(grad, GOLDEN[f"glmc/{name}"], rtol=1e-4, atol=1e-6)


def test_the_plain_classifier_trains_at_first_and_the_head_at_the_end():
    params, batch = draw_params(), draw_batch()
    for progress, idle, trains in ((0.0, "head", "plain"), (1.0, "plain", "head")):
        _, grads = value_and_grads(params, batch, progress=progress)
        kernels = {"head": grads["head"]["kernel"], "plain": grads["projector"]["plain"]}
        assert (kernels[idle] == 0).all() and (kernels[trains] != 0).any()
    logits = outcome(params, batch).logits
    mixed = (
        GIVEN["share"] * batch["image"] + (1 - GIVEN["share"]) * batch["image"][GIVEN["partner"]]
    )
    np.testing.assert_allclose(logits, mixed.reshape(6, -1) @ params["head"]["kernel"], rtol=1e-5)


@pytest.mark.parametrize(
    ("share", "centre", "rows", "columns"),
    [
        # Sides of a 6 x 8 image times a half: 3 x 4, of which a half is 1 and 2.
        (0.75, (3, 4), range(2, 4), range(2, 6)),
        (0.75, (0, 7), range(0, 1), range(5, 8)),
        # The square root of 0.5 makes 4.2 x 5.7, rounded up to 5 x 6.
        (0.5, (3, 4), range(1, 5), range(1, 7)),
        (0.0, (3, 4), range(6), range(8)),
        (1.0, (3, 4), (), ()),
    ],
)
def test_the_box_by_hand(share, centre, rows, columns):
    found = np.asarray(box(jnp.float32(share), jnp.asarray(centre), (6, 8), round_up=True))
    expected = np.zeros((6, 8), bool)
    expected[np.ix_(list(rows), list(columns))] = True
    np.testing.assert_array_equal(found, expected)


def test_with_a_share_of_one_nothing_is_mixed():
    params, batch = draw_params(), draw_batch()
    given = {"share": jnp.ones(()), "pasted": jnp.zeros((2, 2), bool), "progress": 0.0}
    given["contrast_weight"] = 0.0
    both = outcome(params, batch, **given).losses
    kernel = params["projector"]["plain"]
    losses = [
        -jax.nn.log_softmax(batch[name].reshape(6, -1) @ kernel)[np.arange(6), batch["label"]]
        for name in ("image", "second")
    ]
    np.testing.assert_allclose(both, sum(losses), rtol=1e-5)


def test_equal_views_and_an_identity_as_the_predictor_agree_perfectly():
    params = draw_params()
    params["projector"]["prediction"] = jnp.eye(4)
    batch = draw_batch()
    given = {"share": jnp.ones(()), "pasted": jnp.zeros((2, 2), bool)}
    batch["second"] = batch["image"]
    with_it, without = (
        total(params, batch, contrast_weight=weight, **given) for weight in (1.5, 0.0)
    )
    np.testing.assert_allclose(with_it - without, -3.0, rtol=1e-5)


def test_class_weights_of_another_method_weigh_both_labels():
    params, batch = draw_params(), draw_batch()
    plain = outcome(params, batch)
    ones = outcome(params, batch, Recipe(class_weights=np.ones(3, np.float32), weighted_mean=True))
    np.testing.assert_allclose(ones.losses, plain.losses, rtol=1e-5)
    np.testing.assert_allclose(ones.weights, 1, rtol=1e-6)
    weights = np.float32([0.5, 1, 4])
    share, partner = GIVEN["share"], np.asarray(GIVEN["partner"])
    of_row = weights[np.asarray(batch["label"])]
    found = outcome(params, batch, Recipe(class_weights=weights, weighted_mean=True))
    np.testing.assert_allclose(
        found.weights, share * of_row + (1 - share) * of_row[partner], rtol=1e-5
    )
    # They have no effect on the consistency.
    assert found.batch_loss == plain.batch_loss != 0


def test_padding_has_no_effect_whatever_it_holds():
    params, valid = draw_params(), np.arange(6) < 4
    recipe = build_recipe(["glmc"], STATS, {"glmc": {"alpha": 0.0}})
    batch = draw_batch(valid=valid)
    expected, few = loss_and_grads(recipe, params, rows_of(batch, valid))
    mixing = build_recipe(["glmc"], STATS, {})
    first = loss_and_grads(mixing, params, batch)
    for fill in (3.0, np.nan):
        filled = {
            name: jnp.where(valid[:, None, None, None], batch[name], fill)
            for name in ("image", "second")
        }
        value, grads = loss_and_grads(recipe, params, {**batch, **filled})
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), grads, few)
        found = loss_and_grads(mixing, params, {**batch, **filled})
        jax.tree.map(np.testing.assert_array_equal, found, first)
    value, grads = loss_and_grads(mixing, params, {**batch, "valid": jnp.zeros(6, bool)})
    assert value == 0 and all((leaf == 0).all() for leaf in jax.tree.leaves(grads))


def test_noise_is_the_same_in_both_views_and_has_no_part_in_the_consistency():
    params, noise = draw_params(), np.array([0, 1, 0, 0, 1, 0], bool)
    batch, given = (
        draw_batch(noise=noise),
        {"share": jnp.ones(()), "pasted": jnp.zeros((2, 2), bool)},
    )
    lost = {**batch, "second": jnp.where(noise[:, None, None, None], jnp.nan, batch["second"])}
    with_it, without = (total(params, lost, contrast_weight=w, **given) for w in (1.0, 0.0))
    few = rows_of(batch, ~noise)
    expected = [
        total(params, few, contrast_weight=w, partner=jnp.arange(4), **given) for w in (1.0, 0.0)
    ]
    np.testing.assert_allclose(with_it - without, expected[0] - expected[1], rtol=1e-4)


def test_it_needs_a_projector_and_two_views():
    recipe = build_recipe(["glmc", "sam", "ema"], STATS, {})
    assert recipe.views == 2 and recipe.requires == {"projector": "glmc"}
    value, grads = loss_and_grads(recipe, draw_params(), draw_batch(rows=1))
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
