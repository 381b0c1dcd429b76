"""One run on one, two and eight devices: the same batches, the same moments, the same steps."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.augment.compose import make_augment
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.sampling import EpochSampler
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.recipe import Recipe, current_variables, identity
from purenoise_jax.models.norm import AuxBatchNorm, BatchNorm, DARBatchNorm
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError, DataError
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.compile_steps import compile_steps
from purenoise_jax.training.confusion import Confusion
from purenoise_jax.training.evaluation import Evaluator
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.train_step import Inputs, Rows, init_state, make_step
from tests.tiny import TinyNet, tiny_config, write_npz

pytestmark = pytest.mark.slow

ROWS = 24  # of which the last step has 5 padded: on eight devices one holds nothing but padding
IMAGES = np.random.default_rng(0).integers(0, 256, (67, 8, 8, 3), np.uint8)
LABELS = np.repeat(np.arange(3), [50, 12, 5]).astype(np.int32)
MEAN, STD = np.float32([0.5] * 3), np.float32([0.3] * 3)
STATS = DataStats(np.array([50, 12, 5]), (8, 8, 3), MEAN, STD, MEAN, STD, MEAN, STD)
AUGMENT = make_augment(("flip", "crop", "cutout", "simclr"), crop_padding=1, cutout_size=4)
BUILDER = BatchBuilder(augment=AUGMENT, mean=MEAN, std=STD, num_classes=3)
RECIPE = build_recipe(["open"], STATS, {"open": {"delta": 0.8}})


def rows(placement):
    sampler = EpochSampler(LABELS, 3, ROWS, seed=0)
    return map(placement.split_rows, sampler.epoch(0, RECIPE.class_probs))


@pytest.mark.parametrize("devices", [2, 8])
def test_batches_are_the_same(devices):
    def batch(count):
        placement = Placement(ROWS, count)
        index, valid = rows(placement)

        @jax.jit
        def make(index, valid):
            index, valid = (
                jax.lax.with_sharding_constraint(x[-1], placement.batch) for x in (index, valid)
            )
            key = rng.stream(0, "augment")
            loaded = BUILDER.make_batch(key, jnp.asarray(IMAGES), jnp.asarray(LABELS), index, valid)
            return RECIPE.transforms[0](rng.stream(0, "transforms"), loaded)

        return jax.device_get(make(index, valid))

    one, many = batch(1), batch(devices)
    for name in ("label", "valid", "noise_mask"):
        np.testing.assert_array_equal(one[name], many[name])
    assert one["noise_mask"].any() and not one["valid"].all()
    # Fused differently, so equal to rounding only.
    np.testing.assert_allclose(one["image"], many["image"], atol=1e-5)


@pytest.mark.parametrize("norm", [BatchNorm, AuxBatchNorm, DARBatchNorm])
@pytest.mark.parametrize("devices", [2, 8])
def test_moments_are_global(norm, devices):
    x = np.random.default_rng(1).normal(3, 2, (ROWS, 6, 6, 4)).astype(np.float32)
    noise_mask, valid = np.arange(ROWS) % 3 == 0, np.arange(ROWS) < ROWS - 5
    module = norm()
    variables = module.init(jax.random.key(0), x)

    def loss(x, count):
        y, new = module.apply(variables, x, noise_mask, valid, mutable=["batch_stats"])
        return (y * valid[:, None, None, None] * x).sum(), (y[: ROWS - 5], new)

    def on(count):
        placement = Placement(ROWS, count)
        split = jax.device_put(x, placement.batch)
        return jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)(split, count)

    ((loss_1, (y_1, stats_1)), grad_1), ((loss_n, (y_n, stats_n)), grad_n) = on(1), on(devices)
    chex.assert_trees_all_close(stats_1, stats_n, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(y_1, y_n, atol=2e-6)
    np.testing.assert_allclose(grad_1, grad_n, atol=2e-5)
    np.testing.assert_allclose(loss_1, loss_n, rtol=1e-5)


def steps_on(count, steps=3):
    placement = Placement(ROWS, count)
    model = TinyNet(num_classes=3, dropout_rate=0.2)
    tx = make_optimizer("sgd", momentum=0.9, weight_decay=2e-4)
    state = jax.jit(
        lambda: init_state(model, tx, (8, 8, 3), 0), out_shardings=placement.replicated
    )()
    step = make_step(model, tx, lambda step: 0.05, RECIPE, BUILDER, seed=0)
    run = compile_steps(step, placement, looped=False)
    inputs = Inputs(placement.replicate(IMAGES), placement.replicate(LABELS))
    data = (inputs, Rows(*rows(placement)))
    state, totals = run(
        state, jax.tree.map(placement.replicate, EpochMetrics.zero(steps)), *data, 0, steps
    )
    return jax.device_get((state, totals)), jax.tree.leaves(state)[1].sharding


@pytest.mark.parametrize("devices", [2, 8])
def test_steps_are_the_same_and_the_state_stays_on_every_device(devices):
    (one, totals_1), _ = steps_on(1)
    (many, totals_n), sharding = steps_on(devices)
    assert len(sharding.device_set) == devices and sharding.is_fully_replicated
    assert totals_1.sums[1:] == totals_n.sums[1:]
    np.testing.assert_allclose(totals_1.sums.row_loss, totals_n.sums.row_loss, rtol=1e-5)
    chex.assert_trees_all_close(one, many, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("devices", [1, 8])
def test_evaluation_counts_every_image_once(devices):
    placement = Placement(ROWS, devices)
    model = TinyNet(num_classes=3)
    state = init_state(model, make_optimizer("sgd", momentum=0.9, weight_decay=0), (8, 8, 3), 0)

    def evaluate(batch_size):
        evaluator = Evaluator(
            model, IMAGES, LABELS, batch_builder=BUILDER, placement=placement, batch_size=batch_size
        )
        return evaluator(current_variables(state), identity)

    # 67 images; a batch size that is not divisible by the devices is rounded up.
    counts, other = evaluate(10), evaluate(67)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits, _ = model.apply(variables, (IMAGES / np.float32(255) - 0.5) / 0.3, train=False)
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (LABELS, np.asarray(logits).argmax(-1)), 1)
    for each in (counts, other):
        found = Confusion.of(LABELS, each.predicted, 3)
        np.testing.assert_array_equal(found.dense(), expected)
        assert each.sums.bins[:, 0].sum() == 67
    probs = np.exp(np.asarray(jax.nn.log_softmax(logits), np.float64))
    nll = -np.log(probs[np.arange(67), LABELS])
    np.testing.assert_allclose(counts.sums.nll, nll.sum(), rtol=1e-5)
    np.testing.assert_allclose(counts.sums.bins[:, 1].sum(), probs.max(-1).sum(), rtol=1e-5)


def test_evaluation_shares_images_evenly_over_its_passes():
    images = np.zeros((10_000, 1, 1, 3), np.uint8)
    labels = np.zeros(10_000, np.int32)
    placement = Placement(8, 8)

    def rows(count, batch_size):
        evaluator = Evaluator(
            None,
            images[:count],
            labels[:count],
            batch_builder=BUILDER,
            placement=placement,
            batch_size=batch_size,
        )
        return evaluator._rows[0].shape

    # 500 would do, but must be divisible by the devices.
    assert rows(10_000, 512) == (20, 504)
    assert rows(10_000, 20_000) == (1, 10_000)
    assert rows(7, 512) == (1, 8)


def test_data_that_does_not_fit_on_a_device_is_refused(monkeypatch):
    placement = Placement(8, 8)
    placement.check_fits([IMAGES, None])
    monkeypatch.setattr(Placement, "memory", property(lambda self: IMAGES.nbytes))
    placement.check_fits([IMAGES])
    with pytest.raises(DataError, match=r"take 0\.0 GiB, .* smaller data.image_size"):
        placement.check_fits([IMAGES, IMAGES[:1]])


def test_whole_run_on_eight_devices_agrees_with_one(tmp_path):
    npz = write_npz(tmp_path / "tiny.npz")
    one = train_and_evaluate(tiny_config(npz), tmp_path / "one")
    many = train_and_evaluate(tiny_config(npz, num_devices=8), tmp_path / "many")
    chex.assert_trees_all_close(
        jax.device_get(one.params), jax.device_get(many.params), rtol=1e-3, atol=1e-4
    )


def test_a_run_may_continue_on_another_number_of_devices(tmp_path):
    npz = write_npz(tmp_path / "tiny.npz")
    train_and_evaluate(tiny_config(npz, num_epochs=3), tmp_path / "run")
    state = train_and_evaluate(tiny_config(npz, num_devices=4), tmp_path / "run")
    assert int(state.step) == 12


def test_batch_that_the_devices_cannot_share_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size=30 is not .* 8 devices; .*: 24 or 32"):
        Placement(30, 8)
    with pytest.raises(ConfigError, match=r"batch_size=3 .* nearest legal: 8"):
        Placement(3, 8)
    with pytest.raises(ConfigError, match=r"num_devices=9 but this machine has 8"):
        Placement(18, 9)


def test_recipe_defaults_are_erm():
    assert Recipe().class_probs is None and Recipe().transforms == ()
