"""A step with a NaN or an infinity changes nothing and is told of; a few in a row stop the run."""

import dataclasses
import itertools
import json
import shutil
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenoise_jax import methods
from purenoise_jax.analysis.run_tables import provenance
from purenoise_jax.checkpoint.digest import state_digest
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.recipe import Outcome, cross_entropy, supervised
from purenoise_jax.models import NORMS
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import NonFiniteError
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.accumulators import EpochMetrics, StepMetrics
from purenoise_jax.training.build import build
from purenoise_jax.training.compile_steps import compile_steps
from purenoise_jax.training.finite_check import all_within, keep_finite
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.metric_writer import read_metrics
from purenoise_jax.training.packed_state import MAX_SIZE
from purenoise_jax.training.train_step import Inputs, Rows, TrainState, init_state, make_step
from tests.notes import Notes
from tests.tiny import STEPS_PER_EPOCH, TinyNet, tiny_config, write_npz

pytestmark = pytest.mark.slow

LARGEST = float(np.finfo(np.float32).max)
ROWS, BAD = 16, 2  # images of class 2 spoil the step that they are in
IMAGES = np.random.default_rng(0).integers(0, 256, (4 * ROWS, 8, 8, 3), np.uint8)
LABELS = np.arange(4 * ROWS, dtype=np.int32) % 2
LABELS[-1] = BAD
CLEAN = np.arange(ROWS, dtype=np.int32)
SPOILED = np.append(CLEAN[1:], 4 * ROWS - 1).astype(np.int32)
HALF = np.float32([0.5] * 3)
STATS = DataStats(np.array([50, 12, 5]), (8, 8, 3), *[HALF] * 6)
BUILDER = BatchBuilder(augment=None, mean=HALF, std=HALF, num_classes=3)


def nan_pixel(recipe):
    """In a network that turns NaN into 0 on its way, as a compiled ReLU may."""

    def transform(key, batch):
        nan = jnp.where(batch["label"] == BAD, jnp.nan, 0)
        return {**batch, "image": batch["image"].at[:, 3, 3, 0].add(nan)}

    def objective(recipe, networks, batch, key):
        logits, _ = networks.forward(batch["image"], batch.get("noise_mask"))
        logits = jnp.nan_to_num(logits)
        return Outcome(recipe.loss(logits, batch["target"]), logits)

    return dataclasses.replace(
        recipe, transforms=(*recipe.transforms, transform), objective=objective
    )


def nan_loss(recipe):
    def loss(logits, target):
        return cross_entropy(logits, target) + jnp.where(target[:, BAD] == 1, jnp.nan, 0)

    return dataclasses.replace(recipe, loss=loss)


def infinite_gradient(recipe):
    """A gradient of a finite loss: the slope of a square root at zero."""

    def loss(logits, target):
        bad = target[:, BAD] == 1
        zero = jnp.where(bad, logits[:, 0] - jax.lax.stop_gradient(logits[:, 0]), 1)
        return cross_entropy(logits, target) + jnp.where(bad, jnp.sqrt(zero), 0)

    return dataclasses.replace(recipe, loss=loss)


def nan_statistic(recipe):
    """And nothing else: a second pass whose output is not used."""

    def objective(recipe, networks, batch, key):
        result = supervised(recipe, networks, batch, key)
        nan = jnp.where((batch["label"] == BAD).any(), jnp.nan, 0)
        networks.forward(batch["image"] + nan, batch["noise_mask"])
        return result

    return dataclasses.replace(recipe, objective=objective)


def overflow(recipe):
    """Loss and gradient are finite, what the optimiser makes of them is not."""

    def loss(logits, target):
        return cross_entropy(logits, target) * jnp.where(target[:, BAD] == 1, 1e36, 1)

    return dataclasses.replace(recipe, loss=loss)


def frozen_gradient(recipe):
    """A gradient of a parameter that does not train, with an optimiser that remembers nothing."""

    def gradient(loss_fn, params, batch):
        found, grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        nan = jnp.where(found[0] > 1e3, jnp.nan, 0)
        grads["conv"] = jax.tree.map(lambda g: g + nan, grads["conv"])
        return found, grads

    def loss(logits, target):
        return cross_entropy(logits, target) + jnp.where(target[:, BAD] == 1, 1e6, 0)

    return dataclasses.replace(
        recipe, gradient=gradient, loss=loss, trainable=lambda path: path[0] != "conv"
    )


