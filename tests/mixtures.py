"""The methods that mix pairs of rows, and a network that shows the shares in their mixtures."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.networks import Networks
from purenoise_jax.runtime import rng
from tests.linear_step import STATS, Linear

SIZE = 8
STATS = dataclasses.replace(STATS, image_shape=(SIZE, SIZE, 3))
# Case -> method and arguments, with steps that always mix.
CASES = {
    "mixup": ("mixup", {}),
    "mixup, weights": ("mixup", {"weight_fn": "sigmoid", "beta": 0.5}),
    "manifold_mixup": ("manifold_mixup", {"places": ("input", "features")}),
    "cutmix": ("cutmix", {"probability": 1.0}),
    "remix": ("remix", {}),
    "remix, weights": ("remix", {"weight_fn": "constant"}),
    "mamix": ("mamix", {}),
    "mfw": ("mfw", {"place": "features", "alpha": 2.0, "beta": 0.5}),
}
# Two rows of each class and kind at least, where there are several.
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2], np.int32)
NOISE = np.array([0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0], bool)
VALID = np.array([1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1], bool)


def recipe_of(case, *others, stats=STATS, **arguments):
    """The recipe of a case after other methods; `arguments` replace those of the case."""
    name, given = CASES[case]
    return build_recipe([*others, name], stats, {name: {**given, **arguments}})


def batch_of(images, labels, valid=None, noise=None, num_classes=3):
    valid = np.ones(len(labels), bool) if valid is None else valid
    batch = {
        "image": jnp.asarray(images, jnp.float32),
        "label": jnp.asarray(labels),
        "target": jnp.eye(num_classes)[labels],
        "valid": jnp.asarray(valid),
    }
    return batch if noise is None else {**batch, "noise_mask": jnp.asarray(noise)}


def networks_of(kernel, valid):
    params = {"head": {"kernel": jnp.asarray(kernel)}}
    return Networks(
        Linear(), lambda x: x, params, {}, valid=jnp.asarray(valid), dropout_key=rng.root(0)
    )


def outcome_of(recipe, batch, kernel, key):
    return recipe.objective(recipe, networks_of(kernel, batch["valid"]), batch, key)


def shares(recipe, labels=LABELS, valid=None, noise=None, keys=None):
    """Shares in the mixtures of several steps: of the images and of the labels, [keys, B, B].

    Row i is the mixture at the place of row i, column j the share of row j. Image j is 1 in channel
    j and otherwise 0, and logit j is the mean of channel j. Target j is the unit vector j, and the
    loss is one entry of it.
    """
    rows = len(labels)
    images = np.broadcast_to(np.eye(rows)[:, None, None], (rows, SIZE, SIZE, rows))
    kernel = np.tile(np.eye(rows, dtype=np.float32), (SIZE * SIZE, 1)) / SIZE**2
    batch = {**batch_of(images, labels, valid, noise), "target": jnp.eye(rows)}

    def look(key):
        def of_label(j):
            looking = dataclasses.replace(recipe, loss=lambda logits, target: target[:, j])
            found = outcome_of(looking, batch, kernel, key)
            return found.losses, found.logits

        losses, logits = jax.vmap(of_label, out_axes=(1, 0))(jnp.arange(rows))
        return logits[0], losses

    found = jax.jit(jax.vmap(look))(rng.split(rng.root(0), 40) if keys is None else keys)
    return [np.asarray(x, np.float64) for x in found]


def partners(of_images):
    """Partner of each row, i[keys, B], from the shares of images; the row itself if unmixed."""
    others = of_images * (1 - np.eye(of_images.shape[1]))
    alone = others.sum(axis=2) == 0
    return np.where(alone, np.arange(of_images.shape[1]), others.argmax(axis=2))
