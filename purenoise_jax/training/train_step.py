"""One training step: batch, loss, gradient, update, and the check for non-finite values.

`TrainStep` is built once per phase and compiled by `compile_steps`; its `__call__` and `update`
give the order of the parts.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from purenoise_jax.data.batch import Batch, BatchBuilder, natural_rows
from purenoise_jax.data.rows import Rows, StreamedRows
from purenoise_jax.data.sampling import ByClass, images_of
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Aux, Observed, Outcome, Params, Recipe
from purenoise_jax.models.dropout import without_dropout
from purenoise_jax.models.norm import AUX_PREFIX
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.compiler import optimization_barrier_on_cpu
from purenoise_jax.runtime.numerics import with_precision
from purenoise_jax.training.accumulators import EpochMetrics, StepMetrics
from purenoise_jax.training.finite_check import LARGEST_UPDATE, keep_finite
from purenoise_jax.training.packed_state import StatePacking


@flax.struct.dataclass
class TrainState:
    """State of a run after a step.

    Attributes:
        step: i32[], completed steps.
        params: parameters.
        batch_stats: running statistics of the normalisation layers.
        opt_state: state of the optimiser.
        extra: the memories of the methods by name, see `methods.recipe.Memory`.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    extra: Any = flax.struct.field(default_factory=dict)


@flax.struct.dataclass
class Inputs:
    """Arrays that every step reads and none changes.

    Attributes:
        images: uint8[N, H, W, C], the training set; None if the steps get the images themselves.
        labels: i32[N], or None.
        frozen: name -> variables of the networks that `Recipe.frozen` names.
        by_class: the training set by class; None = no recipe draws classes, see
            `Recipe.class_draw`.
    """

    images: Any
    labels: Any
    frozen: Any = flax.struct.field(default_factory=dict)
    by_class: ByClass | None = None


@rng.fixed_bits
def init_state(
    model: Any,
    tx: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
    memory: Mapping[str, Callable[[Any], Any]] = MappingProxyType({}),
) -> TrainState:
    """The state before the first step.

    Args:
        model: from `create_model`.
        tx: from `make_optimizer`.
        image_shape: (H, W, C).
        seed: the run's seed.
        memory: name -> `Memory.init`, of the recipes of all phases, so that the state has one
            structure throughout.
    """
    image = jnp.zeros((1, *image_shape), jnp.float32)
    variables = model.init(rng.stream(seed, "params"), image, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=tx.init(variables["params"]),
        extra={name: init(variables) for name, init in memory.items()},
    )


