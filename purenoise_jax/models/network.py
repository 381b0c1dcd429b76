"""The frame of every network: stages of blocks, pooled features, and a classifier head."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer

from purenoise_jax.models.heads import TORCH_UNIFORM, Linear
from purenoise_jax.models.places import Mix, unmixed
from purenoise_jax.models.pooling import global_average
from purenoise_jax.models.projectors import PROJECTOR
from purenoise_jax.models.rematerialization import rematerialized

# noise_mask and valid of a batch, the arguments of a norm after its input.
Rows = tuple[jax.Array | None, jax.Array | None]


class Network(nn.Module, kw_only=True):
    """A network without its stages, which subclasses add.

    Attributes:
        num_classes: K.
        norm: makes a normalisation layer; called with `use_running_average`, `relu` and `name`.
        dtype: of activations and convolutions; parameters stay float32.
        head: makes a classifier, of `heads.HEADS`.
        head_init: initialiser of the classifier's weights.
        projector: makes a `projectors.Projector`; called with `head` and `name`. None = there is
            none.
        remat: activations that the backward pass computes again, of `rematerialization.REMATS`.
        places: the places at which `mix` is called, of `places.PLACES`.
    """

    num_classes: int
    norm: Callable[..., nn.Module]
    dtype: Dtype = jnp.float32
    head: Callable[..., nn.Module] = Linear
    head_init: Initializer = TORCH_UNIFORM
    projector: Callable[..., nn.Module] | None = None
    remat: str = "none"
    places: ClassVar[Sequence[str]] = ("input", "stage1", "stage2", "stage3", "stage4", "features")

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
            train: True uses batch moments, and dropout if the network has it, and updates
                `batch_stats`; False uses running statistics.
            mix: called at each of `places`, see `places.Mix`; the default changes nothing.

        Returns:
            logits [B, K] and {"features": the pooled activations [B, F]}, with the outputs of the
            projector, all float32.

        Raises:
            ConfigError: the images are too small for the network.
        """
        norm = rematerialized(self.norm) if self.remat == "norm" else self.norm
        norm = partial(norm, use_running_average=not train)
        x = mix("input", images).astype(self.dtype)
        x = self.stages(x, (noise_mask, valid), norm, train=train, mix=mix)
        features = mix("features", global_average(x))
        head = partial(self.head, self.num_classes, self.head_init)
        logits, outputs = head(name="head")(features), {"features": features}
        if self.projector is not None:
            projector = self.projector(head=head, name=PROJECTOR)
            natural = _natural(len(features), noise_mask, valid)
            outputs |= projector(features, natural, train=train)
        return logits, outputs

    def block(self, kind: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        """Returns the class of a block, or a partial of one, as `remat` has it."""
        return rematerialized(kind) if self.remat == "block" else kind

    def stages(
        self,
        x: jax.Array,
        rows: Rows,
        norm: Callable[..., nn.Module],
        *,
        train: bool,
        mix: Mix,
    ) -> jax.Array:
        """Computes the activations [B, H', W', F] whose means are the features.

        Args:
            x: [B, H, W, C], the normalised images in `dtype`.
            rows: for every norm, behind its input.
            norm: makes a normalisation layer; called with `relu` and `name`.
            train: True uses dropout.
            mix: to be called at the end of each stage.
        """
        raise NotImplementedError


def _natural(rows: int, noise_mask: jax.Array | None, valid: jax.Array | None) -> jax.Array:
    """The rows that are neither noise nor padding, bool[B]."""
    natural = jnp.ones(rows, bool) if valid is None else valid
    return natural if noise_mask is None else natural & ~noise_mask
