"""The first layers of the networks that exist for large and for small images."""

from collections.abc import Callable

import jax
from flax import linen as nn

from purenoise_jax.models.conv import PAD_1
from purenoise_jax.models.network import Rows
from purenoise_jax.models.pooling import max_pool

PAD_3 = ((3, 3), (3, 3))


def large_stem(
    x: jax.Array,
    width: int,
    rows: Rows,
    conv: Callable[..., nn.Module],
    norm: Callable[..., nn.Module],
) -> jax.Array:
    """The stem for ImageNet, [B, H, W, C] -> [B, H / 4, W / 4, width].

    A 7x7 convolution of stride 2, norm, ReLU, and the maxima of 3x3 windows with stride 2.
    """
    x = conv(width, (7, 7), strides=(2, 2), padding=PAD_3, name="conv0")(x)
    return max_pool(norm(name="bn0", relu=True)(x, *rows), window=3, padding=1)


def small_stem(
    x: jax.Array,
    width: int,
    rows: Rows,
    conv: Callable[..., nn.Module],
    norm: Callable[..., nn.Module],
) -> jax.Array:
    """The stem for CIFAR, [B, H, W, C] -> [B, H, W, width]: a 3x3 convolution, norm, ReLU."""
    x = conv(width, (3, 3), padding=PAD_1, name="conv0")(x)
    return norm(name="bn0", relu=True)(x, *rows)
