"""Optimisers by name, with the weight decay of the papers' code.

An optimiser computes an update without a learning rate. The training step multiplies the update by
the rate, which depends only on the step number. So there is one step counter, and an optimiser
state that comes from another run cannot contradict it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from purenoise_jax.runtime.errors import unknown

OPTIMIZERS = ("sgd", "adam", "adamw")


def make_optimizer(
    name: str,
    *,
    momentum: float,
    weight_decay: float,
    nesterov: bool = False,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """Creates an optimiser without its learning rate.

    Args:
        name: "sgd" (momentum without dampening), "adam" or "adamw" (both 0.9, 0.999).
        momentum: momentum of "sgd", in [0, 1).
        weight_decay: times the parameters, this is added to the gradient before anything else or,
            by "adamw", to the update (decoupled). It is so for every parameter, normalisation and
            biases included, as in PyTorch's optimisers.
        nesterov: "sgd" has Nesterov's momentum; otherwise heavy-ball momentum.
        clip_norm: largest norm of the gradient, see `clip_by_norm`; 0 = it is not clipped.

    Returns:
        A transformation with update u: the new parameters are params - learning_rate * u.

    Raises:
        ConfigError: the name is unknown.
    """
    decay = optax.add_decayed_weights(weight_decay)
    adam = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)
    if name == "sgd":
        optimizer = optax.chain(decay, optax.trace(decay=momentum, nesterov=nesterov))
    elif name == "adam":
        optimizer = optax.chain(decay, adam)
    elif name == "adamw":
        # PyTorch multiplies the parameters by 1 - rate * decay and then moves them by rate * Adam's
        # update. Parameters that the caller hides from the decay are hidden here, too.
        optimizer = optax.chain(adam, decay)
    else:
        raise unknown("optimizer.name", name, OPTIMIZERS)
    return clipped(optimizer, clip_norm) if clip_norm else optimizer


def clipped(
    optimizer: optax.GradientTransformation, clip_norm: float
) -> optax.GradientTransformation:
    """Clips the gradient before an optimiser sees it; weight decay is added after that.

    The state is that of the optimiser, so a run may start from one without clipping.
    """

    def update(gradient: Any, state: optax.OptState, params: Any = None) -> tuple[Any, Any]:
        return optimizer.update(clip_by_norm(gradient, clip_norm), state, params)

    return optax.GradientTransformation(optimizer.init, update)


def clip_by_norm(gradient: Any, clip_norm: float) -> Any:
    """Scales a gradient down to a norm, that of all its arrays together (`clip_grad_norm_`).

    Args:
        gradient: a tree of arrays.
        clip_norm: above 0.
    """
    # A norm beyond float32 is infinite, and the gradient then becomes zero, which is finite. A NaN
    # or an infinity in the gradient gives NaN. The training step's guard reads the gradient as it
    # was before, and keeps neither that nor a gradient with an element beyond its limit.
    scale = jnp.minimum(clip_norm / (optax.tree.norm(gradient) + 1e-6), 1)
    return jax.tree.map(lambda g: (g * scale).astype(g.dtype), gradient)
