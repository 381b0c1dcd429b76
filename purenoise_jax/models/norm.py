"""Batch normalisation for batches that mix natural images, pure noise images and padding.

The three layers share one call signature. Their arguments and variable names are those of
`flax.linen.BatchNorm`, so each can replace another and checkpoints interchange.

`models/moments.py` computes the moments. Over a batch that `jax.jit` shards across devices they are
global without an axis name. A function that sees only a part of the batch (under `jax.pmap`,
`jax.shard_map` or a named `jax.vmap`) needs `axis_name` to make them global.

Source: Zada, Benou and Irani 2022, section 3.2 (equations 5-15), algorithm 2 and listing 1; Xie et
al. 2020 for the auxiliary layer.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer

from purenoise_jax.models.moments import (
    Affine,
    Moments,
    group_moments,
    on_one_device,
    standardize,
)
from purenoise_jax.models.norm_batch import NormBatch, arrange
from purenoise_jax.runtime.errors import DataError, unknown

# Ways to initialise auxiliary layers that are missing from a checkpoint.
AUX_STARTS = ("fresh", "copy")
AUX_PREFIX = "aux_"
NOISE_GRADS = ("affine_stop", "full_stop", "none")
# Mean and variance, or scale and bias.
Pair = tuple[jax.Array, jax.Array]
# The variables of the running mean and variance.
Running = tuple[nn.Variable[Any], nn.Variable[Any]]


class BatchNorm(nn.Module):
    """Standard batch normalisation: natural and noise rows share all moments.

    The paper's "Standard BN" baseline (equations 5-9): noise images enter the batch moments and the
    running statistics.

        >>> import jax, jax.numpy as jnp
        >>> layer, x = BatchNorm(use_running_average=False), jnp.ones((8, 4, 4, 3))
        >>> variables = layer.init(jax.random.key(0), x)
        >>> y, updated = layer.apply(variables, x, mutable=["batch_stats"])

    All attributes but the last three are those of `flax.linen.BatchNorm`, in its order. Two of the
    defaults differ: Flax has a `momentum` of 0.99 and keeps the biased running variance.
    `partial(BatchNorm, momentum=0.99, unbiased=False)` has Flax's defaults.

    Attributes:
        use_running_average: True normalises with the running statistics, as in evaluation. The
            argument of the same name of a call takes precedence. None in both means False.
        axis: the feature axis or axes of the input. Rows lie along the first of the other axes.
        momentum: share of the old running statistic that is kept (0.9 here is PyTorch's 0.1).
        epsilon: added to the variance.
        dtype: of the output; None promotes the input with `param_dtype`. Moments, statistics and
            parameters are float32 (wider if the input is), independently of it.
        param_dtype: of the parameters; of the running statistics too unless it is below float32.
        use_bias: False leaves out the shift.
        use_scale: False leaves out the scale.
        bias_init: initialiser of the shift.
        scale_init: initialiser of the scale.
        axis_name: name of the axis along which `jax.pmap`, `jax.shard_map` or `jax.vmap` has
            divided the batch; the moments are then those of all rows along it. None: the moments
            are those of the rows of this call. Not needed for arrays that `jax.jit` shards.
        axis_index_groups: groups of indices along `axis_name` that share moments; None = all do.
        use_fast_variance: True reads the activations once for both moments; see `image_moments`.
        force_float32_reductions: False computes moments in the dtype of the input, and keeps
            statistics in `param_dtype`.
        unbiased: True keeps the unbiased running variance, as PyTorch does; False the biased one.
        noise_grad: the part of a noise row's gradient that passes through this layer: "none" stops
            nothing (the default here, as in the papers' baselines); "affine_stop" stops it at the
            affine parameters; "full_stop" stops all of it.
        relu: True applies a ReLU to the output. Its gradient is that of a ReLU after the layer, in
            a form that a GPU's program computes in fewer passes over the activations.
    """

    use_running_average: bool | None = None
    axis: int | Sequence[int] = -1
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = nn.initializers.zeros
    scale_init: Initializer = nn.initializers.ones
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True
    unbiased: bool = True
    noise_grad: str = "none"
    relu: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        noise_mask: jax.Array | None = None,
        valid: jax.Array | None = None,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Normalises a batch.

        Padding rows and masked-out elements enter no moment and no gradient, even if they hold NaN.
        Their own output is finite and has no meaning.

        Args:
            x: [B, ..., C] activations, real numbers; features elsewhere with `axis`.
            noise_mask: bool[B], True = the row is pure noise; None = no row is.
            valid: bool[B], True = a real row, False = padding; None = all rows are real.
            use_running_average: True normalises with the running statistics and updates nothing.
            mask: bool of the rank of `x`, broadcastable to it; True = the element enters the
                moments, unless its row is padding; None = all elements do.

        Returns:
            Normalised activations [B, ..., C], of `dtype`.

        Raises:
            ConfigError: `noise_grad` is unknown, or `axis` leaves no other axis of `x`.
            DataError: `x` is complex, or a mask has another shape or dtype.
        """
        if self.noise_grad not in NOISE_GRADS:
            raise unknown("noise_grad", self.noise_grad, NOISE_GRADS)
        if use_running_average is None:
            use_running_average = bool(self.use_running_average)
        x = jnp.asarray(x)
        if jnp.iscomplexobj(x):
            raise DataError(f"x must be real, got {x.dtype}{list(x.shape)}")
        batch = arrange(
            x,
            axis=self.axis,
            noise_mask=noise_mask,
            valid=valid,
            mask=mask,
            dtype=_wide(x.dtype) if self.force_float32_reductions else _inexact(x.dtype),
        )
        dtype = self.dtype
        if dtype is None and (self.use_scale or self.use_bias):
            dtype = jnp.promote_types(x.dtype, self.param_dtype)
        batch = dataclasses.replace(batch, dtype=dtype or _inexact(x.dtype))
        y = self.route(batch, use_running_average)
        if self.noise_grad == "full_stop" and batch.noise is not None:
            y = jnp.where(batch.by_row(batch.noise), jax.lax.stop_gradient(y), y)
        return batch.to_input_layout(y)

    def route(self, batch: NormBatch, average: bool) -> jax.Array:
        """Normalises each row with the moments and affine parameters of its kind.

        The layers differ only in this method.

        Args:
            batch: the rows to normalise.
            average: True normalises with the running statistics.

        Returns:
            [B, ..., C], of the dtype of `batch.x`.
        """
        scale, bias = affine = self.affine(batch)
        mean, inv_std = self.moments(batch, average)
        natural = Affine(mean, inv_std * scale, bias)
        if batch.noise is None or self.noise_grad != "affine_stop":
            return standardize(
                batch.x, None, batch.valid, natural, relu=self.relu, dtype=batch.dtype
            )
        scale, bias = self.for_noise(affine)
        return standardize(
            batch.x,
            batch.noise,
            batch.valid,
            natural,
            Affine(mean, inv_std * scale, bias),
            relu=self.relu,
            dtype=batch.dtype,
        )

    def affine(self, batch: NormBatch, prefix: str = "") -> Pair:
        """Creates or reads scale and bias, [C] each; ones and zeros if the layer has none."""
        made = []
        for name, used, init, constant in (
            ("scale", self.use_scale, self.scale_init, jnp.ones),
            ("bias", self.use_bias, self.bias_init, jnp.zeros),
        ):
            arguments = (batch.features, self.param_dtype)
            value = self.param(prefix + name, init, *arguments) if used else constant(*arguments)
            made.append(value.reshape(-1))
        return made[0], made[1]

    def for_noise(self, affine: Pair) -> Pair:
        """Affine parameters of noise rows: constants if these rows must not train them."""
        return jax.lax.stop_gradient(affine) if self.noise_grad == "affine_stop" else affine

    def moments(self, batch: NormBatch, average: bool) -> Pair:
        """Mean and 1 / standard deviation of all rows, or those of the running statistics."""
        running = self.running(batch)
        if average:
            return self.from_running(running)
        moments = self.of_groups(batch, running, [batch.valid])
        self.update(running, moments, 0)
        return moments.mean[0], moments.inv_std[0]

    def of_groups(self, batch: NormBatch, running: Running, groups: Sequence[jax.Array]) -> Moments:
        """Moments of groups of images of all devices along `axis_name`."""
        # Activations of 16 bits hold no mean of so many standard deviations that the sums around
        # another number near it would lose more than their rounding. Elements of the batch are a
        # kernel more on a GPU.
        near = None
        if batch.half_precision and jax.default_backend() != "cpu":
            near = running[0].value.reshape(-1).astype(batch.x.dtype)
        sum_over_devices = on_one_device
        if self.axis_name is not None and not self.is_initializing():
            sum_over_devices = partial(
                jax.lax.psum, axis_name=self.axis_name, axis_index_groups=self.axis_index_groups
            )
        return group_moments(
            batch.x,
            groups,
            epsilon=self.epsilon,
            mask=batch.mask,
            fast=self.use_fast_variance,
            reference=near,
            sum_over_devices=sum_over_devices,
        )

    def running(self, batch: NormBatch, prefix: str = "") -> Running:
        """Creates or finds the running mean and variance."""
        dtype = self.param_dtype
        if self.force_float32_reductions:
            dtype = jnp.promote_types(dtype, jnp.float32)
        shape = batch.features
        return (
            self.variable("batch_stats", prefix + "mean", jnp.zeros, shape, dtype),
            self.variable("batch_stats", prefix + "var", jnp.ones, shape, dtype),
        )

    def from_running(self, running: Running) -> Pair:
        """Returns mean and 1 / standard deviation, [C] each, of the running statistics."""
        mean, var = (variable.value.reshape(-1) for variable in running)
        return mean, jax.lax.rsqrt(var + self.epsilon)

    def update(self, running: Running, moments: Moments, group: int) -> None:
        """Moves the running statistics towards those of a group, unless it has no image."""
        if self.is_initializing():
            return
        mean, var, _, count = (each[group] for each in moments)
        new_var = var * count / jnp.maximum(count - 1, 1) if self.unbiased else var
        for variable, new in zip(running, (mean, new_var), strict=True):
            old = variable.value.reshape(-1)
            mixed = self.momentum * old + (1 - self.momentum) * new
            mixed = jnp.where(count > 0, mixed, old).astype(old.dtype)
            variable.value = mixed.reshape(variable.value.shape)


class AuxBatchNorm(BatchNorm):
    """Auxiliary batch normalisation: a second, complete batch normalisation for noise rows.

    Natural rows are normalised as in a batch without the noise rows. Noise rows have their own
    moments, running statistics (`aux_mean`, `aux_var`) and affine parameters (`aux_scale`,
    `aux_bias`). These variables exist even if no noise mask is given.

        >>> import jax, jax.numpy as jnp
        >>> layer, x = AuxBatchNorm(use_running_average=False), jnp.ones((8, 4, 4, 3))
        >>> variables, noise_mask = layer.init(jax.random.key(0), x), jnp.arange(8) < 2
        >>> y, updated = layer.apply(variables, x, noise_mask, mutable=["batch_stats"])

    The attributes are those of `BatchNorm`. `noise_grad` is "none" by default, as in the papers;
    with "affine_stop" the auxiliary affine parameters get no gradient.

    Source: Xie et al. 2020; Zada et al. 2022, section 5, table 4 (ablation of normalisations).
    """

    def route(self, batch: NormBatch, average: bool) -> jax.Array:
        """Normalises noise rows with the auxiliary variables, natural rows with the others."""
        noise = jnp.zeros_like(batch.valid) if batch.noise is None else batch.noise
        scale, bias = self.affine(batch)
        noise_scale, noise_bias = self.for_noise(self.affine(batch, AUX_PREFIX))
        running, noise_running = self.running(batch), self.running(batch, AUX_PREFIX)
        if average:
            (mean, inv_std), (noise_mean, noise_inv_std) = map(
                self.from_running, (running, noise_running)
            )
        else:
            moments = self.of_groups(batch, running, [batch.valid & ~noise, batch.valid & noise])
            self.update(running, moments, 0)
            self.update(noise_running, moments, 1)
            (mean, noise_mean), (inv_std, noise_inv_std) = moments.mean, moments.inv_std
        return standardize(
            batch.x,
            noise,
            batch.valid,
            Affine(mean, inv_std * scale, bias),
            Affine(noise_mean, noise_inv_std * noise_scale, noise_bias),
            relu=self.relu,
            dtype=batch.dtype,
        )


class DARBatchNorm(BatchNorm):
    """Distribution-aware routing batch normalisation (DAR-BN).

    Replaces batch normalisation in networks that train on natural and on pure noise images, because
    their activations have very different distributions. DAR-BN "normalizes the noise activation
    maps and the natural activation maps separately", and "uses the affine parameters learned by the
    natural activation maps in order to scale and shift the noise activation maps". Per channel,
    with moments over the rows of one kind:

        natural   scale * (x - E[x_nat]) / sqrt(Var[x_nat] + epsilon) + bias       (10), (12)
        noise     scale * (x - E[x_noise]) / sqrt(Var[x_noise] + epsilon) + bias   (11), (13)

    The running statistics follow the natural rows only (14), (15). Evaluation normalises natural
    rows with them (9); noise rows have none, so they always use the moments of the noise in the
    batch (with `axis_name`, along that axis). Natural rows are thus normalised as by `BatchNorm` in
    a batch without noise, and without a noise mask the two layers are the same.

        >>> import jax, jax.numpy as jnp
        >>> x, noise_mask = jnp.ones((8, 4, 4, 3)), jnp.arange(8) < 2  # [B, H, W, C], bool[B]
        >>> variables = DARBatchNorm().init(jax.random.key(0), x)
        >>> y, updated = DARBatchNorm().apply(variables, x, noise_mask, mutable=["batch_stats"])

    The call, with the shapes of its arguments, is that of `BatchNorm`, and so are the variables
    (`scale`, `bias`, `mean`, `var`, [C] each). The attributes differ only in one default:

    Attributes:
        noise_grad: the part of a noise row's gradient that passes through this layer. The paper
            has two meanings, and a third is in use. "affine_stop" (default; the text at equation
            13): scale and bias "remain fixed" for noise rows, so these do not train them; the
            gradient passes through the activations and the noise moments. "full_stop" (listing 1
            and the reproduction by Lee and Lee 2023): no gradient passes, so in the networks of
            the paper noise images train only the last linear layer. "none": nothing is stopped.

    DEVIATION: the bias is added and epsilon used, as in listing 1; the equations subtract the bias
    and have no epsilon.

    Source: Zada, Benou and Irani 2022, section 3.2 (its equation numbers are in parentheses above),
    algorithm 2 and listing 1.
    """

    noise_grad: str = "affine_stop"

    def route(self, batch: NormBatch, average: bool) -> jax.Array:
        """Normalises each kind of row with its own moments, both with the same parameters."""
        if batch.noise is None:
            return super().route(batch, average)
        scale, bias = affine = self.affine(batch)
        noise_scale, noise_bias = self.for_noise(affine)
        running = self.running(batch)
        moments = self.of_groups(
            batch, running, [batch.valid & ~batch.noise, batch.valid & batch.noise]
        )
        (mean, noise_mean), (inv_std, noise_inv_std) = moments.mean, moments.inv_std
        if average:
            mean, inv_std = self.from_running(running)
        else:
            self.update(running, moments, 0)
        return standardize(
            batch.x,
            batch.noise,
            batch.valid,
            Affine(mean, inv_std * scale, bias),
            Affine(noise_mean, noise_inv_std * noise_scale, noise_bias),
            relu=self.relu,
            dtype=batch.dtype,
        )


def _wide(dtype: Dtype) -> Dtype:
    """Returns float32, or the input's dtype if that is wider."""
    return jnp.promote_types(dtype, jnp.float32)


def _inexact(dtype: Dtype) -> Dtype:
    """Returns the input's dtype, or float32 if it is an integer dtype."""
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.dtype(jnp.float32)
