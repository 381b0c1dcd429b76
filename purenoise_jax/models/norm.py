"""Batch normalisation for batches that mix natural images, pure noise images and padding.

The three layers share one call signature and the variable names of `flax.linen.BatchNorm`, so one
can stand where another stood and checkpoints interchange.

How the moments are made: every image is reduced once to its per-channel mean and variance
(`image_moments`, [B, C]); the masks then only weight these tiny arrays (`pooled_moments`), and the
activations are touched a second time by one fused multiply-add. No rows are gathered or scattered,
shapes stay fixed, and over a batch that is sharded across devices the same sums are global without
any axis name.

Source: Zada, Benou and Irani 2022, section 4 (DAR-BN, equations 8-13, listing 1); Xie et al. 2020
for the auxiliary layer.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jax.typing import ArrayLike

from purenoise_jax.errors import unknown
from purenoise_jax.xla import materialize

# Where the auxiliary layer of `AuxBatchNorm` may come from that a checkpoint does not have.
AUX_STARTS = ("fresh", "copy")
AUX_PREFIX = "aux_"
NOISE_GRADS = ("affine_stop", "full_stop", "none")


def image_moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of every image over its spatial positions.

    Sums are taken around the image's first pixel, so that activations with a mean far from zero
    lose little to cancellation although the data is read only once.

    Args:
      x: [B, ..., C], float32 or wider.

    Returns:
      mean [B, C] and variance [B, C], the dtype of `x`. The variance may be below zero by rounding.
    """
    rows = x.reshape(x.shape[0], -1, x.shape[-1])
    # The result does not depend on the shift, so neither does the gradient.
    shift = jax.lax.stop_gradient(rows[:, :1])
    # Two differences, so that each is part of its sum and neither is written to memory.
    mean = (rows - materialize(shift)).mean(axis=1)
    return mean + shift[:, 0], jnp.square(rows - shift).mean(axis=1) - jnp.square(mean)


