"""The recipe of a training step: the parts of it that a method may change.

A method is a function `(recipe, stats, **arguments) -> recipe`. `Recipe()` is empirical risk
minimisation; a method replaces the fields that it changes, and several methods are combined by
applying one after the other.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from purenoise_jax.data.batch import Batch
from purenoise_jax.methods.networks import Networks
from purenoise_jax.models.heads import CLASS_SCALE

Params = Any


class Outcome(NamedTuple):
    """Result of the objective for the rows of a batch.

    Attributes:
        losses: f32[B], in nats where the loss is a cross-entropy.
        logits: f32[B, K]; the training accuracy counts a row as correct if its largest logit is
            that of its label in the batch.
        weights: f32[B], weights of the losses in their mean; None = all 1.
        outputs: other arrays [B, ...] that the memories of the recipe read, such as the network's
            "features".
        batch_loss: f32[], a loss of the whole batch, which is added to the mean of the losses and
            which no weight or factor of a class scales; None = there is none.
    """

    losses: jax.Array
    logits: jax.Array
    weights: jax.Array | None = None
    outputs: Mapping[str, jax.Array] = MappingProxyType({})
    batch_loss: jax.Array | None = None


class Aux(NamedTuple):
    """All that a forward pass returns beside the loss.

    Attributes:
        batch_stats: running statistics after the step.
        logits: f32[B, K].
        outputs: those of the `Outcome`.
    """

    batch_stats: Any
    logits: jax.Array
    outputs: Mapping[str, jax.Array]


class Observed(NamedTuple):
    """The facts about a step that a memory may keep.

    Attributes:
        variables: {"params", "batch_stats"} after the step.
        step: i32[], completed steps before it.
        batch: of the step.
        outputs: those of the `Outcome`.
        before: {"params", "batch_stats"} before the step.
        learning_rate: f32[], of the head in the step.
    """

    variables: Any
    step: jax.Array
    batch: Batch
    outputs: Mapping[str, jax.Array]
    before: Any = None
    learning_rate: jax.Array | float = 0.0


class LossFn(Protocol):
    """The loss of a step as a function of the parameters."""

    def __call__(
        self,
        params: Params,
        class_weights: np.ndarray | None = None,
        *,
        class_factors: np.ndarray | None = None,
        batch_stats: Any = None,
    ) -> tuple[jax.Array, Aux]:
        """Returns the loss [], the batch statistics after the step, and the logits.

        Args:
            params: at which the loss is computed.
            class_weights: f32[K], instead of those of the recipe; the mean is then divided by the
                sum of the weights.
            class_factors: f32[K], by which the class weights are multiplied; the mean is divided as
                it is without them.
            batch_stats: running statistics before the forward pass; None = those before the step.
        """
        ...


class Memory(NamedTuple):
    """A pytree that a run carries beside its parameters, in `TrainState.extra`.

    It begins anew, from the variables at that time, in every phase that has it and follows one
    without it, and where a phase resets a classifier that it holds.

    Attributes:
        init: variables {"params", "batch_stats"} -> the tree before the first step.
        update: (tree, `Observed`) -> the tree after a step.
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Observed], Any]


# (key, memories by name, number of rows B) -> classes i32[B], and other entries of the batch.
ClassDraw = Callable[[jax.Array, Mapping[str, Any], int], tuple[jax.Array, Mapping[str, jax.Array]]]
Transform = Callable[[jax.Array, Batch], Batch]
Generator = Callable[[jax.Array, Batch, Networks], Batch]
Loss = Callable[[jax.Array, jax.Array], jax.Array]
Objective = Callable[["Recipe", Networks, Batch, jax.Array], Outcome]
Term = Callable[["Recipe", Networks, Batch, Outcome], Outcome]
Gradient = Callable[[LossFn, Params, Batch], tuple[tuple[jax.Array, Aux], Params]]
Project = Callable[[Params, Mapping[str, Any]], Params]


class Postprocess(Protocol):
    """Logits in evaluation as a function of the network's."""

    def __call__(self, logits: jax.Array, log_prior: jax.Array | None = None) -> jax.Array:
        """Returns the logits [B, K] to evaluate.

        Args:
            logits: [B, K], of the network.
            log_prior: f32[K], logarithm of the share of each class among the images to classify;
                None = it is not known.
        """
        ...


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Softmax cross-entropy of logits [B, K] and target [B, K]: [B], in nats."""
    return optax.softmax_cross_entropy(logits, target)


def supervised(recipe: "Recipe", networks: Networks, batch: Batch, key: jax.Array) -> Outcome:
    """One forward pass, and the recipe's loss of every row weighted by its class."""
    del key
    logits, outputs = networks.forward(batch["image"], batch.get("noise_mask"))
    losses = recipe.loss(logits, batch["target"])
    return Outcome(losses, logits, recipe.row_weights(batch["label"], losses.dtype), outputs)


def add_batch_loss(outcome: Outcome, loss: jax.Array) -> Outcome:
    """Adds a loss [] of the whole batch to those that an outcome has."""
    before = outcome.batch_loss
    return outcome._replace(batch_loss=loss if before is None else before + loss)


def value_and_grad(
    loss_fn: LossFn, params: Params, batch: Batch
) -> tuple[tuple[jax.Array, Aux], Params]:
    """The plain gradient."""
    del batch
    return jax.value_and_grad(loss_fn, has_aux=True)(params)


def trains_by_default(path: tuple[str, ...]) -> bool:
    """Returns True for every parameter but the scales of a scaled head."""
    return path[-1] != CLASS_SCALE


def full_rate(path: tuple[str, ...]) -> float:
    """Returns 1: every parameter trains with the learning rate itself."""
    del path
    return 1.0


