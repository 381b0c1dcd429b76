"""One training step: against a hand-written one, and what each seam changes."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.pixels import normalize, to_float
from purenoise_jax.data.sampling import by_class, pad_rows
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import METHODS, build_recipe
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.recipe import Recipe, current_variables, supervised
from purenoise_jax.methods.schedules import by_step
from purenoise_jax.models import HEADS, create_model
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.compile_steps import compile_steps
from purenoise_jax.training.records import epoch_record
from purenoise_jax.training.train_step import Inputs, Rows, TrainState, init_state, make_step
from tests.tiny import TinyNet

ROWS, CLASSES, LR, DECAY = 12, 3, 0.1, 1e-2
STEPS = 4  # of an epoch of the 40 images
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 8, 8, 3), np.uint8)
LABELS = RNG.integers(0, CLASSES, 40).astype(np.int32)
LABELS[:3] = [0, 1, 2]
MEAN, STD = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.25])
STATS = DataStats(np.array([30, 8, 2]), (8, 8, 3), MEAN, STD, MEAN, STD, MEAN, STD)
BUILDER = BatchBuilder(augment=None, mean=MEAN, std=STD, num_classes=CLASSES)
MODEL = TinyNet(num_classes=CLASSES)
TX = make_optimizer("sgd", momentum=0.9, weight_decay=DECAY)
INDEX = np.arange(ROWS, dtype=np.int32)
ALL = np.ones(ROWS, bool)
DATA = Inputs(IMAGES, LABELS)
ARGUMENTS = {"open": {"delta": 1.0}, "seql": {"threshold": 0.5}}


@pytest.fixture(scope="module")
def state():
    return jax.jit(partial(init_state, MODEL, TX, (8, 8, 3), 0))()


def run(state, recipe=None, index=INDEX, valid=ALL, model=MODEL, steps=1, lr=LR, data=DATA):
    step = jax.jit(make_step(model, TX, lambda step: lr, recipe or Recipe(), BUILDER, seed=0))
    totals = EpochMetrics.zero(STEPS)
    for _ in range(steps):
        state, totals = step(state, totals, data, Rows(index, valid))
    return state, totals


def by_hand(state):
    """Cross-entropy over all rows, coupled decay, momentum: written out."""
    x = (IMAGES[INDEX].astype(np.float32) / 255 - MEAN.reshape(1, 1, 1, 3)) / STD.reshape(
        1, 1, 1, 3
    )

    def loss_fn(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        (logits, _), new = MODEL.apply(variables, x, train=True, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS[INDEX])
        return losses.mean(), (new["batch_stats"], logits)

    (loss, (batch_stats, logits)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    trace = jax.tree.map(lambda g, p: g + DECAY * p, grads, state.params)
    params = jax.tree.map(lambda p, t: p - LR * t, state.params, trace)
    return loss, params, batch_stats, logits


def test_erm_step_is_the_written_out_one(state):
    new, totals = run(state)
    loss, params, batch_stats, logits = jax.jit(by_hand)(state)
    np.testing.assert_allclose(totals.sums.row_loss, ROWS * loss, rtol=1e-5)
    chex.assert_trees_all_close(new.params, params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(new.batch_stats, batch_stats, rtol=1e-4, atol=1e-6)
    assert int(new.step) == int(totals.sums.steps) == 1
    assert int(totals.sums.natural) == ROWS and int(totals.sums.noise) == 0
    assert int(totals.sums.correct) == (logits.argmax(-1) == LABELS[INDEX]).sum()
    assert not totals.skipped.any()


def test_padding_changes_nothing(state):
    plain, plain_totals = run(state)
    index = np.concatenate([INDEX, [39, 39, 39, 38]]).astype(np.int32)
    padded, totals = run(state, index=index, valid=index < 38)
    chex.assert_trees_all_close(padded.params, plain.params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(padded.batch_stats, plain.batch_stats, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(totals.sums.row_loss, plain_totals.sums.row_loss, rtol=1e-5)
    assert totals.sums.natural == ROWS


def test_batch_of_padding_only_leaves_statistics_and_is_finite(state):
    new, totals = run(state, valid=np.zeros(ROWS, bool))
    chex.assert_trees_all_equal(new.batch_stats, state.batch_stats)
    chex.assert_tree_all_finite(new.params)
    assert totals.sums.row_loss == 0 and totals.sums.natural == 0


def test_batch_of_noise_only_leaves_statistics_and_is_finite(state):
    def all_noise(key, batch):
        return {**batch, "noise_mask": jnp.ones_like(batch["valid"])}

    new, totals = run(state, dataclasses.replace(Recipe(), transforms=(all_noise,)))
    chex.assert_trees_all_equal(new.batch_stats, state.batch_stats)
    chex.assert_tree_all_finite(new.params)
    assert (totals.sums.noise, totals.sums.natural) == (ROWS, 0) and not totals.skipped.any()
    assert (new.params["head"]["kernel"] != state.params["head"]["kernel"]).any()


@pytest.mark.slow
def test_open_without_noise_is_balanced_resampling(state):
    none, _ = run(state, build_recipe(["open"], STATS, {"open": {"delta": 0.0}}))
    balanced, _ = run(state, build_recipe(["rs"], STATS, {}))
    chex.assert_trees_all_close(none.params, balanced.params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(none.batch_stats, balanced.batch_stats, rtol=1e-4, atol=1e-6)


def test_open_counts_noise_and_keeps_it_out_of_the_statistics(state):
    recipe = build_recipe(["open"], STATS, {"open": {"delta": 1.0}})
    new, totals = run(state, recipe)
    assert int(totals.sums.noise) > 0 and int(totals.sums.noise + totals.sums.natural) == ROWS
    key = jax.random.fold_in(rng.at(rng.stream(0, "transforms"), 0), 0)
    batch = BUILDER.make_batch(key, IMAGES, LABELS, INDEX, ALL)
    mask = np.asarray(recipe.transforms[0](key, batch)["noise_mask"])
    natural_only, _ = run(state, index=INDEX[~mask], valid=ALL[~mask])
    chex.assert_trees_all_close(
        new.batch_stats["norm"], natural_only.batch_stats["norm"], rtol=1e-4, atol=1e-6
    )


def test_noise_is_new_at_every_step_and_the_same_on_repetition(state):
    recipe = build_recipe(["open"], STATS, {"open": {"delta": 1.0}})
    # At rate 0 two steps of the same rows differ in their noise alone.
    one, two, again = (run(state, recipe, steps=n, lr=0.0)[1].sums.row_loss for n in (1, 2, 2))
    assert abs(two - 2 * one) > 1e-3
    assert two == again
    plain_one, plain_two = (run(state, steps=n, lr=0.0)[1].sums.row_loss for n in (1, 2))
    np.testing.assert_allclose(plain_two, 2 * plain_one, rtol=1e-6)


def test_raw_noise_enters_the_network_as_it_was_drawn():
    arguments = {"delta": 1.0, "space": "raw", "noise_stats": "explicit"}
    arguments |= {"mean": (0.49, 0.48, 0.45), "std": (0.2, 0.2, 0.2)}
    pixel = {**arguments, "space": "pixel"}
    batch = BUILDER.make_batch(jax.random.key(0), IMAGES, LABELS, INDEX, ALL)
    raw, drawn = (
        build_recipe(["open"], STATS, {"open": a}).transforms[0](jax.random.key(1), batch)
        for a in (arguments, pixel)
    )
    mask = np.asarray(raw["noise_mask"])
    assert mask.any() and not mask.all()
    entering = (np.asarray(raw["image"]) - MEAN) / STD
    np.testing.assert_allclose(entering[mask], np.asarray(drawn["image"])[mask], atol=1e-5)
    np.testing.assert_array_equal(raw["image"][~mask], batch["image"][~mask])


class Probe:
    """A stand-in for a network that notes what each forward pass gets; its only parameter is w."""

    def __init__(self):
        self.seen = []

    def apply(self, variables, image, noise_mask, valid, *, train, mutable, rngs):
        assert train and mutable == ["batch_stats"]
        self.seen.append((np.asarray(image), jax.random.key_data(rngs["dropout"]).tolist()))
        logits = jnp.broadcast_to(variables["params"]["w"], (len(image), CLASSES))
        return (logits, {}), {"batch_stats": {"passes": variables["batch_stats"]["passes"] + 1}}


def probe(recipe=None, batch_builder=BUILDER, lr_fn=lambda step: LR, at=(0,)):
    """The arguments that a `Probe` has seen at each of some steps, and the state after each."""
    tx, found = make_optimizer("sgd", momentum=0.0, weight_decay=0.0), []
    params = {"w": jnp.arange(3.0)}
    for step in at:
        model = Probe()
        update = make_step(model, tx, lr_fn, recipe or Recipe(), batch_builder, seed=7).update
        before = TrainState(jnp.int32(step), params, {"passes": 0}, tx.init(params))
        after, _, grads = update(before, DATA, Rows(INDEX, ALL))
        found.append((model.seen, after, grads))
    return found


def test_images_enter_normalised_with_the_statistics_of_the_loader():
    (((image, _),), *_) = probe()[0]
    expected = (IMAGES[INDEX] / 255 - MEAN.reshape(1, 1, 1, 3)) / STD.reshape(1, 1, 1, 3)
    np.testing.assert_allclose(image, expected, atol=1e-5)


def test_every_step_augments_and_drops_with_its_own_key():
    def shift(key, images):
        return images + rng.uniform(key, images.shape)

    batch_builder = dataclasses.replace(
        BUILDER, augment=shift, mean=np.zeros(3, "f"), std=np.ones(3, "f")
    )
    steps = (0, 1, 5)
    seen = [found[0][0] for found in probe(batch_builder=batch_builder, at=steps)]
    for step, (image, dropout_key) in zip(steps, seen, strict=True):
        drawn = rng.uniform(rng.at(rng.stream(7, "augment"), step), image.shape)
        np.testing.assert_allclose(image, IMAGES[INDEX] / np.float32(255) + drawn, atol=1e-6)
        expected = rng.at(rng.at(rng.stream(7, "dropout"), step), 0)
        assert dropout_key == jax.random.key_data(expected).tolist()
    assert len({str(key) for _, key in seen}) == len(steps)


def test_every_transform_and_the_objective_draw_with_keys_of_their_own():
    keys = []

    def transform(key, batch):
        keys.append(key)
        return batch

    def twice(recipe, networks, batch, key):
        keys.append(key)
        networks.forward(batch["image"])
        return supervised(recipe, networks, batch, key)

    recipe = Recipe(transforms=(transform, transform), objective=twice)
    steps = (0, 1)
    found = probe(recipe, at=steps)
    expected = [
        key
        for step in steps
        for key in (
            *(rng.at(rng.at(rng.stream(7, "transforms"), step), i) for i in (0, 1)),
            rng.at(rng.stream(7, "objective"), step),
        )
    ]
    as_data = [[jax.random.key_data(k).tolist() for k in side] for side in (keys, expected)]
    assert as_data[0] == as_data[1]
    # Two forward passes of one step drop other activations, and the second goes on from the
    # statistics of the first.
    assert len({str(key) for seen, *_ in found for _, key in seen}) == 2 * len(steps)
    assert [int(after.batch_stats["passes"]) for _, after, _ in found] == [2, 2]


def test_the_learning_rate_is_that_of_the_step_itself():
    rates = np.array([0.5, 0.25, 4.0])
    lr_fn = by_step(rates, steps_per_epoch=2)
    for step, (_, after, grads) in enumerate(probe(lr_fn=lr_fn, at=range(6))):
        expected = jnp.arange(3.0) - rates[step // 2] * grads["w"]
        np.testing.assert_allclose(after.params["w"], expected, rtol=1e-6)
        assert int(after.step) == step + 1


@pytest.mark.slow
def test_an_epochs_loss_weighs_rows_not_batches(state):
    """Three batches of 12 rows and one of 4."""
    index, valid = pad_rows(np.arange(40, dtype=np.int32), ROWS)
    step = jax.jit(make_step(MODEL, TX, lambda step: 0.0, Recipe(), BUILDER, seed=0))
    totals, losses = EpochMetrics.zero(STEPS), []
    for rows, real in zip(index, valid, strict=True):
        state, totals = step(state, totals, DATA, Rows(rows, real))
        # By the network itself, of the real rows alone.
        image = normalize(to_float(jnp.asarray(IMAGES[rows[real]])), MEAN, STD)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        (logits, _), _ = MODEL.apply(variables, image, train=True, mutable=["batch_stats"])
        each = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS[rows[real]])
        losses.append(float(each.mean()))
    clock = SimpleNamespace(images_per_second=1.0)
    phase = SimpleNamespace(methods=("erm",))
    record = epoch_record(totals, phase, 1, 0.1, clock, {})
    by_row = np.average(losses, weights=valid.sum(1))
    assert record["train/loss"] == pytest.approx(by_row, rel=1e-5)
    assert abs(by_row - np.mean(losses)) > 1e-3 * by_row, "the last batch weighs less"


def test_totals_of_the_first_version_are_read():
    """They had the sum of the steps' mean losses; all steps before an epoch's last are full."""
    old = {"loss": "4.5", "steps": 3, "natural": 30, "noise": 6, "correct": 9, "skipped": [1]}
    totals = EpochMetrics.zero(STEPS).from_json(old)
    assert totals.sums.row_loss == 4.5 * 12 and totals.sums.steps == 3
    assert totals.skipped.tolist() == [False, True, False, False]
    again = EpochMetrics.zero(STEPS).from_json(totals.to_json())
    chex.assert_trees_all_equal(again, totals)
    none = {**old, "loss": "0.0", "steps": 0, "natural": 0, "noise": 0}
    assert EpochMetrics.zero(STEPS).from_json(none).sums.row_loss == 0
    assert np.isinf(EpochMetrics.zero(STEPS).from_json({**old, "loss": "inf"}).sums.row_loss)


def test_frozen_parameters_stay(state):
    recipe = dataclasses.replace(Recipe(), trainable=lambda path: path[0] == "head")
    new, _ = run(state, recipe)
    moved = {k: v for k, v in new.params.items() if k != "head"}
    chex.assert_trees_all_equal(moved, {k: v for k, v in state.params.items() if k != "head"})
    assert (new.params["head"]["kernel"] != state.params["head"]["kernel"]).any()


def test_class_weights_select_rows(state):
    weights = np.float32([0, 1, 0])
    weighted, _ = run(state, dataclasses.replace(Recipe(), class_weights=weights))

    def only_class_1(logits, target):
        return optax.softmax_cross_entropy(logits, target) * target[:, 1]

    selected, _ = run(state, dataclasses.replace(Recipe(), loss=only_class_1))
    chex.assert_trees_all_close(weighted.params, selected.params, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_steps_in_a_loop_are_the_same_steps(state):
    index, valid = pad_rows(np.arange(40, dtype=np.int32), ROWS)
    placement = Placement(ROWS, 1)
    step = make_step(MODEL, TX, lambda step: LR, build_recipe(["open"], STATS, {}), BUILDER, seed=0)
    results = []
    for looped in (False, True):
        runner = compile_steps(step, placement, looped=looped)
        start = jax.tree.map(lambda x: placement.replicate(np.asarray(x)), state)
        totals = jax.tree.map(placement.replicate, EpochMetrics.zero(STEPS))
        data = (DATA, Rows(placement.split_rows(index), placement.split_rows(valid)))
        mid, totals = runner(start, totals, *data, 1, 2)
        results.append(runner(mid, totals, *data, 3, 1))
    one_by_one, in_a_loop = results
    assert int(in_a_loop[0].step) == 3 and int(in_a_loop[1].sums.steps) == 3
    assert int(in_a_loop[1].sums.natural + in_a_loop[1].sums.noise) == 2 * ROWS + 4
    chex.assert_trees_all_close(one_by_one, in_a_loop, rtol=2e-3, atol=2e-4)


@pytest.mark.every(8)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_steps(method, state):
    recipe, model = build_recipe([method], STATS, ARGUMENTS), MODEL
    if recipe.requires:
        if "projector" in recipe.requires:
            needs = {**recipe.requires, "projector_width": 8}
            model = create_model("resnet8", num_classes=CLASSES, **needs)
        else:
            model = MODEL.clone(head=HEADS[recipe.requires["head"]])
        state = jax.jit(partial(init_state, model, TX, (8, 8, 3), 0))()
    extra = {name: entry.init(current_variables(state)) for name, entry in recipe.memory.items()}
    state = state.replace(extra=extra)
    frozen = {name: current_variables(state) for name in recipe.frozen}
    data = DATA.replace(frozen=frozen, by_class=by_class(np.asarray(DATA.labels), CLASSES))
    new, totals = run(state, recipe, model=model, steps=2, data=data)
    chex.assert_tree_all_finite(new)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    assert not totals.skipped.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "norm", "dtype"),
    [
        ("resnet8", "bn", "float32"),
        pytest.param("wrn10_2", "aux_bn", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_networks_train_with_noise(model, norm, dtype):
    module = create_model(model, num_classes=CLASSES, norm=norm, dtype=dtype)
    start = jax.jit(partial(init_state, module, TX, (8, 8, 3), 0))()
    new, totals = run(start, build_recipe(["open"], STATS, {}), model=module, steps=2)
    chex.assert_tree_all_finite(new)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, start)
    assert not totals.skipped.any()
    assert {x.dtype for x in jax.tree.leaves((new.params, new.batch_stats))} == {
        np.dtype("float32")
    }


@pytest.mark.parametrize(("method", "balanced"), [("erm", False), ("rs", True), ("open", True)])
def test_methods_that_oversample_draw_classes_uniformly(method, balanced):
    probs = build_recipe([method], STATS, {}).class_probs
    assert probs is None if not balanced else probs.tolist() == [np.float32(1 / 3)] * 3


def test_methods_refuse_arguments_they_do_not_have():
    with pytest.raises(ValueError, match=r"method\.open\.deltta is unknown; legal: delta"):
        build_recipe(["open"], STATS, {"open": {"deltta": 1}})
    with pytest.raises(
        ValueError, match=r"'opne' is unknown; legal: erm, rs, .*; did you mean 'open'"
    ):
        build_recipe(["opne"], STATS, {})
    with pytest.raises(ValueError, match="must be 3 finite numbers"):
        build_recipe(["open"], STATS, {"open": {"noise_stats": "explicit", "mean": (0.5,)}})
