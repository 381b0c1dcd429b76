"""Per-channel mean and variance of groups of images, and the normalisation with them.

`group_moments` reduces every image once to its per-channel sums, [B, C]; the masks of the groups,
such as natural and noise, select among these small arrays. `standardize` then reads the activations
a second time, with one fused multiply-add. No rows are gathered or scattered, so shapes stay fixed.

The sums are taken around a number near the mean of the group, so activations with a mean far from
zero lose little to cancellation.

Rows that do not count are selected out with `jnp.where`, never multiplied by zero, because zero
times NaN is NaN.

The derivatives are written by hand as forward derivatives, which JAX transposes into gradients. In
the form that JAX would find by itself, a layer's gradient takes eleven kernels on a GPU instead of
three to five, and computes terms that cancel. All arrays that such a function reads are its
arguments: `jax.checkpoint` calls the derivative when others would no longer exist.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purenoise_jax.runtime.compiler import (
    optimization_barrier_on_accelerators,
    optimization_barrier_on_cpu,
)

# Elements of an image whose mean is the reference of the sums.
SAMPLED = 8


class Moments(NamedTuple):
    """Moments of G groups of images.

    Attributes:
        mean: [G, C], zero if the group has no image.
        var: [G, C], biased and never negative; zero if the group has no image.
        inv_std: [G, C], 1 / sqrt(var + epsilon).
        positions: f32[G, 1] or [G, C], the number of positions in the moments.
    """

    mean: jax.Array
    var: jax.Array
    inv_std: jax.Array
    positions: jax.Array


class Affine(NamedTuple):
    """A normalisation with fixed numbers per channel, [C] each: (x - mean) * gain + bias."""

    mean: jax.Array
    gain: jax.Array
    bias: jax.Array


class _Groups(NamedTuple):
    """The constants of the moments of G groups of B images.

    Attributes:
        members: bool[G, B], True for the images of a group.
        counted: bool[B, P, C], True = the element counts; None = all do.
        reference: [1, C], around which the sums are taken; None = elements of the groups.
        positions: f32[G, 1] or [G, C], their number on all devices.
        local_positions: the number on this device.
        share: 1 / `positions`, of the dtype of the images.
        local_share: 1 / `local_positions`.
    """

    members: jax.Array
    counted: jax.Array | None
    reference: jax.Array | None
    positions: jax.Array
    local_positions: jax.Array
    share: jax.Array
    local_share: jax.Array

    def by_row(self, table: jax.Array) -> jax.Array:
        """The numbers [G, C] of the group of each image, [B, 1, C] or [1, 1, C]."""
        second = self.members[1] if len(table) > 1 else None
        return _by_row(second, list(table))[:, None]

    def sums(self, per_image: Sequence[jax.Array]) -> list[jax.Array]:
        """Sums over the images of each group, [G, C], of arrays [B, C]."""
        transposed = (each.T[None] for each in per_image)
        return [jnp.where(self.members[:, None], each, 0).sum(axis=-1) for each in transposed]

    def around(self, reference: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Local mean and variance of [B, P, C], from the sums around a reference [G, C]."""
        away = rows - self.by_row(reference)
        if self.counted is not None:
            away = jnp.where(self.counted, away, 0)
        first, second = self.sums([away.sum(axis=1), jnp.square(away).sum(axis=1)])
        first, second = first * self.local_share, second * self.local_share
        mean = jnp.where(self.local_positions > 0, reference + first, 0)
        return mean, jnp.maximum(second - jnp.square(first), 0)


def on_one_device(local: jax.Array) -> jax.Array:
    """The sum over devices when there is only this one."""
    return local


