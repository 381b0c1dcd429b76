"""Second stages over a fixed backbone: LOS and decoupled balanced softmax against numpy, and layouts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits_lt
from purenoise_jax.checkpoint.init_transforms import class_scale, without_aux_norm
from purenoise_jax.config.identity import config_hash
from purenoise_jax.config.phase_fields import PHASE_FIELDS
from purenoise_jax.config.validation import validate
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.models.dropout import without_dropout
from purenoise_jax.models.norm import AUX_PREFIX
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.build import build
from purenoise_jax.training.train_step import TrainState
from tests.headed_step import params_of, train
from tests.linear_step import COUNTS, STATS, data, run, softmax
from tests.tiny import TinyNet, tiny_config, write_npz

IMAGES, LABELS, _ = data(rows=6)


def head_after(params, target, shift, mean, lr, decay):
    """The head after one step of cross-entropy with soft targets, in float64."""
    fc = {name: np.asarray(array, float) for name, array in params["head"]["fc"].items()}
    features = IMAGES.reshape(6, -1) / 255 * params["body"].astype(float) - mean
    error = (softmax(features @ fc["kernel"] + fc["bias"] + shift) - target) / 6
    return {
        "kernel": fc["kernel"] - lr * (features.T @ error + decay * fc["kernel"]),
        "bias": fc["bias"] - lr * (error.sum(axis=0) + decay * fc["bias"]),
    }


@pytest.mark.parametrize("bn", ["frozen", "shifted"])
def test_a_step_of_los_against_numpy(bn):
    params = params_of()
    recipe = build_recipe(["los"], STATS, {"los": {"bn": bn}})
    state, *_ = train(recipe, params, lr=0.3, weight_decay=0.1, dropout_rate=0.5)
    target = 0.02 * np.eye(3)[LABELS] + 0.98 / 3
    mean = (IMAGES.reshape(6, -1) / 255 * params["body"]).mean(axis=0) if bn == "shifted" else 0.2
    expected = head_after(params, target, 0, mean, 0.3, 0.1)
    for name, array in state.params["head"]["fc"].items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(state.params["body"], params["body"])
    assert recipe.class_probs is None


def test_smoothed_labels_of_los_are_those_of_the_source():
    """With 100 classes, 0.0298 for the label and 0.0098 for the others."""
    stats = dataclasses.replace(STATS, class_counts=np.arange(100, 0, -1))
    (smooth,) = build_recipe(["los"], stats, {}).transforms
    found = smooth(None, {"label": jnp.array([7]), "target": jnp.eye(100)[jnp.array([7])]})
    expected = np.full(100, 0.0098)
    expected[7] = 0.0298
    np.testing.assert_allclose(found["target"][0], expected, rtol=1e-5)


@pytest.mark.parametrize("bn", ["frozen", "shifted"])
def test_a_step_of_decoupled_balanced_softmax_against_numpy(bn):
    params = params_of()
    recipe = build_recipe(["decoupled_softmax"], STATS, {"decoupled_softmax": {"bn": bn}})
    state, *_ = train(recipe, params, lr=0.3, weight_decay=0.1, dropout_rate=0.5)
    batch = (IMAGES.reshape(6, -1) / 255 * params["body"]).mean(axis=0)
    mean = batch if bn == "shifted" else 0.2
    expected = head_after(params, np.eye(3)[LABELS], np.log(COUNTS), mean, 0.3, 0.1)
    for name, array in state.params["head"]["fc"].items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(state.params["body"], params["body"])
    running = 0.1 + 0.5 * batch if bn == "shifted" else np.full(12, np.float32(0.2))
    np.testing.assert_allclose(state.batch_stats["mean"], running, rtol=1e-5)
    assert recipe.class_probs is None


@pytest.mark.parametrize("method", ["crt", "lws", "mislas", "maxnorm", "los", "decoupled_softmax"])
def test_padding_changes_no_part_of_a_step(method):
    """Whatever its pixels and its label are, in either mode of batch norm."""
    head = "scaled" if method in ("lws", "mislas") else "linear"
    valid, images, labels = np.arange(6) < 5, np.array(IMAGES), np.array(LABELS)
    images[5], labels[5] = 255 - images[5], 0
    for bn in ("frozen", "shifted"):
        recipe = build_recipe([method], STATS, {method: {"bn": bn}})
        one = train(recipe, params_of(head), head, valid=valid)
        other = train(recipe, params_of(head), head, images=images, labels=labels, valid=valid)
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_rate_factor_multiplies_the_step_of_a_parameter_and_one_is_the_default():
    images, labels, kernel = data()
    plain, _, grads = run(Recipe(), images, labels, kernel, lr=0.5)
    half, *_ = run(Recipe(lr_factor=lambda path: 0.5), images, labels, kernel, lr=0.5)
    none, *_ = run(Recipe(lr_factor=lambda path: 0.0), images, labels, kernel, lr=0.5)
    np.testing.assert_allclose(half.params["head"]["kernel"], kernel - 0.25 * grads, rtol=1e-6)
    np.testing.assert_array_equal(none.params["head"]["kernel"], kernel)
    unit, *_ = run(Recipe(lr_factor=lambda path: 1.0), images, labels, kernel, lr=0.5)
    jax.tree.map(np.testing.assert_array_equal, unit.params, plain.params)


def test_a_model_without_dropout_has_the_same_parameters_and_drops_nothing():
    model = without_dropout(TinyNet(3, dropout_rate=0.5))
    assert model == TinyNet(3, dropout_rate=0.0)
    assert without_dropout(model) is model


@pytest.mark.parametrize(
    ("method", "epochs", "rate", "decay", "reset"),
    [
        ("crt", 30, 0.1, 5e-4, ("head", "opt_state")),
        ("lws", 30, 0.1, 5e-4, ("opt_state",)),
        ("mislas", 10, 0.1, 2e-4, ("opt_state",)),
        ("maxnorm", 10, 0.01, 0.1, ("opt_state",)),
        ("los", 20, 5e-4, 0.0, ("opt_state",)),
        ("decoupled_softmax", 31, 0.1, 5e-4, ("head", "opt_state")),
        ("meta_sampler", 31, 0.1, 5e-4, ("head", "opt_state")),
        ("ncm", 1, 0.0, -1.0, ()),
    ],
)
def test_published_second_stages_follow_two_hundred_epochs(method, epochs, rate, decay, reset):
    config = digits_lt.get_config(f"method=mixup+tau_norm+{method},epochs=200")
    stage = config.phases.second_stage
    assert stage.methods == ("tau_norm", method) and stage.start_epoch == 200
    assert config.num_epochs == 200 + epochs
    assert (stage.learning_rate, stage.weight_decay, stage.reset) == (rate, decay, reset)
    assert stage.schedule == ("step" if method in ("crt", "lws", "ncm") else "cosine")


def test_heads_that_contradict_each_other_are_refused_by_name():
    with pytest.raises(
        ConfigError, match=r"lws needs model\.head=scaled, but a method before it .*=linear"
    ):
        build_recipe(["tau_norm", "lws"], STATS, {})
    assert digits_lt.get_config("method=mixup+mislas").model.head == "scaled"


def test_a_phase_has_its_own_weight_decay(tmp_path):
    npz = write_npz(tmp_path / "data.npz")
    config = tiny_config(npz)
    plain = config_hash(config)
    config.phases.deferred = {**config.phases.deferred, "weight_decay": -1.0}
    assert config_hash(config) == plain
    config.phases.deferred.weight_decay = 0.5
    assert config_hash(config) != plain
    validate(config)
    experiment = build(config)
    params, zero = {"w": jnp.float32(2)}, {"w": jnp.float32(0)}
    updates = []
    for phase in experiment.phases:
        tx = experiment.step_fn(phase).tx
        updates.append(tx.update(zero, experiment.tx.init(params), params)[0]["w"])
    np.testing.assert_allclose(updates, [2 * 2e-4, 1.0], rtol=1e-6)
    for value in (-0.5, -2.0, float("nan")):
        assert not PHASE_FIELDS["weight_decay"].legal.allows(value)
    for value in (-1, -1.0, 0, 0.1):
        assert PHASE_FIELDS["weight_decay"].legal.allows(value)


def state_with(**head):
    """A state whose momentum and moving average have the names of its parameters."""
    params = {"head": {"fc": {"kernel": np.zeros(2)}, **head}, "norm": {"scale": np.zeros(2)}}
    trees = [jax.tree.map(lambda x, i=i: x + i, params) for i in range(3)]
    return TrainState(np.int32(0), trees[0], {}, (trees[1],), {"ema": {"params": trees[2]}})


@pytest.mark.parametrize("aux", [False, True])
def test_scales_are_added_to_the_state_of_a_linear_head(aux):
    """With their momentum and average; auxiliary layers that are missing are added later."""
    wanted, plain = state_with(class_scale=np.ones(3)), state_with()
    if aux:
        wanted.params[f"{AUX_PREFIX}norm"] = {"scale": np.ones(1)}
    transform = class_scale()
    assert transform.applies(["params/head/fc/kernel"], wanted)
    assert not transform.applies(["params/head/class_scale"], wanted)
    assert not transform.applies(["params/head/fc/kernel"], plain)
    without = transform.without(wanted)
    assert "class_scale" not in without.params["head"] and "head" in without.opt_state[0]
    trained = jax.tree.map(lambda x: x + 5, plain)
    found = transform.add(trained, without_aux_norm(wanted))
    for tree, first in (
        (found.params, 1),
        (found.opt_state[0], 2),
        (found.extra["ema"]["params"], 3),
    ):
        np.testing.assert_array_equal(tree["head"]["class_scale"], np.full(3, first))
        np.testing.assert_array_equal(tree["head"]["fc"]["kernel"], np.full(2, first + 4))
