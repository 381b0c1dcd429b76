"""The Wide ResNets of the pure-noise papers.

Source: Zagoruyko and Komodakis 2016, in the variant of the published reproduction (Lee and Lee
2023): dropout directly after the first convolution of a block, and a shortcut convolution of the
block's input before normalisation. WRN-28-10 has 36,479,194 parameters with ten classes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import jax
from flax import linen as nn

from purenoise_jax.models.conv import HE_FAN_OUT, PAD_1, Conv
from purenoise_jax.models.dropout import Dropout
from purenoise_jax.models.network import Network, Rows
from purenoise_jax.models.places import Mix


class WideBlock(nn.Module):
    """Norm, ReLU, 3x3 convolution, dropout, norm, ReLU, 3x3 convolution, plus a shortcut."""

    width: int
    stride: int
    dropout_rate: float
    train: bool
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, rows: Rows) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, width]."""
        strides = (self.stride, self.stride)
        y = self.norm(name="bn1", relu=True)(x, *rows)
        y = self.conv(self.width, (3, 3), padding=PAD_1, strides=strides, name="conv1")(y)
        y = Dropout(self.dropout_rate, deterministic=not self.train)(y)
        y = self.norm(name="bn2", relu=True)(y, *rows)
        y = self.conv(self.width, (3, 3), padding=PAD_1, name="conv2")(y)
        if x.shape[-1] != self.width or self.stride != 1:
            x = self.conv(self.width, (1, 1), padding="VALID", strides=strides, name="shortcut")(x)
        return y + x


class WideResNet(Network, kw_only=True):
    """Pre-activation wide residual network of depth 6n + 4.

    Attributes:
        depth: 6n + 4.
        widen: width factor.
        dropout_rate: share of activations dropped in training, noise rows included; needs the
            "dropout" key.
    """

    depth: int
    widen: int
    dropout_rate: float = 0.3
    places: ClassVar[Sequence[str]] = ("input", "stage1", "stage2", "stage3", "features")

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
        conv = partial(Conv, use_bias=False, dtype=self.dtype, kernel_init=HE_FAN_OUT)
        x = conv(16, (3, 3), padding=PAD_1, name="conv0")(x)
        for stage, width in enumerate((16, 32, 64), start=1):
            for block in range((self.depth - 4) // 6):
                stride = 2 if stage > 1 and block == 0 else 1
                x = self.block(WideBlock)(
                    width * self.widen,
                    stride,
                    self.dropout_rate,
                    train,
                    conv,
                    norm,
                    name=f"stage{stage}_block{block}",
                )(x, rows)
            x = mix(f"stage{stage}", x)
        return norm(name="bn_final", relu=True)(x, *rows)
