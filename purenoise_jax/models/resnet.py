"""The ResNets and ResNeXts for ImageNet, also with a first layer for small images.

Source: He et al. 2016, table 1; Xie et al. 2017 for groups; layout and initialisers of torchvision
(version 1.5 of bottleneck blocks: the 3x3 convolution has the stride). With 1000 classes ResNet-50
has 25,557,032 parameters, and ResNeXt-50 32x4d has 25,028,904.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
from flax import linen as nn

from purenoise_jax.models.activations import relu
from purenoise_jax.models.conv import HE_FAN_OUT, PAD_1, Conv
from purenoise_jax.models.network import Network, Rows
from purenoise_jax.models.places import Mix
from purenoise_jax.models.stems import large_stem, small_stem

# Channels that leave a bottleneck block over those of its stage.
EXPANSION = 4


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Attributes:
        width: channels of both convolutions.
        stride: of the first.
        conv: makes a convolution.
        norm: makes a normalisation layer.
    """

    width: int
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, rows: Rows) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, width]."""
        strides = (self.stride, self.stride)
        y = self.conv(self.width, (3, 3), padding=PAD_1, strides=strides, name="conv1")(x)
        y = self.norm(name="bn1", relu=True)(y, *rows)
        y = self.conv(self.width, (3, 3), padding=PAD_1, name="conv2")(y)
        y = self.norm(name="bn2")(y, *rows)
        return relu(y + shortcut(x, self.width, rows, self.conv, self.norm, self.stride))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut.

    Attributes:
        width: a quarter of the channels of the output.
        stride: of the 3x3 convolution.
        conv: makes a convolution.
        norm: makes a normalisation layer.
        groups: of the 3x3 convolution.
        inner: channels of the first two convolutions; None = `width`.
    """

    width: int
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    groups: int = 1
    inner: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, rows: Rows) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, 4 * width]."""
        inner, outputs = self.inner or self.width, EXPANSION * self.width
        y = self.conv(inner, (1, 1), name="conv1")(x)
        y = self.norm(name="bn1", relu=True)(y, *rows)
        y = self.conv(
            inner,
            (3, 3),
            padding=PAD_1,
            strides=(self.stride, self.stride),
            feature_group_count=self.groups,
            name="conv2",
        )(y)
        y = self.norm(name="bn2", relu=True)(y, *rows)
        y = self.conv(outputs, (1, 1), name="conv3")(y)
        y = self.norm(name="bn3")(y, *rows)
        return relu(y + shortcut(x, outputs, rows, self.conv, self.norm, self.stride))


def shortcut(
    x: jax.Array,
    outputs: int,
    rows: Rows,
    conv: Callable[..., nn.Module],
    norm: Callable[..., nn.Module],
    stride: int = 1,
) -> jax.Array:
    """The shortcut of a block (option B): a 1x1 convolution and a norm where the shape changes."""
    if stride == 1 and x.shape[-1] == outputs:
        return x
    y = conv(outputs, (1, 1), strides=(stride, stride), name="shortcut_conv")(x)
    return norm(name="shortcut_bn")(y, *rows)


class ResNet(Network, kw_only=True):
    """ResNet of four stages.

    Attributes:
        blocks: number of blocks of each stage.
        bottleneck: True has blocks of three convolutions, as from ResNet-50 on.
        width: channels of the first stage, over 4 with bottleneck blocks; each stage doubles them.
        groups: groups of each 3x3 convolution of a bottleneck block.
        group_width: channels of a group in the first stage; 0 = `width` for all groups together.
        small_images: True begins with a 3x3 convolution of stride 1, as is usual for CIFAR; False
            with a 7x7 convolution and a maximum, each of stride 2.
    """

    blocks: Sequence[int]
    bottleneck: bool = False
    width: int = 64
    groups: int = 1
    group_width: int = 0
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
        """Maps images to the output of the last stage; see `Network.stages`."""
        del train
        conv = partial(
            Conv, padding="VALID", use_bias=False, dtype=self.dtype, kernel_init=HE_FAN_OUT
        )
        stem = small_stem if self.small_images else large_stem
        x = stem(x, self.width, rows, conv, norm)
        for stage, count in enumerate(self.blocks):
            block = self.block(BasicBlock)
            if self.bottleneck:
                inner = self.groups * self.group_width or self.width
                block = partial(self.block(Bottleneck), groups=self.groups, inner=inner * 2**stage)
            for i in range(count):
                stride = 2 if stage and not i else 1
                name = f"stage{stage + 1}_block{i}"
                x = block(self.width * 2**stage, stride, conv, norm, name=name)(x, rows)
            x = mix(f"stage{stage + 1}", x)
        return x
