"""A training step around a linear network without norms, small enough for numpy."""

import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.models.places import unmixed
from purenoise_jax.training.train_step import Inputs, Rows, TrainState, make_step

COUNTS = np.array([40, 10, 5])
HALF = np.full(3, 0.5, np.float32)
STATS = DataStats(COUNTS, (2, 2, 3), *[HALF] * 6)
# Normalisation by mean 0 and deviation 1 changes no pixel.
BUILDER = BatchBuilder(None, np.zeros(3, np.float32), np.ones(3, np.float32), 3)


class Linear:
    """A network with logits = images times kernel and the methods of a Flax module that a step uses."""

    places = ("input", "features")

    def apply(
        self, variables, images, noise_mask=None, valid=None, *, train, mutable=(), rngs=None,
        mix=unmixed,
    ):  # fmt: skip
        images = mix("input", images)
        features = mix("features", images.reshape(len(images), -1))
        outputs = features @ variables["params"]["head"]["kernel"], {"features": features}
        return (outputs, {"batch_stats": variables["batch_stats"]}) if mutable else outputs


def data(rows=6, seed=0):
    """Inputs of `rows` images and the kernel of a state."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (rows, 2, 2, 3), dtype=np.uint8)
    labels = (np.arange(rows) % 3).astype(np.int32)
    kernel = rng.normal(0, 0.3, (12, 3)).astype(np.float32)
    return images, labels, kernel


def step_of(recipe: Recipe, lr=0.5, builder=BUILDER):
    tx = make_optimizer("sgd", momentum=0, weight_decay=0)
    return make_step(Linear(), tx, lambda step: lr, recipe, builder, seed=0)


def state_of(kernel, recipe: Recipe):
    tx = make_optimizer("sgd", momentum=0, weight_decay=0)
    params = {"head": {"kernel": jnp.asarray(kernel)}}
    variables = {"params": params, "batch_stats": {}}
    extra = {name: memory.init(variables) for name, memory in recipe.memory.items()}
    return TrainState(jnp.zeros((), jnp.int32), params, {}, tx.init(params), extra)


def run(recipe: Recipe, images, labels, kernel, valid=None, frozen=None, lr=0.5):
    """Returns (state after one step, sums, gradient of the kernel)."""
    valid = np.ones(len(labels), bool) if valid is None else valid
    inputs = Inputs(jnp.asarray(images), jnp.asarray(labels), frozen or {})
    rows = Rows(jnp.arange(len(labels)), jnp.asarray(valid))
    state, sums, grads = step_of(recipe, lr).update(state_of(kernel, recipe), inputs, rows)
    return state, sums, np.asarray(grads["head"]["kernel"])


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def cross_entropy_gradient(features, labels, kernel, weights):
    """Gradient of sum(weights * cross-entropy) / sum(weights), float64."""
    target = np.eye(3)[labels]
    error = (softmax(features @ kernel) - target) * weights[:, None]
    return features.T @ error / weights.sum()
