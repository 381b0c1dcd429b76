"""SAM against optax, its forms for imbalanced classes against numpy, and the limits of each."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.asymmetric_sam import ASYMMETRIES
from purenoise_jax.methods.class_balanced_weights import effective_weights
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.recipe import Outcome, add_batch_loss, supervised
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.train_step import Inputs, Rows, make_step
from tests.linear_step import (
    BUILDER,
    COUNTS,
    HALF,
    STATS,
    Linear,
    cross_entropy_gradient,
    data,
    run,
    state_of,
)

SHARE = COUNTS / COUNTS.sum()
# Classes 1 and 2, of 10 and 5 images, are the tail.
TAIL = np.array([0.0, 1.0, 1.0])
FORMS = [("sam", {}), *(("sam_a", {"asymmetry": name}) for name in ASYMMETRIES),
         ("imbsam", {"eta": 10}), ("focal_sam", {})]  # fmt: skip


def recipe_of(name, *others, **arguments):
    return build_recipe([*others, name], STATS, {name: arguments})


def gradient_of(name, *others, rows=7, **arguments):
    """The gradient of a step in which the last of the rows is padding."""
    images, labels, kernel = data(rows)
    recipe = recipe_of(name, *others, **arguments)
    return run(recipe, images, labels, kernel, np.arange(rows) < rows - 1)[2]


def inputs(rows=7):
    """Features, labels and kernel of the rows that are no padding, float64."""
    images, labels, kernel = data(rows)
    return images[:-1].reshape(rows - 1, -1) / 255, labels[:-1], kernel.astype(float)


def mean_gradient(factors, kernel, weights=None):
    """The gradient of the mean over rows of factor * loss; divided by weights where there are any."""
    features, labels, _ = inputs()
    total = np.ones(3) if weights is None else weights
    rows = factors[labels] * total[labels]
    if not rows.any():
        return np.zeros((12, 3))
    unweighted = cross_entropy_gradient(features, labels, kernel, rows)
    return unweighted * rows.sum() / total[labels].sum()


def unit(gradient):
    return gradient / np.linalg.norm(gradient)


@pytest.mark.parametrize(("name", "arguments"), FORMS)
def test_without_an_ascent_step_it_is_the_plain_gradient(name, arguments):
    plain = run(build_recipe(["erm"], STATS, {}), *data())
    ours = run(recipe_of(name, rho=0.0, **arguments), *data())
    chex.assert_trees_all_close(ours, plain, rtol=1e-5, atol=1e-7)
    if name in ("sam", "sam_a"):
        chex.assert_trees_all_equal(ours, plain)


def test_a_step_equals_that_of_optax():
    images, labels, kernel = data()
    features, target = jnp.asarray(images.reshape(6, -1) / 255, jnp.float32), jnp.eye(3)[labels]

    def loss(params):
        return optax.softmax_cross_entropy(features @ params, target).mean()

    rho, lr = 0.3, 0.5
    adversary = optax.chain(contrib.normalize(), optax.sgd(rho))
    theirs = contrib.sam(optax.sgd(lr), adversary, opaque_mode=True)
    params = jnp.asarray(kernel)
    update, _ = theirs.update(
        jax.grad(loss)(params), theirs.init(params), params, grad_fn=lambda p, _: jax.grad(loss)(p)
    )
    state, _, _ = run(recipe_of("sam", rho=rho), images, labels, kernel, lr=lr)
    np.testing.assert_allclose(
        state.params["head"]["kernel"], params + update, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("asymmetry", ASYMMETRIES)
def test_asymmetric_ascent_against_numpy(asymmetry):
    features, labels, kernel = inputs()
    of_class = {
        "weighted_ascent": COUNTS.max() / COUNTS,
        "one_minus_share": 1 / (1 - SHARE),
        "inverse_share": SHARE.max() / SHARE,
    }[asymmetry]
    weights, ones, rho = of_class[labels], np.ones(6), 0.4
    plain = cross_entropy_gradient(features, labels, kernel, ones)
    up = cross_entropy_gradient(features, labels, kernel, weights)
    if asymmetry == "weighted_ascent":
        move = rho * unit(up)
    else:
        # The ascent scales each row's part of the plain gradient by rho_c / rho and divides by the
        # norm of the plain gradient.
        move = rho * up * weights.mean() / np.linalg.norm(plain)
    expected = cross_entropy_gradient(features, labels, kernel + move, ones)
    found = gradient_of("sam_a", rho=rho, asymmetry=asymmetry)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found - gradient_of("sam", rho=rho)).max() > 1e-4


def test_the_authors_code_is_the_default_reading_of_sam_a():
    np.testing.assert_array_equal(
        gradient_of("sam_a"), gradient_of("sam_a", asymmetry="weighted_ascent")
    )


@pytest.mark.parametrize("deferred", [False, True])
def test_imbsam_against_numpy(deferred):
    """The head at the parameters and the tail after the ascent step; with class weights, too."""
    _, _, kernel = inputs()
    weights = effective_weights(COUNTS, 0.9999).astype(float) if deferred else None
    others = ("drw",) if deferred else ()
    rho = 0.4
    move = rho * unit(mean_gradient(TAIL, kernel, weights))
    expected = mean_gradient(1 - TAIL, kernel, weights) + mean_gradient(
        TAIL, kernel + move, weights
    )
    found = gradient_of("imbsam", *others, rho=rho, eta=10)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found - gradient_of("sam", *others, rho=rho)).max() > 1e-3


def test_the_border_of_the_tail_belongs_to_it():
    tail_of = {5: [2], 9: [2], 10: [1, 2], 39: [1, 2], 40: [0, 1, 2]}
    _, _, kernel = inputs()
    for eta, classes in tail_of.items():
        tail = np.isin(np.arange(3), classes).astype(float)
        after = kernel + 0.4 * unit(mean_gradient(tail, kernel))
        expected = mean_gradient(1 - tail, kernel) + mean_gradient(tail, after)
        found = gradient_of("imbsam", rho=0.4, eta=eta)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_tail_of_all_classes_is_sam_and_one_of_none_is_refused():
    np.testing.assert_allclose(
        gradient_of("imbsam", rho=0.4), gradient_of("sam", rho=0.4), rtol=1e-5, atol=1e-7
    )
    with pytest.raises(ConfigError, match=r"method\.imbsam\.eta=4: no class .* at least 5"):
        recipe_of("imbsam", eta=4)


def test_focal_sam_against_numpy():
    """As the loss L + sharpness * (L'(after the ascent step) - L'), term by term."""
    _, _, kernel = inputs()
    rho, gamma, sharpness = 0.4, 2.5, 0.7
    focal = (1 - SHARE) ** gamma
    move = rho * unit(mean_gradient(focal, kernel))
    expected = mean_gradient(np.ones(3), kernel) + sharpness * (
        mean_gradient(focal, kernel + move) - mean_gradient(focal, kernel)
    )
    found = gradient_of("focal_sam", rho=rho, gamma=gamma, sharpness=sharpness)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    other = gradient_of("focal_sam", rho=rho, gamma=0.0, sharpness=sharpness)
    assert np.abs(found - other).max() > 1e-3


def test_limits_of_focal_sam():
    alike = gradient_of("focal_sam", rho=0.4, gamma=0.0, sharpness=1.0)
    np.testing.assert_allclose(alike, gradient_of("sam", rho=0.4), rtol=1e-5, atol=1e-7)
    none = gradient_of("focal_sam", sharpness=0.0)
    np.testing.assert_allclose(none, gradient_of("erm"), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "arguments"), FORMS)
def test_loss_and_accuracy_are_those_at_the_parameters(name, arguments):
    _, plain, _ = run(build_recipe(["erm"], STATS, {}), *data())
    _, sums, _ = run(recipe_of(name, rho=0.9, **arguments), *data())
    np.testing.assert_allclose(sums.row_loss, plain.row_loss, rtol=1e-6)
    assert sums.correct == plain.correct


@pytest.mark.parametrize(("name", "arguments"), [("imbsam", {"eta": 10}), ("focal_sam", {})])
def test_a_loss_without_class_weights_is_in_the_gradient_once(name, arguments):
    """As a term beside the classification would be: all of it is ascended on."""

    def objective(recipe, networks, batch, key):
        logits, _ = networks.forward(batch["image"])
        return Outcome(recipe.loss(logits, batch["target"]), logits)

    found, expected = (
        run(dataclasses.replace(recipe, objective=objective), *data())[2]
        for recipe in (recipe_of(name, rho=0.4, **arguments), recipe_of("sam", rho=0.4))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("divide_by", ["weights", "rows"])
@pytest.mark.parametrize(("name", "arguments"), [("imbsam", {"eta": 10}), ("focal_sam", {})])
def test_a_loss_of_the_batch_is_ascended_on_as_a_whole_whatever_weights_rows_have(
    name, arguments, divide_by
):
    def objective(recipe, networks, batch, key):
        outcome = supervised(recipe, networks, batch, key)
        loss = (outcome.logits**2).mean()
        return add_batch_loss(outcome._replace(losses=0 * outcome.losses), loss)

    methods = {name: {"rho": 0.4, **arguments}, "class_balanced": {"divide_by": divide_by}}
    weighted = build_recipe([*methods], STATS, methods)
    found, expected = (
        run(dataclasses.replace(recipe, objective=objective), *data())[2]
        for recipe in (weighted, recipe_of("sam", rho=0.4))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


class WithStatistics(Linear):
    """A network whose running statistic is that of its squared distance from a kernel."""

    def __init__(self, kernel):
        self.kernel = kernel

    def apply(self, variables, *args, mutable=(), **others):
        found = super().apply(variables, *args, mutable=mutable, **others)
        if not mutable:
            return found
        distance = ((variables["params"]["head"]["kernel"] - self.kernel) ** 2).sum()
        mean = 0.9 * variables["batch_stats"]["mean"] + 0.1 * distance
        return found[0], {"batch_stats": {"mean": mean}}


@pytest.mark.parametrize(("statistics", "expected"), [("first", 2.7), ("both", 2.43 + 0.1 * 0.16)])
@pytest.mark.parametrize("name", ["sam", "sam_a", "imbsam", "focal_sam"])
def test_running_statistics_move_in_the_first_pass_or_in_both(name, statistics, expected):
    """The distance is 0 in the first pass and rho after the ascent step."""
    images, labels, kernel = data()
    recipe = recipe_of(name, rho=0.4, statistics=statistics)
    tx = make_optimizer("sgd", momentum=0, weight_decay=0)
    step = make_step(WithStatistics(kernel), tx, lambda step: 0.5, recipe, BUILDER, seed=0)
    state = state_of(kernel, recipe).replace(batch_stats={"mean": jnp.float32(3)})
    rows = Rows(jnp.arange(6), jnp.ones(6, bool))
    new, _, grads = step.update(state, Inputs(jnp.asarray(images), jnp.asarray(labels)), rows)
    np.testing.assert_allclose(new.batch_stats["mean"], expected, rtol=1e-5)
    _, _, same = run(recipe, images, labels, kernel)
    np.testing.assert_array_equal(grads["head"]["kernel"], same)


@pytest.mark.parametrize(("name", "arguments"), FORMS)
def test_a_batch_of_only_padding_has_a_zero_gradient(name, arguments):
    images, labels, kernel = data()
    _, _, grads = run(recipe_of(name, **arguments), images, labels, kernel, np.zeros(6, bool))
    assert not grads.any()


@pytest.mark.parametrize(("name", "arguments"), FORMS)
def test_nan_in_padding_enters_nothing(name, arguments):
    def spoil(key, batch):
        nan = jnp.where(batch["valid"], 0, jnp.nan)
        return {**batch, "image": batch["image"] + nan[:, None, None, None]}

    images, labels, kernel = data(7)
    recipe, valid = recipe_of(name, **arguments), np.arange(7) < 6
    spoiled = dataclasses.replace(recipe, transforms=(spoil,))
    ours, clean = (run(r, images, labels, kernel, valid) for r in (spoiled, recipe))
    jax.tree.map(np.testing.assert_array_equal, ours, clean)
    assert np.isfinite(ours[2]).all()


@pytest.mark.parametrize(("name", "arguments"), FORMS)
def test_extreme_logits_have_a_finite_loss_and_gradient(name, arguments):
    images, labels, kernel = data()
    _, sums, grads = run(recipe_of(name, **arguments), images, labels, 1e6 * kernel)
    assert np.isfinite(sums.row_loss) and np.isfinite(grads).all()


@pytest.mark.parametrize(("name", "arguments"), FORMS)
def test_soft_targets_and_mixed_rows_have_a_finite_gradient(name, arguments):
    images, labels, kernel = data()
    recipe = recipe_of(name, "label_smoothing", "drw", "mixup", **arguments)
    _, sums, grads = run(recipe, images, labels, kernel)
    assert np.isfinite(sums.row_loss) and np.isfinite(grads).all() and grads.any()


def test_a_batch_without_rows_of_the_tail_has_the_plain_gradient():
    images, _, kernel = data()
    labels = np.zeros(6, np.int32)
    found, plain = (
        run(recipe, images, labels, kernel)[2]
        for recipe in (recipe_of("imbsam", eta=10), recipe_of("erm"))
    )
    np.testing.assert_allclose(found, plain, rtol=1e-6)


@pytest.mark.parametrize(("name", "arguments"), FORMS)
def test_one_class_and_a_class_with_one_image(name, arguments):
    for counts in ([9], [9, 1, 1]):
        stats = DataStats(np.array(counts), (2, 2, 3), *[HALF] * 6)
        recipe = build_recipe([name], stats, {name: arguments})
        images, labels, kernel = data()
        _, _, grads = run(recipe, images, labels * (len(counts) > 1), kernel)
        assert np.isfinite(grads).all()
