"""The CIFAR ResNets of He et al. 2016 with parameter-free shortcuts (option A).

Source: He et al. 2016, section 4.2; layout and initialisers of the code of LDAM-DRW (Cao et al.
2019), which the pure-noise papers use. ResNet-32 has 464,154 parameters with ten classes.

Papers on long tails have two more networks under the name ResNet-32: that of BBN (Zhou et al. 2020,
their code), with two last blocks side by side, and one of four times the width (Du et al. 2023,
GLMC, their code).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer

from purenoise_jax.models.activations import relu
from purenoise_jax.models.conv import HE_FAN_IN, PAD_1, Conv
from purenoise_jax.models.heads import TORCH_UNIFORM
from purenoise_jax.models.network import Network, Rows
from purenoise_jax.models.places import Mix


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut that subsamples and pads channels with zeros."""

    width: int
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, rows: Rows) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, width]."""
        y = self.conv(self.width, strides=(self.stride, self.stride), name="conv1")(x)
        y = self.norm(name="bn1", relu=True)(y, *rows)
        y = self.conv(self.width, name="conv2")(y)
        y = self.norm(name="bn2")(y, *rows)
        extra = self.width - x.shape[-1]
        shortcut = x[:, :: self.stride, :: self.stride]
        shortcut = jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))
        return relu(y + shortcut)


class ResNetCifar(Network, kw_only=True):
    """ResNet of depth 6n + 2 for small images.

    Attributes:
        depth: 6n + 2.
        width: channels of the first stage; each stage doubles them.
    """

    depth: int
    width: int = 16
    head_init: Initializer = HE_FAN_IN
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
        """Maps images to the output of the last stage; see `Network.stages`."""
        del train
        conv = partial(
            Conv,
            kernel_size=(3, 3),
            padding=PAD_1,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=HE_FAN_IN,
        )
        x = conv(self.width, name="conv0")(x)
        x = norm(name="bn0", relu=True)(x, *rows)
        count = (self.depth - 2) // 6
        for stage, width in enumerate((self.width, 2 * self.width, 4 * self.width), start=1):
            for i in range(count):
                stride = 2 if stage > 1 and i == 0 else 1
                block = partial(self.block(BasicBlock), width, stride, conv, norm)
                if stage == 3 and i == count - 1:
                    x = self.last_block(x, rows, block)
                else:
                    x = block(name=f"stage{stage}_block{i}")(x, rows)
            x = mix(f"stage{stage}", x)
        return x

    def last_block(self, x: jax.Array, rows: Rows, block: Callable[..., nn.Module]) -> jax.Array:
        """Applies the last block of the last stage; `block` is called with its name."""
        return block(name=f"stage3_block{(self.depth - 2) // 6 - 1}")(x, rows)


class BBNResNetCifar(ResNetCifar, kw_only=True):
    """ResNet of BBN: two last blocks with the same input, whose outputs are concatenated.

    There are twice as many features, 128 with `width` 16. The blocks are those of BBN's
    conventional learning branch and re-balancing branch, trained together on one batch.

    Source: Zhou et al. 2020, section 4 and their code; LADE (Hong et al. 2021) uses it as a plain
    network.
    """

    head_init: Initializer = TORCH_UNIFORM

    def last_block(self, x: jax.Array, rows: Rows, block: Callable[..., nn.Module]) -> jax.Array:
        """Applies both blocks, [B, H, W, C] -> [B, H, W, 2 * 4 * width]."""
        return jnp.concatenate(
            [block(name=f"stage3_{branch}_block")(x, rows) for branch in ("cb", "rb")], axis=-1
        )
