"""Joint-SSL: VICReg against PyTorch and in its limits; its rows; the supervised loss beside it."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods import METHODS, build_recipe
from purenoise_jax.methods.joint_ssl import vicreg
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.train_step import Inputs, Rows, TrainState, make_step
from tests.linear_step import BUILDER, STATS, data
from tests.two_views import Linear, draw_batch, draw_params, loss_and_grads, networks_of, rows_of

GOLDEN = np.load(Path(__file__).parents[1] / "goldens/views.npz")
TWO = [jnp.asarray(GOLDEN[name], jnp.float32) for name in ("first", "second")]
ALL = jnp.ones(6, bool)
WEIGHTS = {"inv_weight": 0.7, "var_weight": 1.3, "cov_weight": 0.4, "var_target": 0.9}


def loss(first, second, natural=ALL, branch_cov="per_branch", **changes):
    given = {**WEIGHTS, "branch_cov": branch_cov, **changes}
    return vicreg(first, second, natural, **given)


def value_and_grads(first, second, natural=ALL, **changes):
    return jax.value_and_grad(partial(loss, **changes), (0, 1))(first, second, natural)


@pytest.mark.parametrize("branch_cov", ["per_branch", "concat"])
def test_the_loss_and_its_gradient_against_pytorch(branch_cov):
    value, grads = value_and_grads(*TWO, branch_cov=branch_cov)
    np.testing.assert_allclose(value, GOLDEN[f"{branch_cov}/loss"], rtol=1e-5)
    for name, grad in zip(("first", "second"), grads, strict=True):
        np.testing.assert_allclose(grad, GOLDEN[f"{branch_cov}/{name}"], rtol=1e-4, atol=1e-6)


def only(**weights):
    return {"inv_weight": 0.0, "var_weight": 0.0, "cov_weight": 0.0, **weights}


@pytest.mark.parametrize("branch_cov", ["per_branch", "concat"])
def test_its_terms_in_their_limits(branch_cov):
    first, second = TWO
    term = partial(loss, branch_cov=branch_cov)
    assert term(first, first, **only(inv_weight=2.0)) == 0
    np.testing.assert_allclose(term(first, first + 3, **only(inv_weight=2.0)), 18, rtol=1e-5)
    # Columns that are orthogonal and sum to zero have no covariance.
    square = jnp.asarray(np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]), jnp.float32)
    assert term(square, square, ALL[:4], **only(cov_weight=1.0)) == 0
    assert term(square, square, ALL[:4], **only(var_weight=1.0)) == 0
    # Equal columns have as many covariances as there are pairs of them.
    equal = jnp.repeat(square[:, :1], 3, axis=1)
    covariance = 4 / 3 if branch_cov == "per_branch" else 8 / 7
    branches = 2 if branch_cov == "per_branch" else 1
    expected = branches * 6 * covariance**2 / 3
    np.testing.assert_allclose(
        term(equal, equal, ALL[:4], **only(cov_weight=1.0)), expected, rtol=1e-5
    )
    # A collapsed projection has the deviation sqrt(1e-4).
    zero = jnp.zeros((4, 2))
    np.testing.assert_allclose(
        term(zero, zero, ALL[:4], **only(var_weight=1.0, var_target=1.5)), 1.49, rtol=1e-5
    )
    assert term(first, second, **only()) == 0


@pytest.mark.parametrize("branch_cov", ["per_branch", "concat"])
def test_rows_that_do_not_count_have_no_effect_whatever_they_hold(branch_cov):
    natural = np.array([1, 0, 1, 1, 0, 1], bool)
    expected, few = value_and_grads(
        *(x[natural] for x in TWO), natural[natural], branch_cov=branch_cov
    )
    for fill in (7.0, np.nan):
        filled = [jnp.where(natural[:, None], x, fill) for x in TWO]
        value, grads = value_and_grads(*filled, jnp.asarray(natural), branch_cov=branch_cov)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        for grad, of_few in zip(grads, few, strict=True):
            np.testing.assert_allclose(grad[natural], of_few, rtol=1e-5, atol=1e-7)
            assert (grad[~natural] == 0).all()


@pytest.mark.parametrize("branch_cov", ["per_branch", "concat"])
def test_fewer_than_two_rows_have_no_moments_and_a_finite_gradient(branch_cov):
    for count in (0, 1):
        value, grads = value_and_grads(*TWO, jnp.arange(6) < count, branch_cov=branch_cov)
        difference = np.square(TWO[0][0] - TWO[1][0]).mean()
        np.testing.assert_allclose(value, 0.7 * difference * count, rtol=1e-6)
        assert all(np.isfinite(grad).all() for grad in grads)
    # Extreme projections: all equal, and large.
    for x in (jnp.zeros((6, 5)), jnp.full((6, 5), 1e4) * jnp.arange(6)[:, None]):
        value, grads = value_and_grads(x, -x, branch_cov=branch_cov)
        assert np.isfinite(value) and all(np.isfinite(grad).all() for grad in grads)


def projections(params, batch):
    kernel = params["projector"]["projection"]
    return [batch[name].reshape(len(batch["label"]), -1) @ kernel for name in ("image", "second")]


@pytest.mark.parametrize("others", [[], ["drw"], ["weights"]])
def test_a_step_adds_it_to_the_loss_of_the_first_views(others, monkeypatch):
    def weights(recipe, stats):
        return dataclasses.replace(recipe, class_weights=np.float32([0.5, 2, 4]))

    monkeypatch.setitem(METHODS, "weights", weights)
    params, batch = draw_params(), draw_batch()
    arguments = {"joint_ssl": {**WEIGHTS, "supervised_weight": 0.3}, "drw": {"beta": 0.9}}
    plain, plain_grads = loss_and_grads(
        build_recipe(others or ["erm"], STATS, arguments), params, batch
    )
    recipe = build_recipe([*others, "joint_ssl"], STATS, arguments)
    value, grads = loss_and_grads(recipe, params, batch)
    views, of_kernel = jax.value_and_grad(lambda p: loss(*projections(p, batch)))(params)
    np.testing.assert_allclose(value, 0.3 * plain + views, rtol=1e-5)
    jax.tree.map(
        lambda all_, own, added: np.testing.assert_allclose(all_, 0.3 * own + added, rtol=1e-4, atol=1e-6),
        grads, plain_grads, of_kernel,
    )  # fmt: skip
    assert recipe.views == 2 and recipe.requires == {"projector": "vicreg"}


@pytest.mark.parametrize("mixing", ["cutmix", "mixup", "mamix"])
@pytest.mark.parametrize("weighted", [[], ["class_balanced"]])
def test_beside_a_mixing_method_it_compares_unmixed_views(mixing, weighted):
    """In either order, the loss is that of the mixtures plus VICReg of the images themselves."""
    stats = dataclasses.replace(STATS, image_shape=(4, 4, 3))
    params, batch = draw_params(size=4), draw_batch(size=4, noise=np.arange(6) == 1)
    arguments = {"joint_ssl": {**WEIGHTS, "supervised_weight": 0.3}}
    arguments |= {"cutmix": {"probability": 1.0}, "class_balanced": {"beta": 0.9}}
    mixed, mixed_grads = loss_and_grads(
        build_recipe([*weighted, mixing], stats, arguments), params, batch
    )
    plain, _ = loss_and_grads(build_recipe(weighted or ["erm"], stats, arguments), params, batch)
    assert abs(mixed - plain) > 1e-3, "the seed mixes nothing"
    natural = ~batch["noise_mask"]
    views, of_views = jax.value_and_grad(lambda p: loss(*projections(p, batch), natural))(params)
    for order in ([*weighted, mixing, "joint_ssl"], ["joint_ssl", mixing, *weighted]):
        value, grads = loss_and_grads(build_recipe(order, stats, arguments), params, batch)
        np.testing.assert_allclose(value, 0.3 * mixed + views, rtol=1e-5)
        jax.tree.map(
            lambda all_, own, added: np.testing.assert_allclose(all_, 0.3 * own + added, rtol=1e-4, atol=1e-6),
            grads, mixed_grads, of_views,
        )  # fmt: skip


def test_the_first_views_have_a_pass_of_their_own_only_beside_a_mixing_method():
    batch = draw_batch()
    for methods, passes in ((["joint_ssl"], 2), (["mixup", "joint_ssl"], 3)):
        networks = networks_of(draw_params(), batch)
        build_recipe(methods, STATS, {}).outcome(networks, batch, rng.root(0))
        assert networks._calls == passes
    assert len(build_recipe(["meta_sampler", "joint_ssl"], STATS, {}).terms) == 2


def test_two_losses_of_views_or_objectives_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"simclr needs model\.projector=simclr"):
        build_recipe(["joint_ssl", "simclr"], STATS, {})
    with pytest.raises(ConfigError, match="methods cutmix and mixup both set objective"):
        build_recipe(["cutmix", "joint_ssl", "mixup"], STATS, {})


def test_noise_counts_in_the_supervised_loss_alone():
    params = draw_params()
    noise = np.array([0, 1, 0, 0, 1, 0], bool)
    batch = draw_batch(noise=noise)
    recipe = build_recipe(["joint_ssl"], STATS, {"joint_ssl": WEIGHTS})
    plain, _ = loss_and_grads(build_recipe(["erm"], STATS, {}), params, batch)
    value, _ = loss_and_grads(recipe, params, batch)
    few = rows_of(batch, ~noise)
    np.testing.assert_allclose(value - plain, loss(*projections(params, few), ALL[:4]), rtol=1e-4)


def test_padding_has_no_effect_whatever_it_holds():
    params, valid = draw_params(), np.arange(6) < 4
    recipe = build_recipe(["joint_ssl"], STATS, {})
    batch = draw_batch(valid=valid)
    expected, few = loss_and_grads(recipe, params, rows_of(batch, valid))
    for fill in (3.0, np.nan):
        filled = {
            name: jnp.where(valid[:, None, None, None], batch[name], fill)
            for name in ("image", "second")
        }
        value, grads = loss_and_grads(recipe, params, {**batch, **filled})
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), grads, few)
    value, grads = loss_and_grads(recipe, params, {**batch, "valid": jnp.zeros(6, bool)})
    assert value == 0 and all((leaf == 0).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("method", ["joint_ssl", "simclr"])
def test_without_a_supervised_loss_labels_and_the_head_play_no_part(method):
    recipe = build_recipe([method], STATS, {method: {"supervised_weight": 0.0}})
    params, batch = draw_params(), draw_batch()
    value, grads = loss_and_grads(recipe, params, batch)
    other = {**batch, "label": batch["label"][::-1], "target": batch["target"][::-1]}
    other_value, other_grads = loss_and_grads(recipe, params, other)
    assert value == other_value and value != 0
    jax.tree.map(np.testing.assert_array_equal, grads, other_grads)
    # The head does not even shrink with weight decay.
    tx = make_optimizer("sgd", momentum=0, weight_decay=0.1)
    step = make_step(Linear(), tx, lambda step: 0.5, recipe, BUILDER, seed=0)
    state = TrainState(jnp.zeros((), jnp.int32), params, {}, tx.init(params), {})
    images, labels, _ = data()
    inputs = Inputs(jnp.asarray(images), jnp.asarray(labels))
    new, *_ = step.update(state, inputs, Rows(jnp.arange(6), jnp.ones(6, bool)))
    np.testing.assert_array_equal(new.params["head"]["kernel"], params["head"]["kernel"])
    before, after = (p["projector"]["projection"] for p in (params, new.params))
    assert (before != after).any()


def test_a_batch_with_appended_noise_has_two_views_of_the_same_length():
    recipe = build_recipe(["append", "joint_ssl"], STATS, {})
    batch = recipe.transforms[0](rng.root(0), draw_batch(rows=8))
    assert batch["second"].shape == batch["image"].shape == (10, 2, 2, 3)
    np.testing.assert_array_equal(batch["second"][8:], batch["image"][8:])
    value, grads = loss_and_grads(recipe, draw_params(), batch)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
