"""TDE: the mean feature against numpy, and that only evaluation takes it out."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.config.validation import validate
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.recipe import Observed, cross_entropy, supervised
from purenoise_jax.models import HEADS
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from tests.linear_step import STATS, data, run
from tests.tiny import TinyNet, tiny_config, write_npz

FEATURES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
VALID = np.arange(6) < 5
NOISE = np.array([0, 1, 0, 0, 0, 0], bool)
RECIPE = build_recipe(["tde"], STATS, {"tde": {"mu": 0.75, "alpha": 1.5}})
MEMORY = RECIPE.memory["tde"]


def after(average, valid, noise=None):
    """The average after a step whose other rows have features that are not numbers."""
    natural = valid if noise is None else valid & ~noise
    features = jnp.where(jnp.asarray(natural)[:, None], FEATURES, jnp.nan)
    batch = {"valid": jnp.asarray(valid)}
    if noise is not None:
        batch["noise_mask"] = jnp.asarray(noise)
    return MEMORY.update(average, Observed({}, jnp.int32(0), batch, {"features": features}))


def test_the_mean_feature_moves_by_the_natural_rows():
    start = MEMORY.init({"params": {"head": {"kernel": jnp.zeros((4, 3))}}})
    assert start.shape == (4,) and not start.any()
    first = after(start, VALID, NOISE)
    natural = FEATURES[VALID & ~NOISE].mean(0)
    np.testing.assert_allclose(first, 0.25 * natural, rtol=1e-5)
    second = after(first, VALID)
    expected = 0.75 * 0.25 * natural + 0.25 * FEATURES[VALID].mean(0)
    np.testing.assert_allclose(second, expected, rtol=1e-5)


def test_a_batch_without_natural_rows_leaves_the_mean_feature():
    average, every = jnp.arange(4.0), np.ones(6, bool)
    for valid, noise in ((every, every), (~every, ~every), (~every, None)):
        np.testing.assert_array_equal(after(average, valid, noise), average)


def test_a_step_trains_plainly_and_keeps_the_features_of_its_rows():
    images, labels, kernel = data(rows=6)
    state, _, grads = run(RECIPE, images, labels, kernel, VALID)
    np.testing.assert_array_equal(grads, run(build_recipe(["erm"], STATS, {}), images, labels, kernel, VALID)[2])  # fmt: skip
    expected = 0.25 * images[VALID].reshape(5, -1).mean(0) / 255
    np.testing.assert_allclose(state.extra["tde"], expected, rtol=1e-5)
    assert RECIPE.objective is supervised and RECIPE.loss is cross_entropy
    # With mixtures of images, the features are theirs.
    mixed, *_ = run(build_recipe(["tde", "mixup"], STATS, {"tde": {"mu": 0.75}}), images, labels, kernel, VALID)  # fmt: skip
    np.testing.assert_allclose(mixed.extra["tde"], expected, rtol=1e-5)


def test_evaluation_takes_alpha_times_the_mean_direction_out():
    model = TinyNet(num_classes=3, head=HEADS["causal"])
    images = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (6, 2, 2, 3)), jnp.float32)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)
    mean = np.random.default_rng(1).normal(size=32)
    state = SimpleNamespace(**variables, extra={"tde": jnp.float32(mean)})
    apply = jax.jit(partial(model.apply, train=False))
    logits, outputs = apply(RECIPE.eval_variables(state), images)
    plain, _ = apply(variables, images)
    x, c = (np.asarray(a, float).reshape(-1, 2, 16) for a in (outputs["features"], mean))
    x, c = (a / np.linalg.norm(a, axis=2, keepdims=True) for a in (x, c))
    w = np.asarray(variables["params"]["head"]["kernel"], float).reshape(2, 16, 3)
    w = w / (np.linalg.norm(w, axis=1, keepdims=True) + 1 / 32)
    effect = 8 * 1.5 * np.einsum("bhf,xhf,xhg,hgk->bk", x, c, c, w)
    np.testing.assert_allclose(plain - logits, effect, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def test_another_head_is_refused(npz):
    config = tiny_config(npz, **{"model.name": "resnet8", "phases.deferred.methods": ("tde",)})
    with pytest.raises(ConfigError, match=r"needs model\.head=causal"):
        build(config)


@pytest.mark.slow
def test_it_trains_with_other_methods_and_resumes_bitwise(npz, tmp_path):
    config = tiny_config(
        npz,
        **{"model.head": "causal", "phases.deferred.methods": ("tde", "open", "sam"), "num_epochs": 3,
           "optimizer.milestones": (), "checkpoint.every_steps": 1, "checkpoint.keep": 9},
    )  # fmt: skip
    validate(config)
    whole = train_and_evaluate(config, tmp_path / "run")
    assert whole.extra["tde"].any()
    for name in ("8", "9"):
        (tmp_path / "run/checkpoints" / name).rename(tmp_path / name)
    again = train_and_evaluate(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, again, whole)
