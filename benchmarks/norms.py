"""Other ways to compute DAR-BN, for the table of what was tried.

All give the same outputs and gradients; the two with masks over all activations do not bother to
unbias the running variance.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.models import BatchNorm, DARBatchNorm
from purenoise_jax.models.norm import standardize


class MaskedSums(DARBatchNorm):
    """Sums over all activations, once weighted by each mask; raw second moments."""

    def route(self, x: jax.Array, noise_mask: Any, valid: jax.Array, average: bool) -> jax.Array:
        """Normalises with E[x^2] - E[x]^2 of the masked rows."""
        scale, bias = self.affine(x.shape[-1])
        axes = tuple(range(1, x.ndim - 1))

        def moments(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
            weight = rows.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
            count = jnp.maximum(weight.sum() * (x.size / (x.shape[0] * x.shape[-1])), 1)
            mean = (x * weight).sum((0, *axes)) / count
            return mean, (jnp.square(x) * weight).sum((0, *axes)) / count - jnp.square(mean)

        noise = jnp.zeros_like(valid) if noise_mask is None else noise_mask
        mean, var = self._kept(*moments(valid & ~noise), average)
        noise_mean, noise_var = moments(valid & noise)
        fixed_scale, fixed_bias = jax.lax.stop_gradient((scale, bias))

        def pick(a: jax.Array, b: jax.Array) -> jax.Array:
            return jnp.where(noise[:, None], a[None], b[None])

        return standardize(
            x,
            pick(noise_mean, mean),
            pick(noise_var, var),
            pick(fixed_scale, scale),
            pick(fixed_bias, bias),
            self.epsilon,
        )

    def _kept(self, mean: jax.Array, var: jax.Array, average: bool) -> tuple[jax.Array, jax.Array]:
        """Reads the running statistics, or mixes the new moments in."""
        per_image = (
            jnp.broadcast_to(mean, (1, *mean.shape)),
            jnp.broadcast_to(var, (1, *var.shape)),
        )
        return self.moments(mean[None], lambda: per_image, jnp.ones(1, bool), average)


class TwoOutputs(MaskedSums):
    """Normalises the whole batch twice, for noise and for natural rows, and selects."""

    def route(self, x: jax.Array, noise_mask: Any, valid: jax.Array, average: bool) -> jax.Array:
        """Selects between two normalised batches."""
        noise = jnp.zeros_like(valid) if noise_mask is None else noise_mask
        scale, bias = self.affine(x.shape[-1])
        axes = tuple(range(x.ndim - 1))
        between = (-1, *(1,) * (x.ndim - 1))

        def moments(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
            where = jnp.broadcast_to(rows.reshape(between), x.shape)
            mean = jnp.mean(x, axes, where=where)
            return mean, jnp.mean(
                jnp.square(x - mean.reshape(*(1,) * (x.ndim - 1), -1)), axes, where=where
            )

        def apply(mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
            return standardize(x, mean[None], var[None], scale[None], bias[None], self.epsilon)

        natural = apply(*self._kept(*moments(valid & ~noise), average), scale, bias)
        fixed = jax.lax.stop_gradient((scale, bias))
        return jnp.where(noise.reshape(between), apply(*moments(valid & noise), *fixed), natural)


class TwoPasses(DARBatchNorm):
    """As the project's layer, but each image's variance around its own mean: a second reading."""

    @staticmethod
    def image_moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Replaces the moments of the images."""
        rows = x.reshape(x.shape[0], -1, x.shape[-1])
        mean = rows.mean(axis=1)
        return mean, jnp.square(rows - mean[:, None]).mean(axis=1)


FORMS: dict[str, type[BatchNorm]] = {
    "dar_bn: per-image sums": DARBatchNorm,
    "dar_bn: per-image, two passes": TwoPasses,
    "dar_bn: masked sums": MaskedSums,
    "dar_bn: two outputs": TwoOutputs,
}


def errors(form: type[BatchNorm], mean: float, dtype: str) -> float:
    """Largest difference from a float64 two-pass reference on natural rows.

    Args:
      form: the layer.
      mean: of the activations, whose standard deviation is 1.
      dtype: in which they arrive.
    """
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(mean, 1, (32, 16, 16, 16)), dtype)
    noise = np.arange(32) % 4 == 1
    layer = form(dtype=jnp.float32)
    variables = layer.init(jax.random.key(0), x)
    y, _ = layer.apply(variables, x, jnp.asarray(noise), mutable=["batch_stats"])
    exact = np.asarray(x.astype(jnp.float32), np.float64)[~noise]
    centred = exact - exact.mean((0, 1, 2))
    expected = centred / np.sqrt(np.square(centred).mean((0, 1, 2)) + 1e-5)
    return float(np.abs(np.asarray(y, np.float64)[~noise] - expected).max())