FORMS = [("bn", "sgd", 1, False), ("aux_bn", "adam", 8, False), ("dar_bn", "sgd", 8, True),
         ("dar_bn", "adam", 1, True)]  # fmt: skip
CASES = [(nan_pixel, *form) for form in FORMS]
CASES += [(nan_statistic, *form) for form in FORMS[1:3]]
CASES += [(nan_loss, *FORMS[0]), (frozen_gradient, *FORMS[1])]
CASES += [(infinite_gradient, *FORMS[2]), (overflow, *FORMS[2]), (overflow, *FORMS[3])]
# With clipping, which makes a gradient that is too large a small one, and NaN of an infinity.
CLIPPED = ("dar_bn", "adamw", 1, True)
CASES += [(nan_pixel, *CLIPPED), (infinite_gradient, *CLIPPED), (overflow, *CLIPPED)]


@pytest.mark.parametrize(("fault", "norm", "optimizer", "devices", "looped"), CASES)
def test_a_step_that_is_not_finite_changes_nothing(fault, norm, optimizer, devices, looped):
    placement = Placement(ROWS, devices)
    model = TinyNet(num_classes=3, norm=NORMS[norm])
    clip_norm = 0.5 if optimizer == "adamw" else 0
    tx = make_optimizer(optimizer, momentum=0.9, weight_decay=1e-3, clip_norm=clip_norm)
    if fault is frozen_gradient:
        tx = optax.identity()
    recipe = fault(build_recipe(["open"], STATS, {"open": {"delta": 0.5}}))
    # With SGD nothing short of the update overflows.
    rate = 1e10 if fault is overflow else 0.1
    step = make_step(model, tx, lambda step: rate * (step >= 0), recipe, BUILDER, seed=0)
    run = compile_steps(step, placement, looped=looped)
    index = np.stack([SPOILED, CLEAN, SPOILED, SPOILED, CLEAN])
    if fault is overflow:
        index[1] = index[4] = SPOILED
    data = (
        Inputs(*map(placement.replicate, (IMAGES, LABELS))),
        Rows(*map(placement.split_rows, (index, np.ones(index.shape, bool)))),
    )
    state = jax.jit(
        partial(init_state, model, tx, (8, 8, 3), 0), out_shardings=placement.replicated
    )()
    totals = jax.tree.map(placement.replicate, EpochMetrics.zero(5))
    digests, seen = [state_digest(jax.device_get(state))], []
    for first, count in ((0, 1), (1, 1), (2, 2), (4, 1)):
        state, totals = run(state, totals, *data, first, count)
        host = jax.device_get(state)
        digests.append(state_digest(host))
        seen.append(int(host.step))
        chex.assert_tree_all_finite(host)
        chex.assert_tree_all_finite(totals)
    assert seen == [1, 2, 4, 5]
    changes = [a != b for a, b in itertools.pairwise(digests)]
    sums, skipped = jax.device_get(totals)
    if fault is overflow:
        assert not any(changes) and skipped.all()
        assert tuple(sums) == (0, 0, 0, 0, 0)
    else:
        assert changes == [False, True, False, True]
        assert skipped.tolist() == [True, False, True, True, False]
        assert sums.steps == 2 and sums.natural + sums.noise == 2 * ROWS and sums.noise > 0


@pytest.mark.parametrize("fault", [nan_pixel, infinite_gradient, nan_statistic])
def test_the_loss_does_not_tell(fault):
    """It is finite although what the step would keep is not."""
    model, tx = TinyNet(num_classes=3), make_optimizer("sgd", momentum=0.9, weight_decay=0)
    recipe = fault(build_recipe(["open"], STATS, {}))
    update = jax.jit(make_step(model, tx, lambda step: 0.1, recipe, BUILDER, seed=0).update)
    state = jax.jit(partial(init_state, model, tx, (8, 8, 3), 0))()
    new, sums, grads = update(state, Inputs(IMAGES, LABELS), Rows(SPOILED, np.ones(ROWS, bool)))
    assert np.isfinite(sums.row_loss)
    assert not all_within(((new, grads), LARGEST))
    assert all_within((grads, LARGEST)) == (fault is nan_statistic)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture
