"""Optimisers by name, with the weight decay of the papers' code.

An optimiser computes an update without a learning rate. The training step multiplies the update by
the rate, which depends only on the step number. So there is one step counter, and an optimiser
state that comes from another run cannot contradict it.
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
        momentum: momentum of "sgd", in [0, 1).
        weight_decay: times the parameters, this is added to the gradient before anything else, for
            every parameter, normalisation and biases included, as in PyTorch's optimisers.

    Returns:
        A transformation with update u: the new parameters are params - learning_rate * u.

    Raises:
        ConfigError: the name is unknown.
    """
    decay = optax.add_decayed_weights(weight_decay)
    if name == "sgd":
        return optax.chain(decay, optax.trace(decay=momentum))
    if name == "adam":
        return optax.chain(decay, optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8))
    raise unknown("optimizer.name", name, OPTIMIZERS)
