"""Projectors: small networks on the features, for losses that compare two views of an image.

A projector adds outputs to those of its network and leaves the logits as they are. Its parameters
have a place of their own, so the network beside it has the parameters that it has without one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from purenoise_jax.models.conv import HE_FAN_IN
from purenoise_jax.models.heads import TORCH_UNIFORM
from purenoise_jax.models.norm import BatchNorm

# Name of a projector's parameters and statistics in those of its network.
PROJECTOR = "projector"


class Projector(nn.Module, kw_only=True):
    """A projector without its layers, which subclasses add.

    Attributes:
        head: makes a classifier like that of the network; called with `name`.
        width: length of the projection.
    """

    head: Callable[..., nn.Module]
    width: int

    def __call__(
        self, features: jax.Array, natural: jax.Array, *, train: bool
    ) -> dict[str, jax.Array]:
        """Computes outputs from the features.

        Args:
            features: f32[B, F].
            natural: bool[B], False for noise and padding, whose projections have no meaning and
                which enter no moment of a norm.
            train: True uses batch moments and updates `batch_stats`.

        Returns:
            {"projection": [B, width]} and other outputs [B, ...], float32.
        """
        raise NotImplementedError


class VICReg(Projector):
    """Three linear layers of one width, the first two with batch norm and ReLU; no bias.

    Source: Bardes et al. 2022, section 4.2 and their code. Their first two layers have a bias,
    which the norms cancel.

    DEVIATION: their width is 8192, for networks with 2048 features; those of the networks for small
    images have 64 to 640.
    """

    width: int = 2048

    @nn.compact
    def __call__(
        self, features: jax.Array, natural: jax.Array, *, train: bool
    ) -> dict[str, jax.Array]:
        """Projects features; see `Projector`."""
        x = jnp.where(natural[:, None], features, 0)
        for i in (1, 2):
            x = nn.Dense(self.width, use_bias=False, kernel_init=TORCH_UNIFORM, name=f"fc{i}")(x)
            norm = BatchNorm(use_running_average=not train, relu=True, name=f"bn{i}")
            # To the norm every other row is padding, whatever the norms of the network do with it.
            x = norm(x, valid=natural)
        x = nn.Dense(self.width, use_bias=False, kernel_init=TORCH_UNIFORM, name="fc3")(x)
        return {"projection": x}


class SimCLR(Projector):
    """Two linear layers with a ReLU between them.

    Source: Chen et al. 2020, section 2.1; Shwartz-Ziv et al. 2023, their code for the sizes.

    DEVIATION: biases begin at 0; in that code they are drawn, as PyTorch does.

    Attributes:
        hidden: width of the first layer.
    """

    width: int = 128
    hidden: int = 2048

    @nn.compact
    def __call__(
        self, features: jax.Array, natural: jax.Array, *, train: bool
    ) -> dict[str, jax.Array]:
        """Projects features; see `Projector`."""
        del train
        x = jnp.where(natural[:, None], features, 0)
        x = nn.relu(nn.Dense(self.hidden, kernel_init=TORCH_UNIFORM, name="fc1")(x))
        return {"projection": nn.Dense(self.width, kernel_init=TORCH_UNIFORM, name="fc2")(x)}


class GLMC(Projector):
    """A linear projection, a linear prediction from it, and a second classifier.

    Source: Du et al. 2023, figure 2, and their code (ResNet_cifar.py), where the projector and the
    predictor are one linear layer each, without the batch norm and the hidden layer of SimSiam.

    DEVIATION: biases begin at 0; in that code they are drawn, as PyTorch does.
    """

    width: int = 128

    @nn.compact
    def __call__(
        self, features: jax.Array, natural: jax.Array, *, train: bool
    ) -> dict[str, jax.Array]:
        """Computes "projection", "prediction" [B, width] and "plain_logits" [B, K]."""
        del train
        x = jnp.where(natural[:, None], features, 0)
        projection = nn.Dense(self.width, kernel_init=HE_FAN_IN, name="projection")(x)
        prediction = nn.Dense(self.width, kernel_init=HE_FAN_IN, name="prediction")(projection)
        plain_logits = self.head(name="plain_head")(features)
        return {"projection": projection, "prediction": prediction, "plain_logits": plain_logits}


PROJECTORS: dict[str, Callable[..., nn.Module] | None] = {
    "none": None,
    "vicreg": VICReg,
    "simclr": SimCLR,
    "glmc": GLMC,
}
