"""Major-to-minor translation (M2m): turns images of frequent classes into images of rare ones.

Source: Kim et al. 2020, algorithm 1 and equations 1 to 5, and their code (train.py).
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from purenoise_jax.data.batch import Batch, natural_rows
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Recipe, cross_entropy
from purenoise_jax.methods.resampling import class_balanced_sampling
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.constraints import Integer, Real

# Kim et al. call the network that trains f and this one g.
NETWORK = "g"
FROZEN = {NETWORK: "erm"}
# More steps would make a large program, which takes long to compile.
MOST_UNROLLED = 20


def m2m(
    recipe: Recipe,
    stats: DataStats,
    *,
    beta: Annotated[
        float,
        Real(0, 1, below=True),
        "of two classes that differ by d images, 1 - beta ** d of the translations are used",
    ] = 0.999,
    push: Annotated[float, Real(0), "weight of the source class's logit, which is lowered"] = 0.5,
    confidence: Annotated[
        float, Real(0, 1), "least probability of the target class by the frozen network"
    ] = 0.9,
    num_steps: Annotated[int, Integer(1, 1000), "gradient steps of a translation"] = 10,
    step_size: Annotated[
        float, Real(0, above=True), "length of each gradient step, for pixels in [0, 1]"
    ] = 0.1,
) -> Recipe:
    """Draws classes evenly; drawn rows of rare classes may become translations of other rows.

    A row of class k, which has n_k images, stays with probability n_k / n_max. Otherwise another
    row of the batch, of a class with n > n_k images, is drawn with probability proportional to
    1 - beta ** (n - n_k). Then `num_steps` steps along the normalised gradient raise the frozen
    network's probability of k and lower the trained network's logit of the source class. The
    result replaces the row with probability 1 - beta ** (n - n_k), and only if the frozen network's
    probability of k is at least `confidence`. Labels do not change. Noise rows are neither replaced
    nor translated.

    READING: the frozen network has the head of its own run, so that of a run of `erm` serves with
    `ldam`, too. Its logits are not adjusted as in evaluation, nor are those of the trained network.
    READING: a translation starts at the drawn image itself. The authors add a random perturbation.
    Their code limits its length over all images of a batch together, so with 100 of them that of
    one image is about 0.09, nearly that of one of the steps.
    """
    counts = jnp.asarray(stats.class_counts, jnp.float32)

    def translate(key: jax.Array, batch: Batch, networks: Networks) -> Batch:
        stay_key, seed_key, accept_key = rng.split(key, 3)
        image, label = batch["image"], batch["label"]
        natural = natural_rows(batch)
        size = counts[label]
        stays = rng.uniform(stay_key, label.shape) < size / counts.max()
        # [target row, source row]: the probability to accept a translation between the two.
        accept_probs = 1 - beta ** jnp.maximum(size[None] - size[:, None], 0)
        accept_probs = jnp.where(natural[None], accept_probs, 0)
        total = accept_probs.sum(axis=1)
        drawn = rng.uniform(seed_key, label.shape) * total
        seed = jnp.argmax(jnp.cumsum(accept_probs, axis=1) > drawn[:, None], axis=1)
        start, seed_label = image[seed], label[seed]

        def energy(x: jax.Array) -> jax.Array:
            logit = jnp.take_along_axis(networks.predict(x), seed_label[:, None], axis=1)[:, 0]
            target = cross_entropy(networks.frozen[NETWORK](x), batch["target"])
            return (target + push * logit).sum()

        def move(_: int, x: jax.Array) -> jax.Array:
            slope = jax.grad(energy)(x)
            norm = jnp.sqrt(jnp.square(slope).sum(axis=(1, 2, 3), keepdims=True))
            return jnp.clip(x - step_size * slope / (norm + 1e-12), 0, 1)

        # On a CPU convolutions are several times slower within a loop.
        unrolled = jax.default_backend() == "cpu" and num_steps <= MOST_UNROLLED
        moved = jax.lax.fori_loop(0, num_steps, move, start, unroll=unrolled)
        probability = jax.nn.softmax(networks.frozen[NETWORK](moved))
        confident = jnp.take_along_axis(probability, label[:, None], axis=1)[:, 0] >= confidence
        accepted = rng.uniform(accept_key, label.shape) < jnp.take_along_axis(
            accept_probs, seed[:, None], axis=1
        ).squeeze(1)
        replaced = natural & ~stays & (total > 0) & confident & accepted
        # A translation has no second view, so it is both.
        seen = [name for name in ("image", "second") if name in batch]
        chosen = replaced[:, None, None, None]
        return {**batch, **{name: jnp.where(chosen, moved, batch[name]) for name in seen}}

    return dataclasses.replace(
        class_balanced_sampling(recipe, stats),
        generators=(*recipe.generators, translate),
    )
