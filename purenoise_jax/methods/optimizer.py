"""Optimisers by name, with the weight decay of the papers' code.

An optimiser gives the direction of an update; the step multiplies it by the learning rate, which
depends on the step alone. So there is one clock, and a state that is taken over from another run
cannot disagree with it.
"""

import optax

from purenoise_jax.runtime.errors import unknown

OPTIMIZERS = ("sgd", "adam")


def make_optimizer(
    name: str, *, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """Creates an optimiser without its learning rate.

    Args:
        name: "sgd" (heavy-ball momentum, no Nesterov, no dampening) or "adam" (0.9, 0.999).
        momentum: of "sgd", in [0, 1).
        weight_decay: added, times the parameters, to the gradient of every parameter before
            anything else, normalisation and biases included, as PyTorch's optimisers do.

    Returns:
        A transformation whose update is a direction of ascent: params - learning_rate * update.

    Raises:
        ConfigError: the name is unknown.
    """
    decay = optax.add_decayed_weights(weight_decay)
    if name == "sgd":
        return optax.chain(decay, optax.trace(decay=momentum))
    if name == "adam":
        return optax.chain(decay, optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8))
    raise unknown("optimizer.name", name, OPTIMIZERS)
