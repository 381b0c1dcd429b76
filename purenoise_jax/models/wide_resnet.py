"""The Wide ResNets of the pure-noise papers.

Source: Zagoruyko and Komodakis 2016, in the variant of the published reproduction (Lee and Lee
2023): dropout directly after the first convolution of a block, and a shortcut convolution of the
block's input before normalisation. WRN-28-10 has 36,479,194 parameters with ten classes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from purenoise_jax.models.conv import Conv
from purenoise_jax.models.dropout import Dropout
from purenoise_jax.models.heads import Linear
from purenoise_jax.models.places import Mix, unmixed
from purenoise_jax.models.resnet_cifar import PAD_1, pool

HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class WideBlock(nn.Module):
    """Norm, ReLU, 3x3 convolution, dropout, norm, ReLU, 3x3 convolution, plus a shortcut."""

    width: int
    stride: int
    dropout_rate: float
    train: bool
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(
        self, x: jax.Array, noise_mask: jax.Array | None, valid: jax.Array | None
    ) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, width]."""
        strides = (self.stride, self.stride)
        y = self.norm(name="bn1", relu=True)(x, noise_mask, valid)
        y = self.conv(self.width, (3, 3), padding=PAD_1, strides=strides, name="conv1")(y)
        y = Dropout(self.dropout_rate, deterministic=not self.train)(y)
        y = self.norm(name="bn2", relu=True)(y, noise_mask, valid)
        y = self.conv(self.width, (3, 3), padding=PAD_1, name="conv2")(y)
        if x.shape[-1] != self.width or self.stride != 1:
            x = self.conv(self.width, (1, 1), padding="VALID", strides=strides, name="shortcut")(x)
        return y + x


class WideResNet(nn.Module):
    """Pre-activation wide residual network of depth 6n + 4.

    Attributes:
        num_classes: K.
        depth: 6n + 4.
        widen: width factor.
        norm: makes a normalisation layer; called with `use_running_average`, `relu` and `name`.
        dropout_rate: share of activations dropped in training, noise rows included; needs the
            "dropout" key.
        dtype: of activations and convolutions; parameters stay float32.
        head: makes a classifier, of `heads.HEADS`.
        places: the places at which `mix` is called, of `places.PLACES`.
    """

    num_classes: int
    depth: int
    widen: int
    norm: Callable[..., nn.Module]
    dropout_rate: float = 0.3
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
            train: True uses dropout and batch moments, and updates `batch_stats`; False uses
                running statistics.
            mix: called at each of `places`, see `places.Mix`; the default changes nothing.

        Returns:
            logits [B, K] and {"features": the pooled activations [B, 64 * widen]}, both float32.
        """
        conv = partial(Conv, use_bias=False, dtype=self.dtype, kernel_init=HE_FAN_OUT)
        norm = partial(self.norm, use_running_average=not train)
        x = mix("input", images).astype(self.dtype)
        x = conv(16, (3, 3), padding=PAD_1, name="conv0")(x)
        for stage, width in enumerate((16, 32, 64), start=1):
            for block in range((self.depth - 4) // 6):
                stride = 2 if stage > 1 and block == 0 else 1
                x = WideBlock(
                    width * self.widen,
                    stride,
                    self.dropout_rate,
                    train,
                    conv,
                    norm,
                    name=f"stage{stage}_block{block}",
                )(x, noise_mask, valid)
            x = mix(f"stage{stage}", x)
        x = norm(name="bn_final", relu=True)(x, noise_mask, valid)
        features = mix("features", pool(x))
        logits = self.head(self.num_classes, name="head")(features)
        return logits, {"features": features}
