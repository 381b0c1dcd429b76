"""Masked rows and elements affect nothing else, even if they hold NaN or infinity."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.models import NORMS, create_model
from purenoise_jax.models.norm import AuxBatchNorm, BatchNorm, DARBatchNorm
from purenoise_jax.training.train_step import Inputs, Rows, init_state, make_step
from tests.tiny import TinyNet

ROWS = 8
X = np.random.default_rng(0).normal(1, 2, (ROWS, 3, 3, 2)).astype(np.float32)
CT = np.random.default_rng(1).normal(0, 1, X.shape).astype(np.float32)
VALID = np.array([1, 1, 1, 1, 1, 1, 0, 0], bool)
NOISE = np.array([0, 1, 0, 1, 0, 0, 1, 0], bool)
FILLS = [7.0, 1e25, np.inf, np.nan]

norms = pytest.mark.parametrize("norm", [BatchNorm, AuxBatchNorm, DARBatchNorm])
routing = pytest.mark.parametrize("norm", [AuxBatchNorm, DARBatchNorm])
modes = pytest.mark.parametrize("average", [False, True], ids=["training", "evaluation"])
dtypes = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
by_row = (slice(None), None, None, None)


class Result(NamedTuple):
    """Output, new statistics, and gradients of sum(y * cotangent) by parameters and input."""

    y: Any
    stats: Any
    params: Any
    x: Any


def compiled(module, *, average=False, dtype=jnp.float32):
    """Compiles (x, cotangent, masks by name) -> Result of float32 arrays, once for all fills."""
    variables = module.init(jax.random.key(0), jnp.zeros(X.shape))
    # Other statistics and scales than those of a new layer.
    variables = jax.tree.map(lambda leaf: leaf + jnp.array([0.5, 0.25]), variables)

    @jax.jit
    def run(x, cotangent, masks):
        def loss(params, x):
            y, new = module.apply(
                {**variables, "params": params},
                x,
                use_running_average=average,
                mutable=["batch_stats"],
                **masks,
            )
            return (y.astype(jnp.float32) * cotangent).sum(), (y, new["batch_stats"])

        grads = jax.grad(loss, argnums=(0, 1), has_aux=True)
        (params, to_x), (y, stats) = grads(variables["params"], x.astype(dtype))
        return jax.tree.map(lambda a: a.astype(jnp.float32), Result(y, stats, params, to_x))

    return lambda x, cotangent, **masks: jax.tree.map(np.asarray, run(x, cotangent, masks))


def assert_finite_and_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)


def filled(rows, fill):
    x = X.copy()
    x[rows] = fill
    return x


@pytest.mark.every(3)
@modes
@dtypes
@pytest.mark.parametrize(
    "module", [BatchNorm(), AuxBatchNorm(), DARBatchNorm(), BatchNorm(noise_grad="full_stop")]
)
def test_padding_has_no_effect(module, average, dtype):
    run = compiled(module, average=average, dtype=dtype)
    cotangent, masks = np.where(VALID[by_row], CT, 0), {"valid": VALID, "noise_mask": NOISE}
    clean = run(filled(~VALID, 0), cotangent, **masks)
    assert clean.x[VALID].any() and any(g.any() for g in clean.params.values())
    for fill in FILLS:
        spoiled = run(filled(~VALID, fill), cotangent, **masks)
        # All rows: the output of padding must also be finite, for the layers after this one.
        assert_finite_and_equal(spoiled, clean)
        assert not spoiled.x[~VALID].any()


@modes
@dtypes
@norms
def test_masked_elements_have_no_effect(norm, average, dtype):
    mask = np.random.default_rng(2).random((ROWS, 3, 3, 1)) < 0.6
    mask[3] = False
    both = np.broadcast_to(mask & VALID[by_row], X.shape)
    masks = {"mask": mask, "valid": VALID, "noise_mask": NOISE}
    run, cotangent = compiled(norm(), average=average, dtype=dtype), np.where(both, CT, 0)
    clean = run(np.where(both, X, 0), cotangent, **masks)
    for fill in FILLS:
        spoiled = run(np.where(both, X, np.float32(fill)), cotangent, **masks)
        assert_finite_and_equal(spoiled, clean)
        assert not spoiled.x[~both].any()


@modes
@dtypes
@routing
@pytest.mark.parametrize("spoils", ["noise", "natural"])
def test_noise_and_natural_rows_have_no_effect_on_each_other(norm, average, dtype, spoils):
    """NaN in rows of one kind affects the moments of that kind, and nothing of the other kind."""
    run = compiled(norm(), average=average, dtype=dtype)
    bad = NOISE if spoils == "noise" else ~NOISE
    some = bad & (np.arange(ROWS) < 4)
    # Only the variables of the other kind. In DAR-BN noise has none, and by default the loss of
    # noise does not reach those of the natural rows.
    own = {"noise": "", "natural": "aux_"}[spoils]
    # The second cotangent includes the loss of the spoiled rows, whose gradient is NaN.
    for cotangent in (np.where(bad[by_row], 0, CT), CT):
        clean = run(filled(some, 0), cotangent, noise_mask=NOISE)
        for fill in FILLS:
            spoiled = run(filled(some, fill), cotangent, noise_mask=NOISE)
            assert_finite_and_equal(spoiled.y[~bad], clean.y[~bad])
            assert_finite_and_equal(spoiled.x[~bad], clean.x[~bad])
            for before, after in ((clean.stats, spoiled.stats), (clean.params, spoiled.params)):
                names = [n for n in before if n.startswith("aux_") == bool(own)]
                assert names or norm is DARBatchNorm
                assert_finite_and_equal([after[n] for n in names], [before[n] for n in names])


@dtypes
def test_in_evaluation_rows_of_plain_batch_norm_are_independent(dtype):
    run = compiled(BatchNorm(), average=True, dtype=dtype)
    clean = run(filled(NOISE, 0), CT, noise_mask=NOISE)
    for fill in FILLS:
        spoiled = run(filled(NOISE, fill), CT, noise_mask=NOISE)
        assert_finite_and_equal(spoiled.y[~NOISE], clean.y[~NOISE])
        assert_finite_and_equal(spoiled.x[~NOISE], clean.x[~NOISE])


HALF = np.float32([0.5] * 3)
STATS = DataStats(np.array([50, 12, 5]), (8, 8, 3), *[HALF] * 6)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
LABELS = np.arange(12, dtype=np.int32) % 3
REAL = np.arange(12) < 9


@pytest.mark.every(3)
@pytest.mark.parametrize("norm", NORMS)
def test_a_training_step_does_not_depend_on_padding(norm):
    """With OPeN, so that padding, noise and natural rows are in one batch."""
    model = TinyNet(num_classes=3, norm=NORMS[norm])
    tx = make_optimizer("sgd", momentum=0.9, weight_decay=1e-3)
    state = jax.jit(partial(init_state, model, tx, (8, 8, 3), 0))()
    recipe = build_recipe(["open"], STATS, {"open": {"delta": 1.0}})

    @jax.jit
    def after(fill):
        def spoil(key, batch):
            image = jnp.where(batch["valid"][by_row], batch["image"], fill)
            return {**batch, "image": image}

        spoiling = dataclasses.replace(recipe, transforms=(*recipe.transforms, spoil))
        batch_builder = BatchBuilder(None, HALF, HALF, 3)
        update = make_step(model, tx, lambda step: 0.1, spoiling, batch_builder, 0).update
        return update(state, Inputs(IMAGES, LABELS), Rows(np.arange(12, dtype=np.int32), REAL))

    clean = after(0.0)
    assert clean[1].noise > 0
    for fill in FILLS:
        assert_finite_and_equal(after(fill), clean)


@pytest.mark.slow
def test_logits_and_loss_of_a_network_with_nan_padding_are_finite():
    """In a user's own step, only the gradient of the first weights needs finite padding."""
    model = create_model("resnet8", num_classes=3)
    images = jnp.where(REAL[:, None, None, None], IMAGES / np.float32(255), jnp.nan)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)

    @jax.jit
    def grads(params):
        def loss(params):
            (logits, _), _ = model.apply(
                {**variables, "params": params},
                images,
                valid=REAL,
                train=True,
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
            return jnp.where(REAL, losses, 0).sum(), logits

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, logits), found = grads(variables["params"])
    assert np.isfinite(loss) and np.isfinite(logits).all()
    first = found.pop("conv0")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert not np.isfinite(first["kernel"]).all()


