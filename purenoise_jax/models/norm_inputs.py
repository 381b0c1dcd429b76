"""A look at what enters the normalisation layers of a network."""

from typing import Any

import jax
from flax import linen as nn

from purenoise_jax.models.norm import BatchNorm


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
    """One forward pass, for the inputs of its normalisation layers; may be jitted.

    Args:
        model: from `create_model`.
        variables: its parameters and running statistics, which stay as they are.
        images: [B, H, W, C], normalised.
        noise_mask: bool[B], True = pure noise; None = none is.
        valid: bool[B], False = padding; None = all rows are real.
        train: batch moments rather than running statistics, and dropout.
        rngs: the "dropout" key, where the model needs one.

    Returns:
        By the path of each layer in the network, such as "stage1_block0/bn1", in the order of their
        calls: [B, ..., C], as the layer was given it.
    """
    seen: dict[str, jax.Array] = {}

    def look(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
            seen["/".join(context.module.path)] = args[0]
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        model.apply(
            variables,
            images,
            noise_mask,
            valid,
            train=train,
            mutable=["batch_stats"],
            rngs=rngs,
        )
    return seen