def pooled_moments(
    mean: jax.Array, var: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Moments of the union of the selected images, from each image's own moments.

    Args:
      mean: [B, C], per-image means.
      var: [B, C], per-image biased variances.
      weight: bool[B], True for the images that count. May select none: the moments are then zero.

    Returns:
      mean [C], biased variance [C] (never negative), and the number of selected images [].
    """
    weight = weight.astype(mean.dtype)
    count = weight.sum()
    share = (weight / jnp.maximum(count, 1))[:, None]
    pooled_mean = (share * mean).sum(axis=0)
    spread = var + jnp.square(mean - pooled_mean[None])
    return pooled_mean, jnp.maximum((share * spread).sum(axis=0), 0), count


def standardize(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
    """Centres, scales and shifts with moments and affine parameters that may differ by row.

    Args:
      x: [B, ..., C].
      mean: [B, C] or [1, C].
      var: likewise.
      scale: likewise.
      bias: likewise.
      epsilon: added to the variance.

    Returns:
      (x - mean) / sqrt(var + epsilon) * scale + bias, [B, ..., C].
    """
    between = (1,) * (x.ndim - 2)

    def spread(row: jax.Array) -> jax.Array:
        return row.reshape(row.shape[0], *between, row.shape[1])

    gain = jax.lax.rsqrt(var + epsilon) * scale
    # In memory: else their choice by row, down to the draw of the mask, is made again for every
    # activation. By row even if all rows share them: else a CPU sums their gradients on one thread.
    mean, gain, bias = materialize((mean, gain, bias), rows=x.shape[0])
    return (x - spread(mean)) * spread(gain) + spread(bias)


class BatchNorm(nn.Module):
    """Standard batch normalisation over all real rows, natural and noise alike.

    The paper's "Standard BN" baseline: noise images enter the batch moments and the running
    statistics.

    Attributes:
      noise_grad: what of a noise row's loss flows back through this layer: "none" = all of it
        (nothing is stopped), the default here as in the papers' baselines; "affine_stop" = all but
        to the affine parameters; "full_stop" = nothing.
      momentum: share of the old running statistic that is kept (0.9 here is PyTorch's 0.1).
      epsilon: added to the variance.
      dtype: of the output; None promotes the input with `param_dtype`. Moments, statistics and
        parameters are float32 (wider if the input is) whatever this is.
      param_dtype: of the parameters and running statistics.
      use_running_average: True for evaluation; may be given at the call instead.
      scale_init, bias_init: initialisers of the affine parameters.

    The running variance is the unbiased one, as PyTorch's; `flax.linen.BatchNorm` keeps the biased.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_running_average: bool | None = None
    scale_init: Initializer = nn.initializers.ones
    bias_init: Initializer = nn.initializers.zeros
    noise_grad: str = "none"

    image_moments = staticmethod(image_moments)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        noise_mask: jax.Array | None = None,
        valid: jax.Array | None = None,
        use_running_average: bool | None = None,
    ) -> jax.Array:
        """Normalises a batch.

        Args:
          x: [B, ..., C] activations, any float dtype.
          noise_mask: bool[B], True = the row is pure noise; None = no row is.
          valid: bool[B], True = a real row, False = padding, which enters no moment and whose
            output means nothing; None = all rows are real.
          use_running_average: True normalises with the running statistics and updates nothing.

        Returns:
          [B, ..., C] of `dtype`.

        Raises:
          ConfigError: `noise_grad` is unknown.
          ValueError: a mask has another shape or dtype.
        """
        if self.noise_grad not in NOISE_GRADS:
            raise unknown("noise_grad", self.noise_grad, NOISE_GRADS)
        if use_running_average is None:
            use_running_average = bool(self.use_running_average)
        noise_mask, valid = (_check_mask(mask, x.shape[0]) for mask in (noise_mask, valid))
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        everything = jnp.ones(x.shape[:1], bool) if valid is None else valid
        y = self.route(wide, noise_mask, everything, use_running_average)
        if self.noise_grad == "full_stop" and noise_mask is not None:
            rows = noise_mask.reshape(-1, *(1,) * (x.ndim - 1))
            y = jnp.where(rows, jax.lax.stop_gradient(y), y)
        return y.astype(self.dtype or jnp.promote_types(x.dtype, self.param_dtype))

    def route(
        self, x: jax.Array, noise_mask: jax.Array | None, valid: jax.Array, average: bool
    ) -> jax.Array:
        """Decides which rows share moments; the only part in which the layers differ."""
        scale, bias = self.affine(x.shape[-1])
        noise_scale, noise_bias = self.of_noise(scale, bias)
        mean, var = self.moments(x, lambda: self.image_moments(x), valid, average)
        if noise_mask is None or noise_scale is scale:
            scale, bias = scale[None], bias[None]
        else:
            pick = _picker(noise_mask)
            scale, bias = pick(noise_scale, scale), pick(noise_bias, bias)
        return standardize(x, mean[None], var[None], scale, bias, self.epsilon)

    def affine(self, channels: int, prefix: str = "") -> tuple[jax.Array, jax.Array]:
        """Creates or reads the affine parameters, [C] each."""
        shape = (channels,)
        return (
            self.param(prefix + "scale", self.scale_init, shape, self.param_dtype),
            self.param(prefix + "bias", self.bias_init, shape, self.param_dtype),
        )

    def of_noise(self, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Affine parameters as noise rows see them: constants where they must not learn."""
        if self.noise_grad == "affine_stop":
            return jax.lax.stop_gradient((scale, bias))
        return scale, bias

    def moments(
        self,
        x: jax.Array,
        per_image: Callable[[], tuple[jax.Array, jax.Array]],
        weight: jax.Array,
        average: bool,
        prefix: str = "",
    ) -> tuple[jax.Array, jax.Array]:
        """The moments [C] to normalise with; in training also updates the running statistics.

        Without a selected row the running statistics stay as they are.
        """
        shape = (x.shape[-1],)
        running_mean = self.variable(
            "batch_stats", prefix + "mean", jnp.zeros, shape, self.param_dtype
        )
        running_var = self.variable(
            "batch_stats", prefix + "var", jnp.ones, shape, self.param_dtype
        )
        if average:
            return running_mean.value, running_var.value
        image_mean, image_var = per_image()
        mean, var, images = pooled_moments(image_mean, image_var, weight)
        if not self.is_initializing():
            # In float from the start: rows x positions can pass the range of an int32.
            count = images * (x.size / (x.shape[0] * x.shape[-1]))
            unbiased = var * count / jnp.maximum(count - 1, 1)
            for running, new in ((running_mean, mean), (running_var, unbiased)):
                mixed = self.momentum * running.value + (1 - self.momentum) * new
                running.value = jnp.where(images > 0, mixed, running.value).astype(self.param_dtype)
        return mean, var


class AuxBatchNorm(BatchNorm):
    """Auxiliary batch normalisation: noise rows get a second, complete layer of their own.

    Natural rows are normalised exactly as if the noise rows were not there. Noise rows have their
    own moments, running statistics (`aux_mean`, `aux_var`) and affine parameters (`aux_scale`,
    `aux_bias`). The auxiliary variables exist whether or not a noise mask is given.

    `noise_grad` is "none" by default, as in the papers; "affine_stop" leaves the auxiliary affine
    parameters without a gradient, "full_stop" lets nothing of a noise row's loss through.

    Source: Xie et al. 2020; Zada et al. 2022, section 6 (normalisation ablation).
    """

    def route(
        self, x: jax.Array, noise_mask: jax.Array | None, valid: jax.Array, average: bool
    ) -> jax.Array:
        """Routes noise rows through the auxiliary layer."""
        noise = jnp.zeros_like(valid) if noise_mask is None else noise_mask
        channels = x.shape[-1]
        scale, bias = self.affine(channels)
        noise_scale, noise_bias = self.of_noise(*self.affine(channels, AUX_PREFIX))
        per_image = _once(lambda: self.image_moments(x))
        mean, var = self.moments(x, per_image, valid & ~noise, average)
        noise_mean, noise_var = self.moments(x, per_image, valid & noise, average, AUX_PREFIX)
        pick = _picker(noise)
        return standardize(
            x,
            pick(noise_mean, mean),
            pick(noise_var, var),
            pick(noise_scale, scale),
            pick(noise_bias, bias),
            self.epsilon,
        )


class DARBatchNorm(BatchNorm):
    """Distribution-aware routing batch normalisation (DAR-BN).

    Natural rows are normalised exactly as if the noise rows were not there, and they alone update
    `batch_stats`. Noise rows are normalised by their own moments, then scaled and shifted by the
    affine parameters that the natural rows learn. In evaluation natural rows use the running
    statistics; noise rows, which have none, always use the moments of the noise in the batch.

    Attributes:
      noise_grad: what of a noise row's loss flows back through this layer. The paper says two
        things, and a third is in use:
        "affine_stop" (default; section 4, equations 12 and 13): the affine parameters are constants
        to noise rows, while the gradient goes on through the activations and the noise moments;
        "full_stop" (listing 1, and the published reproduction): nothing flows back, so in the
        networks of the paper noise images train the last linear layer only;
        "none": nothing is stopped.

    Source: Zada et al. 2022, section 4, equations 8-13, listing 1. Equations 6 and 12 subtract the
    shift; like the paper's code, this layer adds it.
    """

    noise_grad: str = "affine_stop"

    def route(
        self, x: jax.Array, noise_mask: jax.Array | None, valid: jax.Array, average: bool
    ) -> jax.Array:
        """Routes noise rows past the affine parameters, or past the gradient altogether."""
        if noise_mask is None:
            return super().route(x, None, valid, average)
        scale, bias = self.affine(x.shape[-1])
        noise_scale, noise_bias = self.of_noise(scale, bias)
        per_image = _once(lambda: self.image_moments(x))
        mean, var = self.moments(x, per_image, valid & ~noise_mask, average)
        image_mean, image_var = per_image()
        noise_mean, noise_var, _ = pooled_moments(image_mean, image_var, valid & noise_mask)
        pick = _picker(noise_mask)
        return standardize(
            x,
            pick(noise_mean, mean),
            pick(noise_var, var),
            pick(noise_scale, scale),
            pick(noise_bias, bias),
            self.epsilon,
        )


def _check_mask(mask: ArrayLike | None, rows: int) -> jax.Array | None:
    if mask is None:
        return None
    mask = jnp.asarray(mask)
    if mask.shape != (rows,) or mask.dtype != jnp.bool_:
        raise ValueError(f"a mask must be bool[{rows}], got {mask.dtype}{list(mask.shape)}")
    return mask


def _picker(noise: jax.Array) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Gives every row [B, C] its own copy of a noise [C] or a natural [C] quantity."""
    return lambda for_noise, for_natural: jnp.where(
        noise[:, None], for_noise[None], for_natural[None]
    )


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
    """Computes on first use, so that evaluation without noise reads no activation twice."""
    made: list[Any] = []

    def get() -> Any:
        if not made:
            made.append(make())
        return made[0]

    return get