# Compared by identity, as functions are, because `jax.jit` keys its cache by the function.
@dataclasses.dataclass(frozen=True, eq=False)
class TrainStep:
    """The training step of one phase, a pure function of its arguments.

    Attributes:
        model: from `create_model`.
        tx: from `make_optimizer`; returns updates u, for params - learning rate * u.
        lr_fn: learning rate as a function of the completed steps.
        recipe: of the phase's methods.
        batch_builder: turns indices into a batch.
        keys: stream -> its typed key, see `rng.STREAMS`.
        matmul_precision: of products and convolutions, one of `numerics.MATMUL_PRECISIONS`.
        progress_fn: share of the stage's steps that are completed, as a function of the completed
            steps.
        frozen_models: name -> model of a network that `Recipe.frozen` names, if it is another.
    """

    model: Any
    tx: optax.GradientTransformation
    lr_fn: Callable[[jax.Array], jax.Array]
    recipe: Recipe
    batch_builder: BatchBuilder
    keys: Mapping[str, jax.Array]
    matmul_precision: str = "default"
    progress_fn: Callable[[jax.Array], jax.Array] = jnp.zeros_like
    frozen_models: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(
        self,
        state: TrainState,
        metrics: EpochMetrics,
        inputs: Inputs,
        rows: Rows | StreamedRows,
        packing: StatePacking | None = None,
    ) -> tuple[TrainState, EpochMetrics]:
        """Trains on one batch; the result is kept only if it is finite.

        Args:
            state: before the step.
            metrics: of the epoch so far.
            inputs: all that every step reads.
            rows: the images of the step.
            packing: how the state before and after the step is held; None = as it is.
        """
        update = with_precision(self.update, self.matmul_precision)
        old = state if packing is None else packing.unpack(state)
        new, sums, grads = update(old, inputs, rows)
        if packing is not None:
            new, grads = packing.pack(new), packing.params.pack(grads)
        state_kept, finite = self.keep(state, new, sums, grads)
        return state_kept, metrics.add(sums, state.step, finite)

    def keep(
        self, old: TrainState, new: TrainState, sums: StepMetrics, grads: Any
    ) -> tuple[TrainState, jax.Array]:
        """Keeps the result of a step only if it is finite; see `keep_finite`."""
        limit = LARGEST_UPDATE / jnp.maximum(self.lr_fn(old.step), 1)
        return keep_finite(old, new, sums, grads, limit)

    def packing(self, state: TrainState) -> StatePacking | None:
        """The way to hold the state while steps are looped; None = as it is."""
        return StatePacking.of(state)

    def batch(self, step: jax.Array, inputs: Inputs, rows: Rows | StreamedRows) -> Batch:
        """The batch of a step after the transforms; see `data.batch.Batch`."""
        with jax.named_scope("augment"):
            keys = self.keys_at(step)
            if isinstance(rows, StreamedRows):
                images, labels, index = rows.images, rows.labels, None
            else:
                images, labels, index = inputs.images, inputs.labels, rows.index
            batch = self.batch_builder.make_batch(
                keys["augment"], images, labels, index, rows.valid, views=self.recipe.views
            )
        with jax.named_scope("transforms"):
            for i, transform in enumerate(self.recipe.transforms):
                batch = transform(rng.at(keys["transforms"], i), batch)
        return batch

    def draw(
        self, state: TrainState, inputs: Inputs, rows: Rows | StreamedRows
    ) -> tuple[Rows | StreamedRows, dict[str, jax.Array]]:
        """The rows that the recipe draws in place of those given, and what this adds to the batch.

        See `Recipe.class_draw`.
        """
        if self.recipe.class_draw is None:
            return rows, {}
        assert isinstance(rows, Rows), "images that are drawn within a step are on the devices"
        assert inputs.by_class is not None, "a recipe that draws classes needs the images by class"
        with jax.named_scope("draw"):
            keys = rng.split(self.keys_at(state.step)["draws"], 3)
            label, entries = self.recipe.class_draw(keys[0], state.extra, len(rows.valid))
            index = images_of(keys[1], label, inputs.by_class)
            given = self.batch_builder.make_batch(
                keys[2], inputs.images, inputs.labels, rows.index, rows.valid
            )
        added = {f"host_{name}": given[name] for name in ("image", "label", "valid")}
        # The select gives the indices the sharding of the rows.
        drawn = dataclasses.replace(rows, index=jnp.where(rows.valid, index, rows.index))
        return drawn, {**entries, **added}

    def keys_at(self, step: jax.Array) -> dict[str, jax.Array]:
        """The keys of all streams at a step."""
        # Together, because on a GPU each would take kernels of its own.
        at_step = rng.all_at(jnp.stack(list(self.keys.values())), step)
        return dict(zip(self.keys, at_step, strict=True))

    def generate(self, state: TrainState, inputs: Inputs, batch: Batch) -> Batch:
        """The batch after the generators."""
        key = self.keys_at(state.step)["generators"]
        for i, generator in enumerate(self.recipe.generators):
            networks = self.networks(state.params, state, inputs, batch)
            batch = generator(rng.at(key, i), batch, networks)
        return batch

    def networks(self, params: Params, state: TrainState, inputs: Inputs, batch: Batch) -> Networks:
        """The networks of a step; the one that trains has these parameters."""
        return Networks(
            self.model if self.recipe.dropout else without_dropout(self.model),
            self.batch_builder.normalize,
            params,
            state.batch_stats,
            valid=batch["valid"],
            dropout_key=self.keys_at(state.step)["dropout"],
            train=self.recipe.train_mode,
            frozen=inputs.frozen,
            frozen_models=self.frozen_models,
            memory=state.extra,
            progress=self.progress_fn(state.step),
        )

    def loss(
        self,
        params: Params,
        class_weights: np.ndarray | None,
        state: TrainState,
        inputs: Inputs,
        batch: Batch,
        class_factors: np.ndarray | None = None,
    ) -> tuple[jax.Array, Aux]:
        """The mean loss of the valid rows, noise included; see `recipe.LossFn`."""
        recipe, valid = self.recipe, batch["valid"]
        if class_weights is not None:
            recipe = dataclasses.replace(recipe, class_weights=class_weights, weighted_mean=True)
        params, key = self._frozen_as_constants(params), self.keys_at(state.step)["objective"]

        def passed(recipe: Recipe) -> tuple[Outcome, Any]:
            networks = self.networks(params, state, inputs, batch)
            return recipe.outcome(networks, batch, key), networks.batch_stats

        outcome, batch_stats = passed(recipe.with_factors(class_factors))
        weights = outcome.weights
        losses = outcome.losses if weights is None else outcome.losses * weights
        if class_factors is not None and recipe.weighted_mean:
            # Of this pass only the weights are used, and the compiler leaves the rest out.
            weights = passed(recipe)[0].weights
        chex.assert_shape(losses, valid.shape)
        total = jnp.where(valid, losses, 0).sum()
        if weights is not None and recipe.weighted_mean:
            size = jnp.where(valid, weights, 0).sum()
            mean = total / jnp.where(size > 0, size, 1)
        else:
            mean = total / jnp.maximum(valid.sum(), 1)
        if outcome.batch_loss is not None:
            # A batch of padding alone has no loss.
            mean = mean + jnp.where(valid.any(), outcome.batch_loss, 0)
        return mean, Aux(batch_stats, outcome.logits, dict(outcome.outputs))

    def update(
        self, state: TrainState, inputs: Inputs, rows: Rows | StreamedRows
    ) -> tuple[TrainState, StepMetrics, Params]:
        """Trains on one batch, whether or not the result is finite.

        Returns:
            The next state, the `StepMetrics` of this step alone, and the gradient.
        """
        taken = rows.labels if isinstance(rows, StreamedRows) else rows.index
        chex.assert_equal_shape([taken, rows.valid])
        drawn, added = self.draw(state, inputs, rows)
        batch: Batch = {**self.batch(state.step, inputs, drawn), **added}
        batch = optimization_barrier_on_cpu(self.generate(state, inputs, batch))

        def loss_fn(
            params: Params,
            class_weights: np.ndarray | None = None,
            *,
            class_factors: np.ndarray | None = None,
            batch_stats: Any = None,
        ) -> tuple[jax.Array, Aux]:
            before = state
            if batch_stats is not None:
                before = dataclasses.replace(state, batch_stats=batch_stats)
            return self.loss(params, class_weights, before, inputs, batch, class_factors)

        (loss, aux), grads = self.recipe.gradient(loss_fn, state.params, batch)
        params, opt_state = self._optimize(state, grads, batch)
        params = self.recipe.project(params, state.extra)
        variables = {"params": params, "batch_stats": aux.batch_stats}
        observed = Observed(
            variables,
            state.step,
            batch,
            aux.outputs,
            {"params": state.params, "batch_stats": state.batch_stats},
            self.recipe.lr_factor(("head",)) * self.lr_fn(state.step),
        )
        extra = {
            name: self.recipe.memory[name].update(tree, observed)
            if name in self.recipe.memory
            else tree
            for name, tree in state.extra.items()
        }
        new = TrainState(state.step + 1, params, aux.batch_stats, opt_state, extra)
        return new, _sums(loss, aux.logits, batch), grads

    @jax.named_scope("optimizer")
    def _optimize(
        self, state: TrainState, grads: Params, batch: Batch
    ) -> tuple[Params, optax.OptState]:
        """The parameters and the optimiser's state after a step."""

        def decayed(path: Any, param: jax.Array) -> jax.Array:
            # As in PyTorch, parameters unused or frozen in this step get no weight decay.
            unused = "noise_mask" not in batch and path[-1].key.startswith(AUX_PREFIX)
            return jnp.zeros_like(param) if unused or not self._trains(path) else param

        decaying = jax.tree_util.tree_map_with_path(decayed, state.params)
        updates, opt_state = self.tx.update(grads, state.opt_state, decaying)
        lr = self.lr_fn(state.step)

        def move(path: Any, param: jax.Array, update: jax.Array) -> jax.Array:
            if not self._trains(path):
                return param
            factor = self.recipe.lr_factor(_names(path))
            rate = lr if factor == 1 else factor * lr
            return (param - rate * update).astype(param.dtype)

        return jax.tree_util.tree_map_with_path(move, state.params, updates), opt_state

    def _trains(self, path: Any) -> bool:
        return self.recipe.trainable(_names(path))

    def _frozen_as_constants(self, params: Params) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, x: x if self._trains(path) else jax.lax.stop_gradient(x), params
        )


