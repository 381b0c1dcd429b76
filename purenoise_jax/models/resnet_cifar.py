"""The CIFAR ResNets of He et al. 2016 with parameter-free shortcuts (option A).

Source: He et al. 2016, section 4.2; layout and initialisers of the code of LDAM-DRW (Cao et al.
2019), which the pure-noise papers use. ResNet-32 has 464,154 parameters with ten classes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from purenoise_jax.models.activations import relu
from purenoise_jax.models.conv import Conv
from purenoise_jax.models.heads import Linear
from purenoise_jax.models.places import Mix, unmixed

HE_FAN_IN = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
# PyTorch's padding=1; "SAME" would pad a strided convolution on one side only.
PAD_1 = ((1, 1), (1, 1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut that subsamples and pads channels with zeros."""

    width: int
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(
        self, x: jax.Array, noise_mask: jax.Array | None, valid: jax.Array | None
    ) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, width]."""
        y = self.conv(self.width, strides=(self.stride, self.stride), name="conv1")(x)
        y = self.norm(name="bn1", relu=True)(y, noise_mask, valid)
        y = self.conv(self.width, name="conv2")(y)
        y = self.norm(name="bn2")(y, noise_mask, valid)
        extra = self.width - x.shape[-1]
        shortcut = x[:, :: self.stride, :: self.stride]
        shortcut = jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))
        return relu(y + shortcut)


class ResNetCifar(nn.Module):
    """ResNet of depth 6n + 2 for small images.

    Attributes:
        num_classes: K.
        depth: 6n + 2.
        norm: makes a normalisation layer; called with `use_running_average`, `relu` and `name`.
        dtype: of activations and convolutions; parameters stay float32.
        head: makes a classifier, of `heads.HEADS`.
        places: the places at which `mix` is called, of `places.PLACES`.
    """

    num_classes: int
    depth: int
    norm: Callable[..., nn.Module]
    dtype: Dtype = jnp.float32
    head: Callable[..., nn.Module] = Linear
    places: ClassVar[Sequence[str]] = ("input", "stage1", "stage2", "stage3", "features")

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        noise_mask: jax.Array | None = None,
        valid: jax.Array | None = None,
        *,
        train: bool,
        mix: Mix = unmixed,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Classifies images.

        Args:
            images: [B, H, W, C], normalised.
            noise_mask: bool[B], True = pure noise; None = no row is.
            valid: bool[B], True = a real row; None = all are.
            train: True uses batch moments and updates `batch_stats`; False uses running statistics.
            mix: called at each of `places`, see `places.Mix`; the default changes nothing.

        Returns:
            logits [B, K] and {"features": the pooled activations [B, 64]}, both float32.
        """
        conv = partial(
            Conv,
            kernel_size=(3, 3),
            padding=PAD_1,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=HE_FAN_IN,
        )
        norm = partial(self.norm, use_running_average=not train)
        x = conv(16, name="conv0")(mix("input", images).astype(self.dtype))
        x = norm(name="bn0", relu=True)(x, noise_mask, valid)
        for stage, width in enumerate((16, 32, 64), start=1):
            for block in range((self.depth - 2) // 6):
                stride = 2 if stage > 1 and block == 0 else 1
                name = f"stage{stage}_block{block}"
                x = BasicBlock(width, stride, conv, norm, name=name)(x, noise_mask, valid)
            x = mix(f"stage{stage}", x)
        features = mix("features", pool(x))
        logits = self.head(self.num_classes, HE_FAN_IN, name="head")(features)
        return logits, {"features": features}


def pool(x: jax.Array) -> jax.Array:
    """Global average pooling [B, H, W, C] -> [B, C], accumulated in float32 or wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))