def group_moments(
    x: jax.Array,
    groups: Sequence[jax.Array],
    *,
    epsilon: float,
    mask: jax.Array | None = None,
    fast: bool = True,
    reference: jax.Array | None = None,
    sum_over_devices: Callable[[jax.Array], jax.Array] = on_one_device,
) -> Moments:
    """Moments of one or two groups of images over all their positions.

    The fast form reads the data once. The other form reads the data twice, the second time for the
    squares around the mean.

    Args:
        x: [B, ..., C], finite where `mask` is False and in rows of no group.
        groups: one or two disjoint bool[B], True for the images of the group. The images of the
            other group may hold NaN.
        epsilon: added to the variance in `Moments.inv_std`.
        mask: bool[B, ..., C], True = the element counts; None = all do.
        fast: True reads the data once.
        reference: [C], numbers near the means, around which the sums are taken; None = elements of
            the groups. The squares lose (mean - reference)^2 / var of their precision.
        sum_over_devices: for a batch divided over devices, `jax.lax.psum` over an axis. The devices
            may hold different numbers of images of a group, some none.

    Returns:
        `Moments` of the dtype of `x`, with counts in float32 or wider.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    rows = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
    members = jnp.stack(list(groups))
    if mask is None:
        counted, units, elements = None, jnp.ones((len(rows), 1), wide), rows.shape[1]
    else:
        counted = mask.reshape(rows.shape)
        units, elements = counted.sum(axis=1, dtype=wide), 1
    # Counted in units of that many elements: layers then differ in a constant factor only, so that
    # XLA computes the quotients once for all of them.
    local_units = jnp.where(members[:, :, None], units, 0).sum(axis=1)
    all_units = sum_over_devices(local_units)
    local_count, count = local_units * elements, all_units * elements

    def divisor(number: jax.Array) -> jax.Array:
        return jnp.maximum(number, 1).astype(x.dtype)

    # Written to memory, because otherwise XLA on a GPU computes them anew in every kernel, and then
    # takes the kernels to be too costly to be joined.
    members, share, local_share = optimization_barrier_on_accelerators(
        (members, 1 / divisor(all_units), 1 / divisor(local_units))
    )
    share, local_share = share * (1 / elements), local_share * (1 / elements)

    @jax.custom_jvp
    def moments(rows: jax.Array, groups: _Groups) -> tuple[jax.Array, jax.Array, jax.Array]:
        near = groups.reference
        if near is None:
            near = _reference(rows, groups.members)
        mean, var = groups.around(near, rows)
        if not fast:
            mean, var = groups.around(mean, rows)
        if sum_over_devices is not on_one_device:
            part = (groups.local_positions / jnp.maximum(groups.positions, 1)).astype(rows.dtype)
            local_mean, mean = mean, sum_over_devices(part * mean)
            var = sum_over_devices(part * (var + jnp.square(local_mean - mean)))
        inv_std = jax.lax.rsqrt(var + epsilon)
        # Written to memory, because otherwise every kernel that needs it computes the root again.
        return optimization_barrier_on_accelerators((mean, var, inv_std))

    @moments.defjvp
    def derivative(primals: Any, tangents: Any) -> Any:
        (rows, groups), (tangent, _) = primals, tangents
        mean, var, inv_std = moments(rows, groups)
        if groups.counted is not None:
            tangent = jnp.where(groups.counted, tangent, 0)
        # The mean's own change adds nothing to the variance, as the deviations sum to zero.
        away = rows - groups.by_row(mean)
        per_image = optimization_barrier_on_cpu(
            (tangent.sum(axis=1), (2 * away * tangent).sum(axis=1))
        )
        d_mean, d_var = (
            sum_over_devices(
                groups.share
                * jnp.stack(
                    [jnp.where(group[:, None], each, 0).sum(axis=0) for group in groups.members]
                )
            )
            for each in per_image
        )
        return (mean, var, inv_std), (d_mean, d_var, -0.5 * inv_std * inv_std * inv_std * d_var)

    near = None if reference is None else reference[None]
    constants = _Groups(members, counted, near, count, local_count, share, local_share)
    return Moments(*moments(rows, constants), count)


def _reference(rows: jax.Array, members: jax.Array) -> jax.Array:
    """A number near the mean of each group, from a few of its elements.

    Args:
        rows: [B, P, C].
        members: bool[G, B].

    Returns:
        [G, C].
    """
    if jax.default_backend() == "cpu":
        # A sum, because XLA does not repeat sums in the loops that use them. It repeats elements
        # that are taken one by one, and jaxlib 0.10.2 then overwrites them while it reads them.
        chosen = jnp.where(members[:, :, None], rows[:, 0], 0)
        return chosen.sum(axis=1) / jnp.maximum(members.sum(axis=1), 1)[:, None].astype(rows.dtype)
    # No sum, because it would be one more kernel for each layer.
    first = members.argmax(axis=1)
    places = range(0, rows.shape[1], -(-rows.shape[1] // SAMPLED))
    sample = [rows.at[first, place].get(mode="promise_in_bounds") for place in places]
    return functools.reduce(jnp.add, sample) / len(sample)


def standardize(
    x: jax.Array,
    noise: jax.Array | None,
    valid: jax.Array,
    natural: Affine,
    for_noise: Affine | None = None,
    *,
    relu: bool = False,
    dtype: Any,
) -> jax.Array:
    """Normalises, scales and shifts every row as its kind requires.

    Args:
        x: [B, ..., C].
        noise: bool[B], True = the row is pure noise; None = all rows are treated as natural.
        valid: bool[B], False for rows that enter no gradient of `natural` and `for_noise`.
        natural: for natural rows.
        for_noise: for noise rows; None = as for natural rows.
        relu: True replaces negative results by zero.
        dtype: of the result.

    Returns:
        (x - mean) * gain + bias, [B, ..., C].
    """
    if for_noise is None:
        noise, for_noise = None, natural
    members = jnp.stack([valid] if noise is None else [valid & ~noise, valid & noise])

    def broadcastable(row: jax.Array) -> jax.Array:
        return row.reshape(row.shape[0], *(1,) * (x.ndim - 2), row.shape[-1])

    def by_row(noise: jax.Array | None, affines: Sequence[Affine]) -> Affine:
        # Written to memory, because otherwise XLA on a CPU recomputes the selection by row,
        # including the draw of the mask, for every activation. Broadcast to rows even if all rows
        # share them, because otherwise the reduction of their gradients runs on one thread.
        return optimization_barrier_on_cpu(
            Affine(*(_by_row(noise, tables) for tables in zip(*affines, strict=True))),
            rows=x.shape[0],
        )

    def affine_map(x: jax.Array, noise: jax.Array | None, affines: Sequence[Affine]) -> jax.Array:
        mean, gain, bias = map(broadcastable, by_row(noise, affines))
        return (x - mean) * gain + bias

    @jax.custom_jvp
    def apply(
        x: jax.Array,
        natural: Affine,
        for_noise: Affine,
        noise: jax.Array | None,
        members: jax.Array,
    ) -> jax.Array:
        del members
        y = affine_map(x, noise, (natural, for_noise))
        if not relu:
            return y.astype(dtype)
        return optimization_barrier_on_accelerators(jnp.maximum(y, 0).astype(dtype))

    @apply.defjvp
    def derivative(primals: Any, tangents: Any) -> Any:
        x, *affines, noise, members = primals
        d_x, *d_affines, _, _ = tangents
        mean, gain, _ = map(broadcastable, by_row(noise, affines))
        # Bias and mean need one sum over the positions, as they differ by a factor.
        d_gain = [d.gain for d in d_affines]
        d_bias = [
            d.bias - affine.gain * d.mean for affine, d in zip(affines, d_affines, strict=True)
        ]
        d_gain_row, d_bias_row = map(
            broadcastable,
            optimization_barrier_on_cpu(
                (_change_by_row(members, d_gain), _change_by_row(members, d_bias))
            ),
        )
        y = apply(*primals)
        own = d_x * gain
        of_affine = (x - mean) * d_gain_row + jnp.broadcast_to(d_bias_row, x.shape)
        if relu:
            # The same sign in two ways, because XLA would otherwise write the gradient below the
            # ReLU to memory, for both of its readers.
            own = jnp.where(affine_map(x, noise, affines) > 0, own, 0)
            of_affine = jnp.where(y > 0, of_affine, 0)
        return y, (own + of_affine).astype(dtype)

    return apply(x, natural, for_noise, noise, members)


def _by_row(second: jax.Array | None, tables: Sequence[jax.Array]) -> jax.Array:
    """Selects for each row the numbers of its group.

    Args:
        second: bool[B], True for the rows of the second group; None = there is one group.
        tables: [C] of each group.

    Returns:
        [B, C], or [1, C] if there is one group.
    """
    if second is None:
        return tables[0][None]
    return jnp.where(second[:, None], tables[1][None], tables[0][None])


def _change_by_row(members: jax.Array, tables: Sequence[jax.Array]) -> jax.Array:
    """`_by_row` in the form whose transpose XLA on a GPU compiles to one sum for both groups.

    Args:
        members: bool[G, B], True for the rows of a group; the others get zeros.
        tables: [C] of each group.

    Returns:
        [B, C].
    """
    chosen = jnp.where(members[:, None], jnp.stack(list(tables))[: len(members), :, None], 0)
    return chosen.sum(axis=0).T
