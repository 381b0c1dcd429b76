"""One training step, built once per phase; see `compile_steps` for how it is run."""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from purenoise_jax import rng
from purenoise_jax.data.augment import normalize, to_float
from purenoise_jax.models.norm import AUX_PREFIX
from purenoise_jax.recipe import Batch, Recipe
from purenoise_jax.totals import Sums, Totals
from purenoise_jax.xla import materialize


@flax.struct.dataclass
class TrainState:
    """All that a run has to remember.

    Attributes:
      step: i32[], completed steps.
      params: parameters.
      batch_stats: running statistics of the normalisation layers.
      opt_state: state of the optimiser.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class Loader:
    """How rows of the data set become a batch.

    Attributes:
      augment: (key, images f32[B, H, W, C] in [0, 1]) -> the same, or None.
      mean, std: f32[C], with which images enter the network.
      num_classes: K.
      dtype: of images and targets.
    """

    augment: Callable[[jax.Array, jax.Array], jax.Array] | None
    mean: np.ndarray
    std: np.ndarray
    num_classes: int
    dtype: DTypeLike = jnp.float32

    def gather(
        self,
        key: jax.Array,
        images: jax.Array,
        labels: jax.Array,
        index: jax.Array,
        valid: jax.Array,
    ) -> Batch:
        """Reads and augments the rows of a step; see `recipe.Batch`."""
        image, label = to_float(images[index], self.dtype), labels[index]
        if self.augment is not None:
            image = self.augment(key, image)
        return {
            "image": image,
            "label": label,
            "target": jax.nn.one_hot(label, self.num_classes, dtype=self.dtype),
            "valid": valid,
        }


UpdateFn = Callable[..., tuple[TrainState, Sums, Any]]
StepFn = Callable[..., tuple[TrainState, Totals]]


def make_batches(recipe: Recipe, loader: Loader, seed: int) -> Callable[..., Batch]:
    """Builds what lays out the batch of a step, before the network sees it.

    Args:
      recipe: what the phase's methods made of the step.
      loader: turns indices into a batch.
      seed: the run's seed.

    Returns:
      A pure function (step i32[], images uint8[N, H, W, C], labels i32[N], index i32[B],
      valid bool[B]) -> `recipe.Batch`.
    """
    augment_stream, transform_stream = (rng.stream(seed, s) for s in ("augment", "transforms"))

    def batch_of(
        step: jax.Array, images: jax.Array, labels: jax.Array, index: jax.Array, valid: jax.Array
    ) -> Batch:
        batch = loader.gather(rng.at(augment_stream, step), images, labels, index, valid)
        transform_key = rng.at(transform_stream, step)
        for i, transform in enumerate(recipe.transforms):
            batch = transform(rng.at(transform_key, i), batch)
        return batch

    return batch_of


@rng.fixed_bits
def init_state(model: Any, tx: optax.GradientTransformation, image_shape: tuple, seed: int) -> Any:
    """The state before the first step, not yet placed on devices."""
    image = jnp.zeros((1, *image_shape), jnp.float32)
    variables = model.init(rng.stream(seed, "params"), image, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=tx.init(variables["params"]),
    )


def make_update(
    model: Any,
    tx: optax.GradientTransformation,
    lr_fn: Callable[[jax.Array], jax.Array],
    recipe: Recipe,
    loader: Loader,
    seed: int,
) -> UpdateFn:
    """Builds what a step of one phase does to the state, whether or not that is finite.

    Args:
      model: from `create_model`.
      tx: from `make_optimizer`; gives directions, not yet times the learning rate.
      lr_fn: learning rate as a function of the completed steps.
      recipe: what the phase's methods made of the step.
      loader: turns indices into a batch.
      seed: the run's seed.

    Returns:
      A pure function (state, images uint8[N, H, W, C], labels i32[N], index i32[B],
      valid bool[B]) -> (state, `Sums` of this step alone, gradient). The loss is the mean over
      valid rows, noise included.
    """
    batch_of = make_batches(recipe, loader, seed)
    streams = [rng.stream(seed, name) for name in ("dropout", "objective")]

    def update(
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        index: jax.Array,
        valid: jax.Array,
    ) -> tuple[TrainState, Sums, Any]:
        chex.assert_equal_shape([index, valid])
        dropout_key, objective_key = (rng.at(s, state.step) for s in streams)
        batch = materialize(batch_of(state.step, images, labels, index, valid))
        # A transform may have appended rows.
        noise_mask, valid = batch.get("noise_mask"), batch["valid"]

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            batch_stats, calls = state.batch_stats, 0

            def forward(
                image: jax.Array, noise_mask: jax.Array | None = None
            ) -> tuple[jax.Array, dict[str, jax.Array]]:
                nonlocal batch_stats, calls
                # The norms select padding out, but the first weights meet the pixels before any
                # norm: a zero gradient times a NaN pixel would be NaN.
                image = jnp.where(valid.reshape(-1, *(1,) * (image.ndim - 1)), image, 0)
                out, updated = model.apply(
                    {"params": params, "batch_stats": batch_stats},
                    normalize(image, loader.mean, loader.std),
                    noise_mask,
                    valid,
                    train=True,
                    mutable=["batch_stats"],
                    rngs={"dropout": rng.at(dropout_key, calls)},
                )
                batch_stats, calls = updated["batch_stats"], calls + 1
                return out

            logits, auxiliary = recipe.objective(forward, batch, objective_key)
            losses = recipe.loss(logits, batch["target"])
            if recipe.class_weights is not None:
                losses = losses * jnp.asarray(recipe.class_weights, losses.dtype)[batch["label"]]
            chex.assert_shape([losses, auxiliary], valid.shape)
            total = jnp.where(valid, losses + auxiliary, 0).sum()
            return total / jnp.maximum(valid.sum(), 1), (batch_stats, logits)

        (loss, (batch_stats, logits)), grads = recipe.gradient(loss_fn, state.params)

        def in_use(path: Any, param: jax.Array) -> jax.Array:
            # As in PyTorch, a parameter that no row came by does not decay either.
            idle = noise_mask is None and path[-1].key.startswith(AUX_PREFIX)
            return jnp.zeros_like(param) if idle else param

        decaying = jax.tree_util.tree_map_with_path(in_use, state.params)
        updates, opt_state = tx.update(grads, state.opt_state, decaying)
        lr = lr_fn(state.step)

        def apply(path: Any, param: jax.Array, update: jax.Array) -> jax.Array:
            if not recipe.trainable(tuple(str(entry.key) for entry in path)):
                return param
            return (param - lr * update).astype(param.dtype)

        params = jax.tree_util.tree_map_with_path(apply, state.params, updates)
        noise = jnp.zeros_like(valid) if noise_mask is None else noise_mask & valid
        natural = valid & ~noise
        sums = Sums(
            loss=loss.astype(jnp.promote_types(loss.dtype, jnp.float32)),
            steps=jnp.ones((), jnp.int32),
            natural=natural.sum(dtype=jnp.int32),
            noise=noise.sum(dtype=jnp.int32),
            correct=(natural & (logits.argmax(-1) == batch["label"])).sum(dtype=jnp.int32),
        )
        return TrainState(state.step + 1, params, batch_stats, opt_state), sums, grads

    return update


def all_finite(tree: Any) -> jax.Array:
    """Whether no array of a tree holds a NaN or an infinity: bool[]."""
    by_shape = collections.defaultdict(list)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            by_shape[leaf.shape].append(jnp.isfinite(leaf))
    # Arrays of one shape are put together first: a deep network then takes a dozen reductions, not
    # one for each of its hundreds of arrays.
    found = [functools.reduce(jnp.logical_and, leaves).all() for leaves in by_shape.values()]
    return functools.reduce(jnp.logical_and, found, jnp.ones((), bool))


def keep_finite(
    old: TrainState, new: TrainState, sums: Sums, grads: Any
) -> tuple[TrainState, jax.Array]:
    """Takes a step's result only if all of it is finite.

    The loss alone does not tell: a NaN pixel can leave it finite, as a compiled ReLU may turn NaN
    into 0 on the way forward. Nor does the gradient: the statistics have none, and finite gradients
    can overflow in the optimiser. So all that would be kept is looked at.

    Args:
      old: before the step.
      new: after it.
      sums: of the step.
      grads: of the step, as frozen parameters hide theirs.

    Returns:
      The new state, or if anything is not finite the old one with its step count gone on by one;
      and which, bool[].
    """
    # On a CPU the choice below, put into the same loop, would let the compiler round otherwise.
    kept = materialize((new.params, new.batch_stats, new.opt_state))
    finite = all_finite((sums.loss, grads, kept))
    params, batch_stats, opt_state = jax.tree.map(
        lambda after, before: jnp.where(finite, after, before),
        kept,
        (old.params, old.batch_stats, old.opt_state),
    )
    return TrainState(new.step, params, batch_stats, opt_state), finite


def make_step(
    model: Any,
    tx: optax.GradientTransformation,
    lr_fn: Callable[[jax.Array], jax.Array],
    recipe: Recipe,
    loader: Loader,
    seed: int,
) -> StepFn:
    """Builds the training step of one phase: `make_update`, kept if it is finite.

    Args:
      model: see `make_update`, as all others.
      tx: likewise.
      lr_fn: likewise.
      recipe: likewise.
      loader: likewise.
      seed: likewise.

    Returns:
      A pure function (state, totals, images uint8[N, H, W, C], labels i32[N], index i32[B],
      valid bool[B]) -> (state, totals).
    """
    update = make_update(model, tx, lr_fn, recipe, loader, seed)

    def step(state: TrainState, totals: Totals, *data: jax.Array) -> tuple[TrainState, Totals]:
        new, sums, grads = update(state, *data)
        kept, finite = keep_finite(state, new, sums, grads)
        return kept, totals.add(sums, state.step, finite)

    return step
