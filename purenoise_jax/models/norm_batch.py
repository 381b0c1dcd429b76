"""Checks the input of a normalisation layer and brings it into one layout, [B, ..., C]."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype
from jax.typing import ArrayLike

from purenoise_jax.runtime.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class NormBatch:
    """A layer's input with rows first and features last.

    Attributes:
        x: [B, ..., C], zero in padding rows and masked-out elements.
        noise: bool[B], True = the row is pure noise; None = no row is.
        valid: bool[B], True = a real row, False = padding.
        mask: bool[B, ..., C], True = the element enters the moments; None = all of a real row do.
        features: shape of the layer's variables, of C elements.
        order: for each axis in this layout, its number in the layer's input.
        half_precision: the layer's input has a dtype of 16 bits.
        dtype: of the layer's output.
    """

    x: jax.Array
    noise: jax.Array | None
    valid: jax.Array
    mask: jax.Array | None
    features: tuple[int, ...]
    order: tuple[int, ...]
    half_precision: bool = False
    dtype: Dtype = jnp.float32

    def by_row(self, flags: jax.Array) -> jax.Array:
        """Reshapes flags bool[B] so that they broadcast over `x`."""
        return flags.reshape(-1, *(1,) * (self.x.ndim - 1))

    def to_input_layout(self, y: jax.Array) -> jax.Array:
        """Brings an array of the shape of `x` into the layout of the layer's input."""
        lead = self.x.shape[:-1]
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return y.reshape(*lead, *self.features).transpose(inverse)


def arrange(
    x: jax.Array,
    *,
    axis: int | Sequence[int],
    noise_mask: ArrayLike | None,
    valid: ArrayLike | None,
    mask: ArrayLike | None,
    dtype: Dtype,
) -> NormBatch:
    """Checks the input of a layer and brings it into the layout of `NormBatch`.

    Args:
        x: real numbers, features along `axis`, rows along the first of the other axes.
        axis: one or more axes.
        noise_mask: bool[B] or None.
        valid: bool[B] or None.
        mask: bool of the rank of `x`, broadcastable to it, or None.
        dtype: in which the layer computes.

    Raises:
        ConfigError: `axis` names no axis of `x`, or all of them.
        DataError: a mask has another shape or dtype.
    """
    order, last = _features_last(x, axis)
    transposed = x.transpose(order)
    lead, features = transposed.shape[: x.ndim - last], transposed.shape[x.ndim - last :]
    channels_last = (*lead, math.prod(features))
    noise, real = (
        _row_mask(name, flags, lead[0])
        for name, flags in (("noise_mask", noise_mask), ("valid", valid))
    )
    counted = None
    if mask is not None:
        counted = _element_mask(mask, x).transpose(order).reshape(channels_last)
    batch = NormBatch(
        x=transposed.reshape(channels_last).astype(dtype),
        noise=noise,
        valid=jnp.ones(lead[:1], bool) if real is None else real,
        mask=counted,
        features=features,
        order=order,
        half_precision=jnp.issubdtype(x.dtype, jnp.inexact) and jnp.finfo(x.dtype).bits == 16,
    )
    if real is None and counted is None:
        return batch
    chosen = batch.by_row(batch.valid)
    if counted is not None:
        chosen = counted = counted & chosen
    return dataclasses.replace(batch, x=jnp.where(chosen, batch.x, 0), mask=counted)


def _features_last(x: jax.Array, axis: int | Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Returns the axes of `x` with the feature axes last, and the number of feature axes."""
    given = np.atleast_1d(np.asarray(axis)).tolist()
    legal = all(isinstance(i, int) and -x.ndim <= i < x.ndim for i in given)
    features = sorted({i % x.ndim for i in given}) if legal else []
    others = [i for i in range(x.ndim) if i not in features]
    if not features or not others:
        raise ConfigError(
            f"axis={axis} must name feature axes of x{list(x.shape)} and leave one for its rows"
        )
    return (*others, *features), len(features)


def _row_mask(name: str, flags: ArrayLike | None, rows: int) -> jax.Array | None:
    if flags is None:
        return None
    flags = jnp.asarray(flags)
    if flags.shape != (rows,) or flags.dtype != jnp.bool_:
        raise DataError(f"{name} must be bool[{rows}], got {flags.dtype}{list(flags.shape)}")
    return flags


def _element_mask(mask: ArrayLike, x: jax.Array) -> jax.Array:
    mask = jnp.asarray(mask)
    # A mask of lower rank is refused: NumPy's rules would align bool[B] with the last axis.
    fits = mask.ndim == x.ndim and all(
        m in (1, n) for m, n in zip(mask.shape, x.shape, strict=True)
    )
    if not fits or mask.dtype != jnp.bool_:
        raise DataError(
            f"mask must be bool with an axis for each of x{list(x.shape)}, of its length or of 1, "
            f"got {mask.dtype}{list(mask.shape)}; a mask of rows is `valid`"
        )
    return jnp.broadcast_to(mask, x.shape)
