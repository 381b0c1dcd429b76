"""The ResNet-12 of few-shot learning, for images of 84x84.

Source: Lee et al. 2019 (MetaOptNet), section 4.1, and their code for the widths, the leaky ReLU and
the initialisers; it follows Oreshkin et al. 2018. Ye et al. 2021 train with it on tiered-ImageNet.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
from flax import linen as nn

from purenoise_jax.models.conv import HE_FAN_OUT, PAD_1, Conv
from purenoise_jax.models.network import Network, Rows
from purenoise_jax.models.places import Mix
from purenoise_jax.models.pooling import max_pool
from purenoise_jax.models.resnet import shortcut

leaky_relu = partial(nn.leaky_relu, negative_slope=0.1)


class ResNet12Block(nn.Module):
    """Three 3x3 convolutions, a shortcut, and the maxima of 2x2 windows."""

    width: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, rows: Rows) -> jax.Array:
        """Maps [B, H, W, C] to [B, floor(H / 2), floor(W / 2), width]."""
        y = x
        for i in (1, 2, 3):
            y = self.conv(self.width, (3, 3), padding=PAD_1, name=f"conv{i}")(y)
            y = self.norm(name=f"bn{i}")(y, *rows)
            if i < 3:
                y = leaky_relu(y)
        y = y + shortcut(x, self.width, rows, self.conv, self.norm)
        return max_pool(leaky_relu(y), window=2)


class ResNet12(Network, kw_only=True):
    """ResNet of four blocks, each of which is a stage and halves height and width.

    READING: without dropout and DropBlock, which the few-shot papers use; the supplement of Ye et
    al. 2021 names neither.

    Attributes:
        widths: channels of each stage.
    """

    widths: Sequence[int] = (64, 160, 320, 640)

    def stages(
        self,
        x: jax.Array,
        rows: Rows,
        norm: Callable[..., nn.Module],
        *,
        train: bool,
        mix: Mix,
    ) -> jax.Array:
        """Maps images to the output of the last stage; see `Network.stages`."""
        del train
        conv = partial(
            Conv, padding="VALID", use_bias=False, dtype=self.dtype, kernel_init=HE_FAN_OUT
        )
        for stage, width in enumerate(self.widths, start=1):
            block = self.block(ResNet12Block)
            x = block(width, conv, norm, name=f"stage{stage}_block0")(x, rows)
            x = mix(f"stage{stage}", x)
        return x
