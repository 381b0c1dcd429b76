"""What a training method may change about a step.

A method is a function `(recipe, stats, **arguments) -> recipe`. `Recipe()` trains by empirical
risk minimisation; a method replaces the fields it cares about, and several are combined by
applying one after the other.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

# A training batch:
#   image       f32[B, H, W, C]  augmented, pixel space [0, 1]
#   label       i32[B]
#   target      f32[B, K]        one-hot unless a transform softens it
#   valid       bool[B]          False = padding
#   noise_mask  bool[B]          True = pure noise; the entry is absent while no row can be
Batch = Mapping[str, jax.Array]
Params = Any
Transform = Callable[[jax.Array, Batch], Batch]
Forward = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
Loss = Callable[[jax.Array, jax.Array], jax.Array]
Objective = Callable[[Forward, Batch, jax.Array], tuple[jax.Array, jax.Array]]
LossFn = Callable[[Params], tuple[jax.Array, Any]]
Gradient = Callable[[LossFn, Params], tuple[tuple[jax.Array, Any], Params]]


@dataclasses.dataclass(frozen=True)
class DataStats:
    """What a method may know about the training set.

    Attributes:
      class_counts: int64[K], training images per class.
      image_shape: (H, W, C).
      mean, std: f32[C], per channel over the training subset, pixels in [0, 1].
      full_mean, full_std: f32[C], the same over the whole training split that the subset is from.
      normalize_mean, normalize_std: f32[C], with which images enter the network.
    """

    class_counts: np.ndarray
    image_shape: tuple[int, int, int]
    mean: np.ndarray
    std: np.ndarray
    full_mean: np.ndarray
    full_std: np.ndarray
    normalize_mean: np.ndarray
    normalize_std: np.ndarray

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_counts)


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Softmax cross-entropy of logits [B, K] and target [B, K]: [B], in nats."""
    return optax.softmax_cross_entropy(logits, target)


def classify(forward: Forward, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One forward pass: logits [B, K] of the batch and no auxiliary loss, zeros [B]."""
    del key
    logits, _ = forward(batch["image"], batch.get("noise_mask"))
    return logits, jax.numpy.zeros(logits.shape[0], logits.dtype)


def differentiate(loss_fn: LossFn, params: Params) -> tuple[tuple[jax.Array, Any], Params]:
    """The plain gradient."""
    return jax.value_and_grad(loss_fn, has_aux=True)(params)


def everything(path: tuple[str, ...]) -> bool:
    """All parameters train."""
    del path
    return True


def unchanged(logits: jax.Array) -> jax.Array:
    """Logits as the model gives them."""
    return logits


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The seams of a training step; the defaults are empirical risk minimisation.

    Attributes:
      class_probs: f32[K], the probability of each class in draws with replacement; None = every
        image once an epoch.
      transforms: applied in order to the augmented batch in pixel space, each with its own key.
      loss: (logits [B, K], target [B, K]) -> losses [B].
      class_weights: f32[K], multiplied into the loss of each row by its label; None = all 1.
      objective: (forward, batch, key) -> (logits [B, K], auxiliary losses [B]). `forward(images,
        noise_mask=None)` normalises, runs the model in training mode and keeps its statistics.
      gradient: (loss_fn, params) -> ((loss, aux), gradient).
      trainable: tells by its path whether a parameter is updated.
      postprocess: logits [B, K] -> logits [B, K], in evaluation.
    """

    class_probs: np.ndarray | None = None
    transforms: tuple[Transform, ...] = ()
    loss: Loss = cross_entropy
    class_weights: np.ndarray | None = None
    objective: Objective = classify
    gradient: Gradient = differentiate
    trainable: Callable[[tuple[str, ...]], bool] = everything
    postprocess: Callable[[jax.Array], jax.Array] = unchanged
