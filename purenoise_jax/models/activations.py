"""The ReLU after a sum of branches."""

from typing import Any

import jax
import jax.numpy as jnp

from purenoise_jax.runtime.compiler import optimization_barrier_on_accelerators


@jax.custom_jvp
def relu(x: jax.Array) -> jax.Array:
    """The larger of `x` and 0, with the gradient of `jax.nn.relu`.

    The sign for the gradient is that of the output, which stays in memory as the input of the next
    convolution. From the input, XLA on a GPU would compute the sum of the branches once more.
    """
    # A converter to ONNX takes the plain number 0 for float64.
    return optimization_barrier_on_accelerators(jnp.maximum(x, jnp.zeros((), x.dtype)))


@relu.defjvp
def _derivative(primals: Any, tangents: Any) -> Any:
    y = relu(*primals)
    return y, jnp.where(y > 0, tangents[0], 0)
