"""A linear network with a projector, and batches of two views, small enough for numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.models.places import unmixed
from purenoise_jax.runtime import rng
from purenoise_jax.training.train_step import Inputs, TrainState, make_step
from tests.linear_step import BUILDER


class Linear:
    """A network whose logits and projections are products of its images with matrices."""

    def apply(
        self, variables, images, noise_mask=None, valid=None, *, train, mutable=(), rngs=None,
        mix=unmixed,
    ):  # fmt: skip
        params = variables["params"]
        images = mix("input", images)
        features = images.reshape(len(images), -1)
        projection = features @ params["projector"]["projection"]
        outputs = {
            "features": features,
            "projection": projection,
            "prediction": projection @ params["projector"]["prediction"],
            "plain_logits": features @ params["projector"]["plain"],
        }
        result = features @ params["head"]["kernel"], outputs
        return (result, {"batch_stats": variables["batch_stats"]}) if mutable else result


def params_of(kernels):
    """Parameters from matrices by name; those of the projector are all but "head"."""
    arrays = {name: jnp.asarray(kernel, jnp.float32) for name, kernel in kernels.items()}
    return {"head": {"kernel": arrays.pop("head")}, "projector": arrays}


def draw_params(seed=0, size=2):
    draw, pixels = np.random.default_rng(seed), 3 * size**2
    shapes = {"head": (pixels, 3), "plain": (pixels, 3), "projection": (pixels, 4), "prediction": (4, 4)}  # fmt: skip
    return params_of({name: draw.normal(0, 0.5, shape) for name, shape in shapes.items()})


def batch_of(images, second, label, valid=None, noise=None):
    rows = len(label)
    batch = {
        "image": jnp.asarray(images, jnp.float32),
        "second": jnp.asarray(second, jnp.float32),
        "label": jnp.asarray(label, jnp.int32),
        "target": jnp.eye(3)[np.asarray(label)],
        "valid": jnp.ones(rows, bool) if valid is None else jnp.asarray(valid),
    }
    return batch if noise is None else {**batch, "noise_mask": jnp.asarray(noise)}


def draw_batch(rows=6, seed=0, size=2, **masks):
    draw = np.random.default_rng(seed)
    images, second = draw.uniform(0, 1, (2, rows, size, size, 3))
    return batch_of(images, second, np.arange(rows) % 3, **masks)


def rows_of(batch, rows):
    """The batch of some of the rows."""
    return {name: array[np.asarray(rows)] for name, array in batch.items()}


def networks_of(params, batch, progress=0.0):
    return Networks(
        Linear(),
        lambda images: images,
        params,
        {},
        valid=batch["valid"],
        dropout_key=rng.root(0),
        progress=jnp.float32(progress),
    )


def loss_and_grads(recipe, params, batch):
    """The loss of the first step of a run with seed 0, and its gradient."""
    tx = make_optimizer("sgd", momentum=0, weight_decay=0)
    step = make_step(Linear(), tx, lambda step: 0.5, recipe, BUILDER, seed=0)
    state = TrainState(jnp.zeros((), jnp.int32), params, {}, tx.init(params), {})

    def loss(params):
        return step.loss(params, None, state, Inputs(None, None), batch)[0]

    return jax.value_and_grad(loss)(params)
