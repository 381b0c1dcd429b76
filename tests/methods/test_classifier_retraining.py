"""Classifier re-training: frozen backbone, its cost, its own schedule and a fresh head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.checkpoint.init_transforms import reset
from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.pixels import normalize
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.models import create_model
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.train_step import Inputs, Rows, init_state, make_step
from tests.tiny import STEPS_PER_EPOCH, tiny_config, write_npz

HALF = np.full(3, 0.5, np.float32)
STATS = DataStats(np.array([40, 10, 5]), (16, 16, 3), *[HALF] * 6)
RNG = np.random.default_rng(0)
INPUTS = Inputs(
    RNG.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8), (np.arange(8) % 3).astype(np.int32)
)
ROWS = Rows(np.arange(8), np.ones(8, bool))


def step_and_state(method):
    model = create_model("resnet8", num_classes=3)
    tx = make_optimizer("sgd", momentum=0.9, weight_decay=1e-3)
    recipe, batch_builder = build_recipe([method], STATS, {}), BatchBuilder(None, HALF, HALF, 3)
    state = jax.jit(lambda: init_state(model, tx, (16, 16, 3), 0))()
    return model, make_step(model, tx, lambda step: 0.1, recipe, batch_builder, 0), state


def test_only_the_head_moves_by_the_gradient_over_fixed_features():
    model, step, state = step_and_state("crt")
    # Running statistics that differ from those of the batch, as after training.
    stats = jax.tree.map(lambda x: x + 0.1, state.batch_stats)
    state = state.replace(batch_stats=stats)
    new, _, grads = jax.jit(step.update)(state, INPUTS, ROWS)
    variables = {"params": state.params, "batch_stats": stats}
    image = normalize(jnp.asarray(INPUTS.images / np.float32(255)), HALF, HALF)
    _, outputs = model.apply(variables, image, train=False)
    features = np.asarray(outputs["features"], np.float64)
    head = state.params["head"]["fc"]
    logits = features @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"])
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (probability - np.eye(3)[INPUTS.labels]) / 8
    np.testing.assert_allclose(grads["head"]["fc"]["kernel"], features.T @ error, atol=1e-5)
    np.testing.assert_allclose(grads["head"]["fc"]["bias"], error.sum(axis=0), atol=1e-6)
    for name in state.params:
        moved = jax.tree.map(
            lambda a, b: bool((a != b).any()), new.params[name], state.params[name]
        )
        assert all(jax.tree.leaves(moved)) == (name == "head"), name
    jax.tree.map(np.testing.assert_array_equal, new.batch_stats, stats)


@pytest.mark.slow
def test_it_costs_at_most_forty_percent_of_a_full_step():
    def flops(method):
        _, step, state = step_and_state(method)
        cost = jax.jit(step.update).lower(state, INPUTS, ROWS).compile().cost_analysis()
        return (cost[0] if isinstance(cost, list) else cost)["flops"]

    assert flops("crt") <= 0.4 * flops("erm")


def test_a_reset_head_has_its_initial_parameters_and_momentum():
    _, step, first = step_and_state("erm")
    later = first
    for _ in range(2):
        later, _, _ = jax.jit(step.update)(later, INPUTS, ROWS)
    fresh = reset(later, first, ("head",))
    for tree in ("params", "opt_state"):
        pairs = [getattr(state, tree) for state in (fresh, first, later)]
        if tree == "opt_state":
            pairs = [state[1].trace for state in pairs]
        for name in pairs[0]:
            wanted = pairs[1] if name == "head" else pairs[2]
            jax.tree.map(np.testing.assert_array_equal, pairs[0][name], wanted[name])
    assert int(fresh.step) == 2
    both = reset(later, first, ("head", "opt_state"))
    jax.tree.map(np.testing.assert_array_equal, both.opt_state, first.opt_state)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def retraining(npz, **own):
    config = tiny_config(npz, num_epochs=5)
    own = {"reset": ("head", "opt_state"), "learning_rate": 0.4, "warmup_epochs": 1, **own}
    config.phases.deferred = make_phase(3, ("crt",), **own)
    return config


def test_a_phase_has_its_own_schedule(npz):
    rates = build(retraining(npz, milestones=(1,), gamma=0.5)).rates
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.1, 0.4, 0.2])


def test_a_cosine_of_a_phase_runs_from_its_warmup_to_its_end(npz):
    config = retraining(npz, schedule="cosine")
    # A later phase ends it, and has the schedule of the run.
    config.num_epochs, config.phases.last = 8, make_phase(7, ("erm",))
    rates = build(config).rates
    np.testing.assert_allclose(rates[3:7], [0.4, 0.4, 0.3, 0.1], rtol=1e-12)
    np.testing.assert_allclose(rates[[0, 1, 2, 7]], [0.1, 0.1, 0.1, rates[7]])
    assert rates[7] == build(tiny_config(npz, num_epochs=8)).rates[7]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"learning_rate": 0.0},
            "warmup_epochs=1 is used only with phases.deferred.learning_rate above 0",
        ),
        (
            {"learning_rate": 0.0, "warmup_epochs": 0, "schedule": "cosine"},
            "schedule=cosine is used only with phases.deferred.learning_rate above 0",
        ),
        (
            {"schedule": "cosine", "milestones": (1,)},
            r"deferred.milestones=\(1,\) is used only with phases.deferred.schedule=step, but",
        ),
        (
            {"schedule": "cosine", "gamma": 0.5},
            "gamma=0.5 is used only with phases.deferred.schedule=step, .* legal: 0.1",
        ),
        ({"milestones": (2,)}, "goes beyond its 2 epochs"),
        ({"warmup_epochs": 3}, "goes beyond its 2 epochs"),
        ({"reset": ("body",)}, r"phases.deferred.reset=\('body',\) is not legal"),
    ],
)
def test_contradictory_schedules_are_refused(npz, tmp_path, own, message):
    with pytest.raises(ConfigError, match=message):
        train_and_evaluate(retraining(npz, **own), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 4])
def test_a_run_with_a_reset_resumes_bitwise(npz, tmp_path, stop):
    """The first stop is exactly the step at which the phase starts."""
    config = retraining(npz)
    config.checkpoint.every_steps, config.checkpoint.keep = 1, 100
    uninterrupted = train_and_evaluate(config, tmp_path / "run")
    initial = build(config).init()
    at = stop * STEPS_PER_EPOCH
    for later in range(at + 1, 5 * STEPS_PER_EPOCH + 1):
        folder = tmp_path / "run/checkpoints" / str(later)
        folder.rename(tmp_path / f"later{later}")
    resumed = train_and_evaluate(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed, uninterrupted)
    trained = np.asarray(uninterrupted.params["head"]["kernel"])
    assert (trained != initial.params["head"]["kernel"]).any()
