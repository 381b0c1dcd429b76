"""The convolution of all networks, with a faster weight gradient on a CPU."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from purenoise_jax.runtime.compiler import optimization_barrier_on_cpu

# The initialisers of He et al. 2015, with the gain of a ReLU.
HE_FAN_IN = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# PyTorch's padding=1; "SAME" would pad a strided convolution on one side only.
PAD_1 = ((1, 1), (1, 1))
# On a CPU, weight gradients of narrow layers on large maps are computed in groups of 16 images, or
# of more images if there were more than 8 groups.
IMAGES, MAX_GROUPS = 16, 8
MAX_CHANNELS, MIN_POSITIONS = 32, 1024


def in_groups(x: jax.Array, w: jax.Array) -> bool:
    """Returns whether the weight gradient is computed in groups of images.

    Only if all images are on one CPU, because several devices would have to exchange groups, and
    never for a free number of images, as in an exported program, which computes no gradient.
    """
    batch, height, width, _ = x.shape
    return (
        isinstance(batch, int)
        and jax.default_backend() == "cpu"
        and jax.device_count() == 1
        and batch > IMAGES
        and max(w.shape[-2:]) <= MAX_CHANNELS
        and height * width >= MIN_POSITIONS
    )


def convolve(x: jax.Array, w: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """`jax.lax.conv_general_dilated`, whose weight gradient is computed in groups for some inputs.

    XLA gives Eigen the weight gradient as a convolution with images as channels; with `IMAGES` of
    them, the inputs of one output fit into the cache. On ResNet-32's first stage, batch 128, this
    takes 6 ms instead of 10.
    """

    def plain(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, w, *args, **kwargs)

    if not in_groups(x, w):
        return plain(x, w)
    call = jax.custom_vjp(plain)

    def weight_gradient(x: jax.Array, w: jax.Array, ct: jax.Array) -> jax.Array:
        dw = jax.linear_transpose(lambda w: plain(x, w), w)(ct)[0]
        return dw.astype(jnp.promote_types(dw.dtype, jnp.float32))

    def backward(
        residuals: tuple[jax.Array, jax.Array], ct: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        x, w = residuals
        (dx,) = jax.linear_transpose(lambda x: plain(x, w), x)(ct)
        size = max(IMAGES, -(-len(x) // MAX_GROUPS))
        dw = weight_gradient(x[:size], w, ct[:size])
        for i in range(size, len(x), size):
            dw += weight_gradient(x[i : i + size], w, ct[i : i + size])
        return dx, dw.astype(w.dtype)

    call.defvjp(lambda x, w: (plain(x, w), (x, w)), backward)
    return call(x, w)


class Conv(nn.Conv):
    """`flax.linen.Conv`, arranged to be fast on a CPU; equal up to rounding.

    Its input and output are written to memory (see `compiler.optimization_barrier_on_cpu`), and the
    weight gradient of a narrow layer on large maps is a sum over groups of images (see `convolve`).
    """

    conv_general_dilated: Any = convolve

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Convolves [B, H, W, C] to [B, H', W', features]."""
        return optimization_barrier_on_cpu(super().__call__(optimization_barrier_on_cpu(inputs)))