def poisoned(monkeypatch, npz):
    """(steps, overrides) -> the config of a run in which these steps have a NaN pixel."""

    def config(steps, **overrides):
        def method(recipe, stats):
            stream, place = rng.stream(0, "transforms"), len(recipe.transforms)
            # The key tells a transform which step it is in.
            keys = jnp.stack([
                jax.random.key_data(jax.random.fold_in(rng.at(stream, step), place))
                for step in steps
            ])  # fmt: skip

            def transform(key, batch):
                hit = (jax.random.key_data(key)[None] == keys).all(-1).any()
                image = batch["image"].at[0, 0, 0, 0].add(jnp.where(hit, jnp.nan, 0))
                return {**batch, "image": image}

            return dataclasses.replace(recipe, transforms=(*recipe.transforms, transform))

        monkeypatch.setitem(methods.METHODS, "poisoned", method)
        initial = {"phases.initial.methods": ("poisoned",)}
        deferred = {"phases.deferred.methods": ("open", "poisoned")}
        return tiny_config(npz, **initial, **deferred, **overrides)

    return config


ALL_SAVED = {"checkpoint.every_steps": 1, "checkpoint.keep": 100}


def log_of(workdir):
    return read_metrics(workdir / "skipped.jsonl")


def summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_a_run_goes_on_after_two_and_says_which(poisoned, tmp_path, steps_per_call):
    """From the first step on, over the end of an epoch and of a phase, and once more later."""
    bad = [0, 5, 6, 8]
    config = poisoned(bad, steps_per_call=steps_per_call, **ALL_SAVED)
    display = Notes()
    state = train_and_evaluate(config, tmp_path / "whole", display)
    chex.assert_tree_all_finite(jax.device_get(state))
    assert int(state.step) == 12 and summary(tmp_path / "whole")["skipped_steps"] == 4
    records = read_metrics(tmp_path / "whole/metrics.jsonl")
    assert [r["train/skipped"] for r in records] == [1, 1, 2, 0]
    assert [r["train/steps"] for r in records] == [2, 2, 1, 3]
    assert np.isfinite([r["train/loss"] for r in records]).all()

    log = log_of(tmp_path / "whole")
    experiment = build(config)
    for step, line in zip(bad, log, strict=True):
        epoch, row = divmod(step, STEPS_PER_EPOCH)
        probs = experiment.phase_of(epoch).recipe.class_probs
        index, valid = experiment.sampler.epoch(epoch, probs)
        indices = index[row][valid[row]].tolist()
        assert line == {"step": step, "epoch": epoch, "row": row, "indices": indices}
    assert len(log[-1]["indices"]) == 13, "padding is left out"
    assert [line.split()[:4] for line in display.warnings] == [
        ["step", str(step), "(epoch", f"{step // STEPS_PER_EPOCH})"] for step in bad
    ]
    assert str(tmp_path / "whole/skipped.jsonl") in display.warnings[0]

    # Continued in the middle of the two, lines of later steps are removed and written again.
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    for later in range(7, 13):
        shutil.rmtree(tmp_path / "parts/checkpoints" / str(later), ignore_errors=True)
    again = train_and_evaluate(config, tmp_path / "parts")
    assert state_digest(again) == state_digest(state)
    assert log_of(tmp_path / "parts") == log
    assert summary(tmp_path / "parts")["skipped_steps"] == 4
    (fact,) = [
        f for f in provenance(load_runs([tmp_path / "parts"])[0]) if f.name == "skipped steps"
    ]
    assert fact.text == "4"


