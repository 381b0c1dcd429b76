"""Random numbers depend on the seed, not on the environment's settings of JAX's keys and dtypes."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import purenoise_jax
from purenoise_jax import replace_with_noise
from purenoise_jax.data.augment.compose import AUGMENTATIONS, make_augment
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.sampling import EpochSampler
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.appended_noise import append_noise
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.models import create_model
from purenoise_jax.models.dropout import Dropout
from purenoise_jax.runtime import rng
from purenoise_jax.training.train_step import Inputs, Rows, init_state, make_step

SETTINGS = {
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_ENABLE_X64": "1",
}


def draws():
    """Returns numbers of every kind that a run draws, by name."""
    key = rng.at(rng.stream(3, "augment"), 7)
    f32 = jnp.float32
    images = jnp.full((6, 8, 8, 3), 0.5, f32)
    labels = jnp.asarray([3, 3, 0, 1, 3, 2], jnp.int32)
    half = np.full(3, 0.5, np.float32)
    stats = DataStats(np.array([24, 12, 6, 3]), (8, 8, 3), *[half] * 6)
    sampler = EpochSampler(np.repeat(np.arange(4), [24, 12, 6, 3]), 4, 16, 0)
    noise, mask = replace_with_noise(
        key, images, labels,
        replace_probs=jnp.asarray([0, 0.5, 0.5, 0.5], f32), mean=jnp.zeros(3, f32), std=jnp.ones(3, f32),
    )  # fmt: skip
    augment = {
        name: make_augment((name,), crop_padding=2, cutout_size=4)(
            key, jnp.asarray(np.random.default_rng(0).uniform(0, 1, (6, 8, 8, 3)), f32)
        )
        for name in AUGMENTATIONS
    }
    recipe = append_noise(Recipe(), stats, share=0.5)
    batch_builder = BatchBuilder(None, stats.normalize_mean, stats.normalize_std, 4)
    step = make_step(None, None, None, recipe, batch_builder, 0)
    inputs = Inputs(jnp.zeros((6, 8, 8, 3), jnp.uint8), labels)
    batch = step.batch(
        jnp.int32(5), inputs, Rows(jnp.arange(6, dtype=jnp.int32), jnp.ones(6, bool))
    )
    model = create_model("resnet8", num_classes=4, norm="bn", noise_grad="auto", dtype="float32")
    params = init_state(model, _NoOptimizer, (8, 8, 3), 0).params
    dropped = Dropout(0.3, deterministic=False).apply(
        {}, jnp.ones((4, 9), f32), rngs={"dropout": key}
    )
    found = {
        "order": sampler.epoch(1, None)[0],
        "class draws": sampler.epoch(1, np.full(4, 0.25))[0],
        "noise": noise, "mask": mask, "dropout": dropped,
        "appended": {k: batch[k] for k in ("image", "label")},
        "params": params,
        "beta": rng.beta(key, 0.4, 2.0, (5,)),
        "gumbel": rng.gumbel(key, (5,)),
        "split": jax.random.key_data(rng.split(key, 3)),
        **augment,
    }  # fmt: skip
    return {
        name: [np.asarray(x, np.float64).ravel()[:200].tolist() for x in jax.tree.leaves(tree)]
        for name, tree in found.items()
    }


class _NoOptimizer:
    init = staticmethod(lambda params: ())


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_the_environment_changes_no_draw(name):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json, tests.runtime.test_rng as t; print(json.dumps(t.draws()))",
        ],
        env={**os.environ, name: SETTINGS[name]},
        capture_output=True,
        text=True,
        check=True,
    )
    there, here = json.loads(done.stdout), draws()
    assert there.keys() == here.keys()
    for what in here:
        # Arithmetic with 64-bit types may round differently; another draw differs a lot.
        for a, b in zip(there[what], here[what], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6, err_msg=what)


def test_draws_equal_those_of_jax_with_its_defaults():
    key = jax.random.key(5)
    assert jnp.array_equal(jax.random.key_data(rng.root(5)), jax.random.key_data(key))
    for ours, theirs in (
        (rng.uniform(key, (7,)), jax.random.uniform(key, (7,))),
        (rng.normal(key, (7,)), jax.random.normal(key, (7,))),
        (rng.normal(key, (7,), jnp.bfloat16), jax.random.normal(key, (7,), jnp.bfloat16)),
        (rng.randint(key, (7,), 2, 9), jax.random.randint(key, (7,), 2, 9)),
        (rng.permutation(key, 9), jax.random.permutation(key, 9)),
        (rng.beta(key, 0.4, 2.0, (7,)), jax.random.beta(key, 0.4, 2.0, (7,))),
        (rng.gumbel(key, (7,)), jax.random.gumbel(key, (7,))),
        (rng.bernoulli(key, 0.7, (99,)), jax.random.bernoulli(key, 0.7, (99,))),
    ):
        assert ours.dtype == theirs.dtype and jnp.array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dropout_equals_that_of_flax(dtype):
    key, x = rng.root(1), jnp.ones((5, 40), dtype)
    ours = Dropout(0.3, deterministic=False).apply({}, x, rngs={"dropout": key})
    theirs = nn.Dropout(0.3, deterministic=False).apply({}, x, rngs={"dropout": key})
    assert ours.dtype == theirs.dtype == dtype
    assert jnp.array_equal(ours, theirs) and 0 < (ours == 0).mean() < 1
    assert jnp.array_equal(Dropout(0.3, deterministic=True).apply({}, x), x)


def test_numbers_are_drawn_in_one_module():
    """Draws of `jax.random` elsewhere would depend on the environment."""
    root = Path(purenoise_jax.__file__).parent
    harmless = {"key_data", "key_impl", "wrap_key_data"}
    for path in root.rglob("*.py"):
        if path.name in (
            "rng.py",
            "heads.py",
        ):  # Initialisers of heads.py draw only within `rng.fixed_bits`.
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "jax.random":
                assert node.attr in harmless, f"{path.name} draws by jax.random.{node.attr}"
