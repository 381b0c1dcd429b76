"""The optimisers against PyTorch trajectories (`goldens/make_torch_goldens.py`)."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenoise_jax.checkpoint.tree_names import by_name
from purenoise_jax.config.validation import validate
from purenoise_jax.methods.optimizer import clip_by_norm, make_optimizer
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.finite_check import LARGEST_UPDATE
from purenoise_jax.training.loop import train_and_evaluate
from tests.tiny import STEPS_PER_EPOCH, tiny_config, write_npz

GOLDENS = dict(np.load(Path(__file__).parents[1] / "goldens" / "sgd.npz"))
NAMES = ("w1", "w2", "b")


def loss(params: dict[str, jax.Array]) -> jax.Array:
    output = jnp.tanh(GOLDENS["inputs"] @ params["w1"]) @ params["w2"] + params["b"]
    return jnp.mean((output - GOLDENS["targets"]) ** 2)


SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "momentum": 0.9, "weight_decay": 2e-4},
    "adam": {"name": "adam", "momentum": 0.9, "weight_decay": 2e-4},
    "nesterov": {"name": "sgd", "momentum": 0.9, "weight_decay": 2e-4, "nesterov": True},
    "adamw": {"name": "adamw", "momentum": 0.9, "weight_decay": 0.3},
    "clip": {"name": "sgd", "momentum": 0.5, "weight_decay": 0.1, "clip_norm": 2.0},
    "adamw_clip": {"name": "adamw", "momentum": 0, "weight_decay": 0.3, "clip_norm": 3.5},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_trajectory(name: str) -> None:
    optimizer = make_optimizer(**SETTINGS[name])
    params = {key: jnp.asarray(GOLDENS[f"initial/{key}"]) for key in NAMES}
    state = optimizer.init(params)

    @jax.jit
    def step(
        params: dict[str, jax.Array], state: optax.OptState, rate: jax.Array
    ) -> tuple[dict[str, jax.Array], optax.OptState]:
        update, state = optimizer.update(jax.grad(loss)(params), state, params)
        return jax.tree.map(lambda value, move: value - rate * move, params, update), state

    for index, rate in enumerate(GOLDENS[f"{name}/lr"]):
        params, state = step(params, state, rate)
        for key in NAMES:
            expected = GOLDENS[f"{name}/{key}"][index]
            np.testing.assert_allclose(params[key], expected, rtol=2e-6, atol=1e-6)


def test_the_trajectories_with_clipping_are_clipped_in_some_steps_only() -> None:
    for name in ("clip", "adamw_clip"):
        norms = GOLDENS[f"{name}/norms"]
        assert norms.min() < SETTINGS[name]["clip_norm"] < norms.max()


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_decay_is_part_of_the_gradient_of_every_parameter(name: str) -> None:
    # Vectors and scalars, too: norms and biases are decayed as in the published recipe.
    params = {"scale": jnp.ones(3), "bias": jnp.asarray(2.0)}
    optimizer = make_optimizer(name, momentum=0.9, weight_decay=0.5)
    gradient = jax.tree.map(lambda value: -0.5 * value, params)  # cancels the decay exactly
    update, _ = optimizer.update(gradient, optimizer.init(params), params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(update))


def test_decoupled_weight_decay_moves_no_moment_and_is_that_of_the_given_parameters() -> None:
    params = {"scale": jnp.ones(3), "bias": jnp.asarray(2.0), "hidden": jnp.zeros(2)}
    optimizer = make_optimizer("adamw", momentum=0.9, weight_decay=0.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    update, state = optimizer.update(zero, optimizer.init(params), params)
    jax.tree.map(np.testing.assert_array_equal, update, jax.tree.map(lambda p: 0.5 * p, params))
    moments = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    assert len(moments) == 6 and not any(map(np.any, moments))


def test_without_decay_adamw_is_adam() -> None:
    gradient = {key: jnp.asarray(GOLDENS[f"initial/{key}"]) for key in NAMES}
    updates = []
    for name in ("adam", "adamw"):
        optimizer = make_optimizer(name, momentum=0.9, weight_decay=0)
        updates.append(optimizer.update(gradient, optimizer.init(gradient), gradient)[0])
    jax.tree.map(np.testing.assert_array_equal, *updates)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_clipping_and_nesterov_leave_the_state_as_it_is_without_them(name: str) -> None:
    """So that a run may start from the checkpoint of one without them."""
    params = {"w": jnp.ones((3, 4))}
    plain = make_optimizer(name, momentum=0.9, weight_decay=0)
    other = make_optimizer(name, momentum=0.9, weight_decay=0, nesterov=True, clip_norm=1.0)
    assert by_name(plain.init(params)).keys() == by_name(other.init(params)).keys()


def test_clipped_gradients_against_numpy_and_without_effect() -> None:
    gradient = {"a": jnp.full((2, 3), 2.0), "b": jnp.asarray([-5.0])}
    norm = np.sqrt(6 * 4 + 25)
    for limit in (0.1, 3.0, 7.001, 1e6):
        found = clip_by_norm(gradient, limit)
        for key, value in gradient.items():
            expected = np.asarray(value) * min(1, limit / norm)
            np.testing.assert_allclose(found[key], expected, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, clip_by_norm(gradient, 1e6), gradient)


def test_extreme_gradients_are_clipped_to_finite_ones_and_nan_stays_nan() -> None:
    for size in (0.0, 1e-30, 1e-12, LARGEST_UPDATE, 1e30):
        gradient = {"a": jnp.full((3,), size), "b": jnp.asarray(-size)}
        found = jax.tree.leaves(clip_by_norm(gradient, 1.0))
        assert all(np.isfinite(leaf).all() and (np.abs(leaf) <= 1).all() for leaf in found)
    for bad in (jnp.nan, jnp.inf):
        found = clip_by_norm({"a": jnp.asarray([bad, 1.0]), "b": jnp.ones(2)}, 1.0)
        assert np.isnan(found["a"][0])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_an_update_from_the_largest_gradient_that_the_guard_passes_is_finite(settings: Any) -> None:
    params = {"w": jnp.ones(3)}
    optimizer = make_optimizer(**settings)
    state = optimizer.init(params)
    for _ in range(20):
        update, state = optimizer.update({"w": jnp.full(3, LARGEST_UPDATE)}, state, params)
        for leaf in jax.tree.leaves((update, state)):
            assert np.isfinite(leaf).all()


@pytest.mark.slow
def test_a_run_with_all_of_them_resumes_bitwise(tmp_path: Path) -> None:
    config = tiny_config(
        write_npz(tmp_path / "tiny.npz"),
        num_epochs=2,
        **{"optimizer.name": "adamw", "optimizer.clip_norm": 0.5, "optimizer.learning_rate": 0.01,
           "optimizer.schedule": "cosine", "checkpoint.every_steps": 1, "checkpoint.keep": 9},
    )  # fmt: skip
    del config.phases["deferred"]
    validate(config)
    uninterrupted = train_and_evaluate(config, tmp_path / "run")
    for step in range(5, 2 * STEPS_PER_EPOCH + 1):
        (tmp_path / "run/checkpoints" / str(step)).rename(tmp_path / str(step))
    resumed = train_and_evaluate(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed, uninterrupted)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.name='adamv' .* legal: sgd, adam, adamw"):
        make_optimizer("adamv", momentum=0.9, weight_decay=0)
