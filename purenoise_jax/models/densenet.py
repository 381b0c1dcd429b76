"""The DenseNets with bottleneck layers and compression (DenseNet-BC).

Source: Huang et al. 2017, section 3 and table 1; layout and initialisers of torchvision. With 1000
classes DenseNet-121 has 7,978,856 parameters.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from purenoise_jax.models.conv import HE_FAN_IN, PAD_1, Conv
from purenoise_jax.models.network import Network, Rows
from purenoise_jax.models.places import Mix
from purenoise_jax.models.pooling import average_pool
from purenoise_jax.models.stems import large_stem

# Channels of the 1x1 convolution of a layer over those that it adds.
BOTTLENECK = 4


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 convolution, norm, ReLU, 3x3 convolution; the output joins the input."""

    growth: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, rows: Rows) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, C + growth]."""
        y = self.norm(name="bn1", relu=True)(x, *rows)
        y = self.conv(BOTTLENECK * self.growth, (1, 1), name="conv1")(y)
        y = self.norm(name="bn2", relu=True)(y, *rows)
        y = self.conv(self.growth, (3, 3), padding=PAD_1, name="conv2")(y)
        return jnp.concatenate([x, y], axis=-1)


class Transition(nn.Module):
    """Norm, ReLU, a 1x1 convolution to half as many channels, and the means of 2x2 windows."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, rows: Rows) -> jax.Array:
        """Maps [B, H, W, C] to [B, floor(H / 2), floor(W / 2), floor(C / 2)]."""
        y = self.norm(name="bn", relu=True)(x, *rows)
        return average_pool(self.conv(x.shape[-1] // 2, (1, 1), name="conv")(y))


class DenseNet(Network, kw_only=True):
    """DenseNet of four dense blocks; a stage ends before the transition to the next.

    READING: for small images the first layer is a 3x3 convolution alone, as in section 4.2, and
    everything behind it is as for ImageNet. The supplement of Ye et al. 2021 trains DenseNet-121 on
    CIFAR-10 and does not describe its first layer.
    DEVIATION: the classifier's bias is drawn uniformly, as in all networks here; torchvision's is
    zero.

    Attributes:
        blocks: number of layers of each dense block.
        growth: channels that each layer adds.
        small_images: True begins with a 3x3 convolution of stride 1; False with a 7x7 convolution
            and a maximum, each of stride 2.
    """

    blocks: Sequence[int] = (6, 12, 24, 16)
    growth: int = 32
    small_images: bool = False

    def stages(
        self,
        x: jax.Array,
        rows: Rows,
        norm: Callable[..., nn.Module],
        *,
        train: bool,
        mix: Mix,
    ) -> jax.Array:
        """Maps images to the output of the last stage, norm and ReLU; see `Network.stages`."""
        del train
        conv = partial(
            Conv, padding="VALID", use_bias=False, dtype=self.dtype, kernel_init=HE_FAN_IN
        )
        width = 2 * self.growth
        if self.small_images:
            x = conv(width, (3, 3), padding=PAD_1, name="conv0")(x)
        else:
            x = large_stem(x, width, rows, conv, norm)
        for stage, count in enumerate(self.blocks, start=1):
            if stage > 1:
                transition = self.block(Transition)
                x = transition(conv, norm, name=f"transition{stage - 1}")(x, rows)
            for i in range(count):
                layer = self.block(DenseLayer)
                x = layer(self.growth, conv, norm, name=f"stage{stage}_block{i}")(x, rows)
            x = mix(f"stage{stage}", x)
        return norm(name="bn_final", relu=True)(x, *rows)