@pytest.mark.every(3)
@norms
def test_the_form_for_accelerators_is_that_for_a_cpu(norm, monkeypatch):
    """Only rounding differs; nothing here is compiled, so the CPU's own form is not needed."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(3, 1, (6, 5, 3, 4)), jnp.float32)
    noise, valid = np.arange(6) % 3 == 1, np.arange(6) < 5
    weight = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    module = norm()
    variables = module.init(jax.random.key(0), x)

    def loss(params, x):
        y, updated = module.apply(
            {**variables, "params": params}, x, noise, valid, mutable=["batch_stats"]
        )
        return (weight * y).sum(), (y, updated)

    def results():
        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x)

    here = results()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    there = results()
    chex.assert_trees_all_close(here, there, rtol=2e-5, atol=2e-5)


@pytest.mark.every(3)
@pytest.mark.parametrize("noise_grad", ["none", "affine_stop", "full_stop"])
@norms
def test_a_relu_within_the_layer_is_one_after_it(norm, noise_grad):
    variables = norm().init(jax.random.key(0), X)
    weight = jnp.asarray(CT)

    def results(relu_within, dtype):
        layer = norm(noise_grad=noise_grad, relu=relu_within, dtype=dtype)

        def loss(params, x):
            y, updated = layer.apply(
                {**variables, "params": params}, x, NOISE, VALID, mutable=["batch_stats"]
            )
            y = y if relu_within else jax.nn.relu(y)
            return (weight * y).sum(), (y, updated)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            variables["params"], X.astype(dtype)
        )

    within, after = results(True, jnp.float32), results(False, jnp.float32)
    assert (within[0][1][0] == 0).any() and (within[0][1][0] > 0).any()
    chex.assert_trees_all_close(within, after, rtol=1e-5, atol=1e-5)
    within, after = results(True, jnp.bfloat16), results(False, jnp.bfloat16)
    assert within[0][1][0].dtype == jnp.bfloat16
    chex.assert_trees_all_close(within, after, rtol=2e-2, atol=2e-2)
