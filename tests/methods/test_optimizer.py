"""The optimisers against PyTorch trajectories (`goldens/make_torch_goldens.py`)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenoise_jax.methods.optimizer import make_optimizer

GOLDENS = dict(np.load(Path(__file__).parents[1] / "goldens" / "sgd.npz"))
NAMES = ("w1", "w2", "b")


def loss(params: dict[str, jax.Array]) -> jax.Array:
    output = jnp.tanh(GOLDENS["inputs"] @ params["w1"]) @ params["w2"] + params["b"]
    return jnp.mean((output - GOLDENS["targets"]) ** 2)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_trajectory(name: str) -> None:
    optimizer = make_optimizer(name, momentum=0.9, weight_decay=2e-4)
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


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_decay_is_part_of_the_gradient_of_every_parameter(name: str) -> None:
    # Vectors and scalars, too: norms and biases are decayed as in the published recipe.
    params = {"scale": jnp.ones(3), "bias": jnp.asarray(2.0)}
    optimizer = make_optimizer(name, momentum=0.9, weight_decay=0.5)
    gradient = jax.tree.map(lambda value: -0.5 * value, params)  # cancels the decay exactly
    update, _ = optimizer.update(gradient, optimizer.init(params), params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(update))