@pytest.mark.parametrize(("steps_per_call", "every"), [(1, 0), (2, 1), (3, 0)])
def test_three_in_a_row_stop_the_run(poisoned, tmp_path, steps_per_call, every):
    saving = {"checkpoint.every_steps": every, "checkpoint.keep": 100}
    # Epochs of twelve steps.
    config = poisoned([1, 11, 12, 13], batch_size=4, steps_per_call=steps_per_call, **saving)
    display = Notes()
    newest = 13 if every else 12
    message = rf"at steps 11, 12, 13 \(epoch 1\), .*skipped\.jsonl; .*checkpoint: {newest} in"
    with pytest.raises(NonFiniteError, match=message) as error:
        train_and_evaluate(config, tmp_path, display)
    assert error.value.exit_code == 6
    assert display.done <= 13 + 2 * steps_per_call, "at once"
    assert [line["step"] for line in log_of(tmp_path)] == [1, 11, 12, 13]
    assert not (tmp_path / "summary.json").exists()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps()[-1] == newest
    chex.assert_tree_all_finite(checkpoints.restore(newest, build(config).target()))
    # What was in a row before a checkpoint counts on after it.
    with pytest.raises(NonFiniteError, match=message):
        train_and_evaluate(config, tmp_path)
    assert [line["step"] for line in log_of(tmp_path)] == [1, 11, 12, 13]


def test_an_epoch_in_which_nothing_trained_has_no_loss(poisoned, tmp_path):
    config = poisoned([0, 1], batch_size=32, **{"eval.every_epochs": 1})
    train_and_evaluate(config, tmp_path)
    first, second, *_ = read_metrics(tmp_path / "metrics.jsonl")
    assert (first["train/steps"], first["train/skipped"]) == (0, 2)
    assert {name for name in second if name not in first} == {
        "train/loss", "train/accuracy", "train/noise_fraction",
    }  # fmt: skip
    assert "test/accuracy" in first


def test_a_run_without_such_steps_has_no_log(npz, tmp_path):
    train_and_evaluate(tiny_config(npz, num_epochs=3), tmp_path)
    assert not (tmp_path / "skipped.jsonl").exists()
    assert summary(tmp_path)["skipped_steps"] == 0
    facts = provenance(load_runs([tmp_path])[0])
    assert "skipped steps" not in [fact.name for fact in facts]


def test_a_log_that_cannot_be_written_costs_a_warning(poisoned, tmp_path):
    class Spoiler(Notes):
        def doing(self, what):
            # Once it trains: what is there at the start is refused.
            if what == "compiling":
                (tmp_path / "skipped.jsonl").mkdir(exist_ok=True)

    display = Spoiler()
    train_and_evaluate(poisoned([0, 5, 6, 8]), tmp_path, display)
    assert summary(tmp_path)["skipped_steps"] == 4
    (warning,) = [line for line in display.warnings if "cannot be written" in line]
    assert "skipped.jsonl" in warning and len(display.warnings) == 5


def test_a_gradient_beyond_the_limit_is_not_finite_even_in_an_array_too_large_to_check():
    """The limit falls with the learning rate, so that their product cannot overflow."""
    size = MAX_SIZE + 1
    old = TrainState(jnp.int32(3), {"w": jnp.ones(size)}, {}, {"m": jnp.zeros(size)})
    new = TrainState(jnp.int32(4), {"w": jnp.full(size, 2.0)}, {}, {"m": jnp.ones(size)})
    loss = StepMetrics(jnp.float32(1), *(jnp.int32(0),) * 4)

    def kept(gradient, limit):
        grads = {"w": jnp.zeros(size).at[-1].set(gradient)}
        state, finite = keep_finite(old, new, loss, grads, limit)
        assert state.step == 4
        chex.assert_trees_all_equal(state.params, new.params if finite else old.params)
        return bool(finite)

    assert kept(1e17, 1e18) and kept(-1e17, 1e18)
    for gradient, limit in (
        (1e19, 1e18),
        (-1e19, 1e18),
        (1e9, 1e8),
        (jnp.nan, 1e18),
        (jnp.inf, 1e18),
    ):
        assert not kept(gradient, limit)


def test_a_small_array_that_has_diverged_is_not_kept():
    old = TrainState(jnp.int32(3), {"w": jnp.ones(5)}, {}, {})
    loss = StepMetrics(jnp.float32(1), *(jnp.int32(0),) * 4)
    for value, finite in ((1e29, True), (1e31, False), (jnp.nan, False)):
        new = TrainState(jnp.int32(4), {"w": jnp.ones(5).at[2].set(value)}, {}, {})
        assert keep_finite(old, new, loss, {"w": jnp.zeros(5)}, 1e18)[1] == finite
