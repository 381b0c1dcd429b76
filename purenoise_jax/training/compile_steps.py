"""How the rows of an epoch are run: one call for several of them, or one for each."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from purenoise_jax.runtime.compiler import CompiledAhead, compiler_options
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.train_step import Inputs, Rows, TrainState, TrainStep


def compile_steps(
    step: TrainStep, placement: Placement, *, looped: bool, shapes: tuple[Any, ...] | None = None
) -> "CompiledSteps":
    """Jits a step so that it runs several rows of an epoch in one call.

    Args:
        step: from `make_step`.
        placement: over which devices.
        looped: run the rows in a loop on the device, so that the host is never waited for. On a CPU
            a convolution's weight gradient is about 30 times slower inside such a loop, so there
            the rows are run one call at a time.
        shapes: (state, totals, inputs, rows of an epoch) as shapes with places; if given, the step
            is compiled in the background from now on, while the caller does other things.

    Returns:
        (state, totals, inputs, rows of an epoch [steps, B], first, count) -> (state, totals), which
        runs rows first .. first + count - 1. The state is donated.
    """

    def one(
        state: TrainState,
        totals: EpochMetrics,
        inputs: Inputs,
        epoch: Rows,
        row: jax.Array,
    ) -> tuple[TrainState, EpochMetrics]:
        rows = jax.tree.map(
            lambda all_rows: jax.lax.with_sharding_constraint(
                jax.lax.dynamic_index_in_dim(all_rows, row, keepdims=False), placement.batch
            ),
            epoch,
        )
        return step(state, totals, inputs, rows)

    def many(
        state: TrainState,
        totals: EpochMetrics,
        inputs: Inputs,
        epoch: Rows,
        first: jax.Array,
        count: jax.Array,
    ) -> tuple[TrainState, EpochMetrics]:
        # The count is traced, so an epoch's last, shorter call needs no compilation of its own.
        return jax.lax.fori_loop(
            first,
            first + count,
            lambda row, carry: one(carry[0], carry[1], inputs, epoch, row),
            (state, totals),
        )

    program: Callable[..., Any] = jax.jit(
        many if looped else one,
        donate_argnums=(0,),
        out_shardings=placement.replicated,
        compiler_options=compiler_options(),
    )
    if shapes is not None:
        number = jax.ShapeDtypeStruct((), np.int32)
        program = CompiledAhead(program, *shapes, *([number] * (2 if looped else 1)))
    return CompiledSteps(program, looped)


class CompiledSteps:
    """What `compile_steps` returns.

    Args:
        program: runs one row, or in a loop several.
        looped: which of the two.
    """

    def __init__(self, program: Callable[..., Any], looped: bool) -> None:
        self._program, self._looped = program, looped

    def wait(self, poll: Callable[[], Any]) -> None:
        """Waits for what is compiled in the background; see `Background.result`."""
        if isinstance(self._program, CompiledAhead):
            self._program.wait(poll)

    def __call__(
        self, state: TrainState, totals: EpochMetrics, *data: Any
    ) -> tuple[TrainState, EpochMetrics]:
        """Runs rows of an epoch; see `compile_steps`."""
        *arrays, first, count = data
        if self._looped:
            return self._program(state, totals, *arrays, np.int32(first), np.int32(count))
        for row in range(first, first + count):
            state, totals = self._program(state, totals, *arrays, np.int32(row))
        return state, totals
