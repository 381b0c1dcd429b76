"""Networks of a training step: the one that trains, and frozen networks of other runs."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from purenoise_jax.models.places import Mix
from purenoise_jax.runtime import rng

Logits = Callable[[jax.Array], jax.Array]


class Networks:
    """Forward passes over images f32[B, H, W, C] in [0, 1], pixel space.

    One object serves one evaluation of the loss. `forward` keeps the batch statistics that it
    updates, so a second forward pass continues from the first.

    Attributes:
        batch_stats: running statistics after the forward passes so far; an objective may replace
            those that it keeps itself.
        frozen: name -> (images) -> logits f32[B, K], in evaluation mode, of the networks that
            `Recipe.frozen` names.
        memory: name -> tree, the memories before the step, see `recipe.Memory`.
        progress: f32[] in [0, 1), the share of the steps that are completed, of those of the
            training, or of the second stage that the step is part of.
    """

    def __init__(
        self,
        model: Any,
        normalize: Callable[[jax.Array], jax.Array],
        params: Any,
        batch_stats: Any,
        *,
        valid: jax.Array,
        dropout_key: jax.Array,
        train: bool = True,
        frozen: Mapping[str, Any] = MappingProxyType({}),
        frozen_models: Mapping[str, Any] = MappingProxyType({}),
        memory: Mapping[str, Any] = MappingProxyType({}),
        progress: jax.Array | float = 0.0,
    ) -> None:
        """Creates the passes.

        Args:
            model: from `create_model`.
            normalize: from pixel space to the network's input.
            params: parameters that train.
            batch_stats: running statistics before the step.
            valid: bool[B], False for padding.
            dropout_key: typed key []; each forward pass has its own, folded from it.
            train: False normalises with running statistics, leaves these as they are and drops no
                activations.
            frozen: name -> variables of a network.
            frozen_models: name -> its model; without an entry it is `model`.
            memory: name -> tree.
            progress: f32[].
        """
        self.batch_stats, self.memory, self.progress = batch_stats, memory, progress
        self._model, self._normalize = model, normalize
        self._params, self._first_stats = params, batch_stats
        self._valid, self._dropout_key, self._train = valid, dropout_key, train
        self._calls = 0
        self.frozen: Mapping[str, Logits] = {
            name: self._evaluates(variables, frozen_models.get(name, model))
            for name, variables in frozen.items()
        }

    def forward(
        self,
        images: jax.Array,
        noise_mask: jax.Array | None = None,
        *,
        mix: Mix | None = None,
        valid: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits f32[B, K] and other outputs of the network; updates `batch_stats`.

        Args:
            images: f32[B, H, W, C] in [0, 1], of the rows of the batch.
            noise_mask: bool[B], True = pure noise; None = no row is.
            mix: (place, activations [B, ...]) -> activations, called at each of the places of the
                network, see `models.places`; None = they stay as they are. A recipe whose objective
                gives it names its places in `Recipe.places`.
            valid: bool[B], False for padding; None = that of the batch.
        """
        # The norms select padding out, but the first weights meet the pixels before any norm, where
        # a zero gradient times a NaN pixel would be NaN.
        valid = self._valid if valid is None else valid
        images = jnp.where(valid[:, None, None, None], images, 0)
        outputs, updated = self._model.apply(
            {"params": self._params, "batch_stats": self.batch_stats},
            self._normalize(images),
            noise_mask,
            valid,
            train=self._train,
            mutable=["batch_stats"],
            rngs={"dropout": rng.at(self._dropout_key, self._calls)},
            # Only where it is given, so that a network without places fits too.
            **({} if mix is None else {"mix": mix}),
        )
        self.batch_stats = updated["batch_stats"]
        self._calls += 1
        return outputs

    def predict(self, images: jax.Array) -> jax.Array:
        """Logits f32[B, K] in evaluation mode, with the parameters before the step as constants."""
        variables = {"params": self._params, "batch_stats": self._first_stats}
        return self._evaluates(variables, self._model)(images)

    def _evaluates(self, variables: Any, model: Any) -> Logits:
        constants = jax.lax.stop_gradient(variables)

        def logits(images: jax.Array) -> jax.Array:
            return model.apply(constants, self._normalize(images), train=False)[0]

        return logits