def identity(logits: jax.Array, log_prior: jax.Array | None = None) -> jax.Array:
    """Returns the logits unchanged, whatever the share of each class."""
    del log_prior
    return logits


def unprojected(params: Params, memory: Mapping[str, Any]) -> Params:
    """Returns the parameters unchanged."""
    del memory
    return params


def current_variables(state: Any) -> dict[str, Any]:
    """The parameters and running statistics of the last step."""
    return {"params": state.params, "batch_stats": state.batch_stats}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The parts of a training step that methods change; the defaults train plainly.

    Attributes:
        class_probs: f32[K], the probability of each class in draws with replacement; None = every
            image once an epoch.
        class_draw: (key, memories before the step by name, number of rows B) -> classes i32[B] and
            other entries of the batch, for draws that depend on what a run has learnt. An image of
            each class is drawn uniformly. The rows that `class_probs` gives are in the batch, too:
            "host_image", "host_label" and "host_valid". None = the batch has these rows alone.
        transforms: applied in order to the augmented batch in pixel space, each with its own key.
        generators: applied after the transforms, each with its own key; they may call the networks.
        loss: (logits [B, K], target [B, K]) -> losses [B].
        class_weights: f32[K], the weight of each row by its label; None = all 1.
        weighted_mean: the loss of a step is divided by the sum of the weights of its rows, as
            PyTorch's weighted cross-entropy is; False = by the number of rows.
        objective: (recipe, networks, batch, key) -> `Outcome`; decides the targets. It takes the
            weights of rows from `row_weights` of the recipe in its arguments, because a `gradient`
            may have replaced the class weights there.
        terms: (recipe, networks, batch, outcome) -> `Outcome`, applied in order to that of the
            objective. A term adds a loss or outputs, whatever the objective is, and may make
            further forward passes; their number is the same in every step.
        places: places of the network at which the objective mixes activations; a network without
            one of them is refused.
        gradient: (loss_fn, params, batch) -> ((loss, aux), gradient).
        trainable: (path of a parameter) -> True if it trains. A frozen parameter is a constant in
            the forward pass, so its gradient is not computed, and it has no weight decay.
        lr_factor: (path of a parameter) -> factor of its learning rate, at least 0.
        train_mode: False runs batch norm and dropout in evaluation mode.
        dropout: False drops no activations in training mode either.
        frozen: names of the networks of other runs that `networks.frozen` offers, see
            `Method.frozen`.
        memory: name -> `Memory`.
        project: (parameters after the update, memories before the step by name) -> parameters, for
            constraints that every step restores.
        augments: False takes the images as they are stored instead of augmented versions.
        views: augmented versions of each image: 1, or 2, of which `batch["second"]` is the other
            one. Transforms and generators see it, too.
        eval_variables: (state) -> the variables to evaluate with.
        eval_transforms: (variables) -> variables, applied in order to those of `eval_variables`.
        postprocess: (logits [B, K], log_prior f32[K] | None) -> logits [B, K], in evaluation.
        requires: argument of the model -> the value that the method needs, such as
            {"head": "cosine"}.
    """

    class_probs: np.ndarray | None = None
    class_draw: ClassDraw | None = None
    transforms: tuple[Transform, ...] = ()
    generators: tuple[Generator, ...] = ()
    loss: Loss = cross_entropy
    class_weights: np.ndarray | None = None
    weighted_mean: bool = False
    objective: Objective = supervised
    terms: tuple[Term, ...] = ()
    places: tuple[str, ...] = ()
    gradient: Gradient = value_and_grad
    trainable: Callable[[tuple[str, ...]], bool] = trains_by_default
    lr_factor: Callable[[tuple[str, ...]], float] = full_rate
    train_mode: bool = True
    dropout: bool = True
    frozen: tuple[str, ...] = ()
    memory: Mapping[str, Memory] = dataclasses.field(default_factory=dict)
    project: Project = unprojected
    augments: bool = True
    views: int = 1
    eval_variables: Callable[[Any], dict[str, Any]] = current_variables
    eval_transforms: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = ()
    postprocess: Postprocess = identity
    requires: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def outcome(self, networks: Networks, batch: Batch, key: jax.Array) -> Outcome:
        """Runs the objective and the terms.

        Args:
            networks: networks of the step.
            batch: batch of the step.
            key: typed key [], of the objective.
        """
        outcome = self.objective(self, networks, batch, key)
        for term in self.terms:
            outcome = term(self, networks, batch, outcome)
        return outcome

    def row_weights(self, label: jax.Array, dtype: DTypeLike) -> jax.Array | None:
        """Returns the weights [B] of rows with labels i32[B]; None if all weights are 1."""
        if self.class_weights is None:
            return None
        return jnp.asarray(self.class_weights, dtype)[label]

    def with_factors(self, class_factors: np.ndarray | None) -> "Recipe":
        """Returns the recipe with class weights multiplied by f32[K]; None = as it is."""
        if class_factors is None:
            return self
        weights = 1 if self.class_weights is None else self.class_weights
        return dataclasses.replace(self, class_weights=class_factors * weights)

    def with_head_factor(self, factor: float) -> "Recipe":
        """Returns the recipe with the factor of the head's learning rate multiplied by a number."""
        if factor == 1:
            return self
        own = self.lr_factor
        return dataclasses.replace(
            self, lr_factor=lambda path: own(path) * (factor if path[0] == "head" else 1.0)
        )

    def evaluated(self, state: Any) -> dict[str, Any]:
        """Returns the variables {"params", "batch_stats"} to evaluate a `TrainState` with."""
        variables = self.eval_variables(state)
        for transform in self.eval_transforms:
            variables = transform(variables)
        return variables
