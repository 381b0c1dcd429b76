"""Captures the inputs of the normalisation layers of a network."""

from typing import Any

import jax
from flax import linen as nn

from purenoise_jax.models.norm import BatchNorm
from purenoise_jax.models.rematerialization import without_remat


def norm_inputs(
    model: nn.Module,
    variables: Any,
    images: jax.Array,
    noise_mask: jax.Array | None = None,
    valid: jax.Array | None = None,
    *,
    train: bool,
    rngs: dict[str, jax.Array] | None = None,
) -> dict[str, jax.Array]:
    """Runs one forward pass and returns the inputs of its normalisation layers; may be jitted.

    Args:
        model: from `create_model`.
        variables: its parameters and running statistics, which do not change.
        images: [B, H, W, C], normalised.
        noise_mask: bool[B], True = pure noise; None = no row is.
        valid: bool[B], False = padding; None = all rows are real.
        train: True uses batch moments instead of running statistics, and dropout.
        rngs: the "dropout" key, if the model needs one.

    Returns:
        The input [B, ..., C] of each layer, in the order of their calls, by the layer's path in the
        network, such as "stage1_block0/bn1".
    """
    inputs: dict[str, jax.Array] = {}

    def capture(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
            inputs["/".join(context.module.path)] = args[0]
        return call(*args, **kwargs)

    with nn.intercept_methods(capture):
        # Within a layer that is computed again, nothing can be captured.
        without_remat(model).apply(
            variables,
            images,
            noise_mask,
            valid,
            train=train,
            mutable=["batch_stats"],
            rngs=rngs,
        )
    return inputs
