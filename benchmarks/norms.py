"""Other ways to compute DAR-BN, for a comparison of speed and accuracy.

All give the same outputs and gradients; the two with masks over all activations do not unbias the
running variance.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from purenoise_jax.models import BatchNorm, DARBatchNorm
from purenoise_jax.models.moments import Affine, Moments, standardize
from purenoise_jax.models.norm import Pair
from purenoise_jax.models.norm_batch import NormBatch


class MaskedSums(DARBatchNorm):
    """Sums over all activations, weighted by each mask in turn; raw second moments."""

    def route(self, batch: NormBatch, average: bool) -> jax.Array:
        """Normalises with E[x^2] - E[x]^2 of the masked rows."""
        x, axes = batch.x, tuple(range(1, batch.x.ndim - 1))

        def moments(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
            weight = batch.by_row(rows.astype(x.dtype))
            count = jnp.maximum(weight.sum() * (x.size / (x.shape[0] * x.shape[-1])), 1)
            mean = (x * weight).sum((0, *axes)) / count
            return mean, (jnp.square(x) * weight).sum((0, *axes)) / count - jnp.square(mean)

        noise = jnp.zeros_like(batch.valid) if batch.noise is None else batch.noise
        natural, for_noise = self._affines(batch, moments, noise, average)

        def by_row(natural: jax.Array, for_noise: jax.Array) -> jax.Array:
            rows = jnp.where(noise[:, None], for_noise[None], natural[None])
            return rows.reshape(len(rows), *(1,) * len(axes), -1)

        mean, gain, bias = map(by_row, natural, for_noise)
        y = (x - mean) * gain + bias
        return (nn.relu(y) if self.relu else y).astype(batch.dtype)

    def _affines(
        self,
        batch: NormBatch,
        moments: Callable[[jax.Array], Pair],
        noise: jax.Array,
        average: bool,
    ) -> tuple[Affine, Affine]:
        """The normalisations of natural and of noise rows; in training updates the statistics."""
        affine, running = self.affine(batch), self.running(batch)
        natural = moments(batch.valid & ~noise)
        if average:
            natural = (running[0].value.reshape(-1), running[1].value.reshape(-1))
        else:
            mean, var = (each[None] for each in natural)
            self.update(running, Moments(mean, var, var, jnp.full((1, 1), 2.0)), 0)

        def fold(mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array) -> Affine:
            return Affine(mean, jax.lax.rsqrt(var + self.epsilon) * scale, bias)

        for_noise = moments(batch.valid & noise)
        return fold(*natural, *affine), fold(*for_noise, *self.for_noise(affine))


class TwoOutputs(MaskedSums):
    """Normalises all rows twice, with the noise and with the natural moments, and selects."""

    def route(self, batch: NormBatch, average: bool) -> jax.Array:
        """Selects between two normalised batches."""
        x = batch.x
        noise = jnp.zeros_like(batch.valid) if batch.noise is None else batch.noise
        axes = tuple(range(x.ndim - 1))

        def moments(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
            where = jnp.broadcast_to(batch.by_row(rows), x.shape)
            mean = jnp.mean(x, axes, where=where)
            return mean, jnp.mean(
                jnp.square(x - mean.reshape(*(1,) * (x.ndim - 1), -1)), axes, where=where
            )

        natural, for_noise = (
            standardize(x, None, batch.valid, affine, relu=self.relu, dtype=batch.dtype)
            for affine in self._affines(batch, moments, noise, average)
        )
        return jnp.where(batch.by_row(noise), for_noise, natural)


FORMS: dict[str, Callable[..., BatchNorm]] = {
    "dar_bn: per-image sums": DARBatchNorm,
    "dar_bn: per-image, two passes": partial(DARBatchNorm, use_fast_variance=False),
    "dar_bn: masked sums": MaskedSums,
    "dar_bn: two outputs": TwoOutputs,
}


def errors(form: Callable[..., BatchNorm], mean: float, dtype: str) -> float:
    """Largest difference from a float64 two-pass reference on natural rows.

    Args:
        form: makes the layer.
        mean: mean of the activations, whose standard deviation is 1.
        dtype: dtype of the activations.
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
