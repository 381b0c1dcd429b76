"""A training step around a linear network with one of the package's heads, small enough for numpy.

The features are the pixels, normalised by a batch norm without parameters: in training mode by the
mean of the batch, otherwise by a running mean.
"""

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.sampling import by_class
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.models import HEADS
from purenoise_jax.training.train_step import Inputs, Rows, TrainState, make_step
from tests.linear_step import BUILDER, data


class Headed:
    """A network with the methods of a Flax module that a step uses.

    Its parameters are a head and "body", a factor of every feature.
    """

    def __init__(self, head="linear", classes=3, dropout_rate=0.0):
        self.head, self.dropout_rate = head, dropout_rate
        self.classifier = HEADS[head](classes)

    def clone(self, dropout_rate):
        return Headed(self.head, self.classifier.num_classes, dropout_rate)

    def apply(
        self, variables, images, noise_mask=None, valid=None, *, train, mutable=(), rngs=None
    ):
        params, mean = variables["params"], variables["batch_stats"]["mean"]
        features = images.reshape(len(images), -1) * params["body"][None]
        if train:
            assert not self.dropout_rate, "dropout is on"
            new = jnp.where(valid[:, None], features, 0).sum(0) / jnp.maximum(valid.sum(), 1)
            features, mean = features - new[None], 0.5 * mean + 0.5 * new
        else:
            features = features - mean[None]
        logits = self.classifier.apply({"params": params["head"]}, features)
        outputs = logits, {"features": features}
        return (outputs, {"batch_stats": {"mean": mean}}) if mutable else outputs


def params_of(head="linear", classes=3, seed=0):
    """Random parameters as numpy arrays, with scales of 1."""
    rng = np.random.default_rng(seed)
    fc = {
        "kernel": rng.normal(0, 0.3, (12, classes)).astype(np.float32),
        "bias": rng.normal(0, 0.3, classes).astype(np.float32),
    }
    found = {"fc": fc} if head != "cosine" else {"kernel": fc["kernel"]}
    if head == "scaled":
        found["class_scale"] = np.ones(classes, np.float32)
    return {"body": rng.uniform(0.5, 1.5, 12).astype(np.float32), "head": found}


def setup(
    recipe: Recipe, params, head="linear", *, images=None, labels=None, valid=None,
    lr=0.5, momentum=0.0, weight_decay=0.0, dropout_rate=0.0, mean=0.2,
):  # fmt: skip
    """Returns a step, the state before it, and the step's inputs and rows."""
    drawn = data(rows=6)
    images, labels = drawn[0] if images is None else images, drawn[1] if labels is None else labels
    classes = len(params["head"].get("fc", params["head"])["kernel"][0])
    builder = BUILDER if classes == 3 else BUILDER.__class__(
        None, np.zeros(3, np.float32), np.ones(3, np.float32), classes
    )  # fmt: skip
    tx = make_optimizer("sgd", momentum=momentum, weight_decay=weight_decay)
    model = Headed(head, classes, dropout_rate)
    step = make_step(model, tx, lambda step: lr, recipe, builder, seed=0)
    params = jax.tree.map(jnp.asarray, params)
    variables = {"params": params, "batch_stats": {"mean": jnp.full(12, mean)}}
    extra = {name: memory.init(variables) for name, memory in recipe.memory.items()}
    state = TrainState(jnp.zeros((), jnp.int32), params, variables["batch_stats"], tx.init(params), extra)  # fmt: skip
    valid = np.ones(len(labels), bool) if valid is None else valid
    sorted_images = by_class(labels, classes) if recipe.class_draw is not None else None
    inputs = Inputs(jnp.asarray(images), jnp.asarray(labels), by_class=sorted_images)
    return step, state, inputs, Rows(jnp.arange(len(labels)), jnp.asarray(valid))


def train(recipe: Recipe, params, head="linear", *, steps=1, **given):
    """Returns (state, sums, gradient) after steps on the same batch; see `setup`."""
    step, state, inputs, rows = setup(recipe, params, head, **given)
    for _ in range(steps):
        state, sums, grads = step.update(state, inputs, rows)
    return state, sums, grads
