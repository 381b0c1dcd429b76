"""Networks by name, each with a choice of normalisation layer and classifier head."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from purenoise_jax.models.densenet import DenseNet
from purenoise_jax.models.heads import HEADS
from purenoise_jax.models.norm import NOISE_GRADS, AuxBatchNorm, BatchNorm, DARBatchNorm
from purenoise_jax.models.projectors import PROJECTORS
from purenoise_jax.models.rematerialization import REMATS
from purenoise_jax.models.resnet import ResNet
from purenoise_jax.models.resnet12 import ResNet12
from purenoise_jax.models.resnet_cifar import BBNResNetCifar, ResNetCifar
from purenoise_jax.models.wide_resnet import WideResNet
from purenoise_jax.runtime.errors import ConfigError, unknown

# Without the ending `_cifar`, these begin with a stem for large images.
LARGE: dict[str, Callable[..., nn.Module]] = {
    "resnet10": partial(ResNet, blocks=(1, 1, 1, 1)),
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(ResNet, blocks=(3, 4, 23, 3), bottleneck=True),
    "resnet152": partial(ResNet, blocks=(3, 8, 36, 3), bottleneck=True),
    "resnext50_32x4d": partial(
        ResNet, blocks=(3, 4, 6, 3), bottleneck=True, groups=32, group_width=4
    ),
    "densenet121": partial(DenseNet, blocks=(6, 12, 24, 16)),
}
MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet8": partial(ResNetCifar, depth=8),
    "resnet20": partial(ResNetCifar, depth=20),
    "resnet32": partial(ResNetCifar, depth=32),
    "resnet56": partial(ResNetCifar, depth=56),
    "wrn10_1": partial(WideResNet, depth=10, widen=1),
    "wrn10_2": partial(WideResNet, depth=10, widen=2),
    "wrn16_4": partial(WideResNet, depth=16, widen=4),
    "wrn28_10": partial(WideResNet, depth=28, widen=10),
    "resnet32_bbn": partial(BBNResNetCifar, depth=32),
    "resnet32_w64": partial(ResNetCifar, depth=32, width=64),
    "resnet12": ResNet12,
    **LARGE,
    **{f"{name}_cifar": partial(make, small_images=True) for name, make in LARGE.items()},
}
NORMS: dict[str, type[BatchNorm]] = {
    "bn": BatchNorm,
    "aux_bn": AuxBatchNorm,
    "dar_bn": DARBatchNorm,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def create_model(
    name: str,
    *,
    num_classes: int,
    norm: str = "dar_bn",
    noise_grad: str = "auto",
    dtype: str = "float32",
    head: str = "linear",
    projector: str = "none",
    projector_width: int = 0,
    dropout: float = -1.0,
    remat: str = "none",
) -> nn.Module:
    """Creates a model.

        >>> import jax, jax.numpy as jnp
        >>> model = create_model("resnet8", num_classes=10, norm="dar_bn")
        >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
        >>> logits, outputs = model.apply(variables, jnp.zeros((4, 32, 32, 3)), train=False)

    `model.apply(variables, images, noise_mask=None, valid=None, train=...)` returns
    `(logits, {"features": ...})`; a training call needs `mutable=["batch_stats"]` and, for a model
    with dropout, `rngs={"dropout": key}`. With `mix=` a function (place, activations) changes the
    activations at each of `model.places`.

    Args:
        name: one of `MODELS`.
        num_classes: K.
        norm: one of `NORMS`.
        noise_grad: the part of a noise row's gradient that passes through the norms, one of
            `NOISE_GRADS`; "auto" is each norm's default, as in the papers: "affine_stop" with
            "dar_bn", otherwise "none".
        dtype: "float32" or "bfloat16", of activations and convolutions. Parameters, moments,
            statistics, features and the head's product are float32.
        head: one of `HEADS`.
        projector: one of `PROJECTORS`; the outputs beside the features are those of the projector.
        projector_width: length of the projection; 0 = the projector's default.
        dropout: share of the activations that are dropped in training, in [0, 1); -1 = that of the
            network, 0.3 in wide ResNets. Others drop none.
        remat: activations that the backward pass computes again to save memory, one of `REMATS`:
            "none", those within the norms, or those within the blocks of all stages.

    Raises:
        ConfigError: a name is unknown, `num_classes` is below 1, a width is given without a
            projector, or dropout for a network that has none.
    """
    for field, value, legal in (
        ("model.name", name, MODELS),
        ("model.norm", norm, NORMS),
        ("model.noise_grad", noise_grad, ("auto", *NOISE_GRADS)),
        ("dtype", dtype, DTYPES),
        ("model.head", head, HEADS),
        ("model.projector", projector, PROJECTORS),
        ("model.remat", remat, REMATS),
    ):
        if value not in legal:
            raise unknown(field, value, legal)
    if num_classes < 1:
        raise ConfigError(f"num_classes={num_classes} must be at least 1")
    arguments: dict[str, Any] = {"dtype": DTYPES[dtype]}
    if noise_grad != "auto":
        arguments["noise_grad"] = noise_grad
    # Only passed if they are not the defaults, because some networks have no such choice.
    chosen: dict[str, Any] = {} if head == "linear" else {"head": HEADS[head]}
    if remat != "none":
        chosen["remat"] = remat
    make_projector = PROJECTORS[projector]
    if make_projector is not None:
        width = {"width": projector_width} if projector_width else {}
        chosen["projector"] = partial(make_projector, **width)
    elif projector_width:
        raise ConfigError(
            f"model.projector_width={projector_width} has no effect with model.projector=none; "
            "legal: 0, or another projector"
        )
    model = MODELS[name](
        num_classes=num_classes,
        norm=partial(NORMS[norm], **arguments),
        dtype=DTYPES[dtype],
        **chosen,
    )
    if dropout < 0:
        return model
    if hasattr(model, "dropout_rate"):
        return model.clone(dropout_rate=dropout)
    if dropout:
        raise ConfigError(
            f"model.dropout={dropout:g} has no effect with model.name={name}, which drops no "
            "activations; legal: -1, 0, or a wide ResNet"
        )
    return model


__all__ = [
    "HEADS",
    "MODELS",
    "NORMS",
    "PROJECTORS",
    "REMATS",
    "AuxBatchNorm",
    "BatchNorm",
    "DARBatchNorm",
    "create_model",
]