def _names(path: Any) -> tuple[str, ...]:
    return tuple(str(entry.key) for entry in path)


def _sums(loss: jax.Array, logits: jax.Array, batch: Batch) -> StepMetrics:
    """Metrics of one step."""
    natural = natural_rows(batch)
    noise = batch["valid"] & ~natural
    return StepMetrics(
        row_loss=loss.astype(jnp.promote_types(loss.dtype, jnp.float32)) * batch["valid"].sum(),
        steps=jnp.ones((), jnp.int32),
        natural=natural.sum(dtype=jnp.int32),
        noise=noise.sum(dtype=jnp.int32),
        correct=(natural & (logits.argmax(-1) == batch["label"])).sum(dtype=jnp.int32),
    )


def make_step(
    model: Any,
    tx: optax.GradientTransformation,
    lr_fn: Callable[[jax.Array], jax.Array],
    recipe: Recipe,
    batch_builder: BatchBuilder,
    seed: int,
    matmul_precision: str = "default",
    progress_fn: Callable[[jax.Array], jax.Array] = jnp.zeros_like,
    frozen_models: Mapping[str, Any] = MappingProxyType({}),
) -> TrainStep:
    """Builds the training step of one phase; see `TrainStep` for the arguments.

    Args:
        model: from `create_model`.
        tx: from `make_optimizer`.
        lr_fn: learning rate as a function of the completed steps.
        recipe: of the phase's methods.
        batch_builder: turns indices into a batch; without its augmentation, if the recipe takes
            images as they are stored.
        seed: the run's seed.
        matmul_precision: one of `numerics.MATMUL_PRECISIONS`.
        progress_fn: see `TrainStep`.
        frozen_models: see `TrainStep`.
    """
    names = ["augment", "transforms", "generators", "dropout", "objective"]
    if recipe.class_draw is not None:
        names.append("draws")
    keys = {name: rng.stream(seed, name) for name in names}
    return TrainStep(
        model,
        tx,
        lr_fn,
        recipe,
        batch_builder.augmenting(recipe.augments),
        keys,
        matmul_precision,
        progress_fn,
        frozen_models,
    )
