"""Compiles a training step to run in a loop of several rows, or one row a call.

Rows of an epoch are its steps. Images that are not on the devices come with each call.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from purenoise_jax.data.rows import Rows, StreamedRows
from purenoise_jax.runtime.compiler import CompiledAhead, compiler_options
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.packed_state import StatePacking, packing_of
from purenoise_jax.training.train_step import Inputs, TrainState, TrainStep


def compile_steps(
    step: TrainStep,
    placement: Placement,
    *,
    looped: bool,
    streamed: bool = False,
    shapes: tuple[Any, ...] | None = None,
) -> "CompiledSteps":
    """Jits a step so that it runs several rows of an epoch in one call.

    Args:
        step: from `make_step`.
        placement: over which devices.
        looped: run the rows in a loop on the device, which then never waits for the host. On a CPU
            a convolution's weight gradient is about 30 times slower inside such a loop, so there
            each row is a call.
        streamed: the rows of an epoch are a `data.feed.ReadAhead`; each row is a call.
        shapes: (state, metrics, inputs, rows of an epoch, or of a step if streamed) as shapes with
            shardings; if given, the step is compiled in the background, beginning now.

    Returns:
        (state, metrics, inputs, rows of an epoch [steps, B], first, count) -> (state, metrics),
        which runs rows first .. first + count - 1. The state is donated.
    """
    program: Callable[..., Any] = step_program(step, placement, looped=looped, streamed=streamed)
    if shapes is not None:
        number = jax.ShapeDtypeStruct((), np.int32)
        numbers = 0 if streamed else 2 if looped else 1
        program = CompiledAhead(program, *shapes, *([number] * numbers))
    return CompiledSteps(program, looped, streamed)


def step_program(
    step: TrainStep,
    placement: Placement,
    *,
    looped: bool,
    streamed: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """The jitted function that `compile_steps` compiles.

    Args:
        step: from `make_step`.
        placement: over which devices.
        looped: run several rows in a loop on the device.
        streamed: take the rows of a step themselves.
        options: of the compiler; None = those of training.

    Returns:
        (state, metrics, inputs, rows of an epoch, row) -> (state, metrics), or if looped, with the
        first row and the number of rows in the place of the row; if streamed, (state, metrics,
        inputs, rows of a step). The state is donated.
    """

    def one(
        state: TrainState,
        metrics: EpochMetrics,
        inputs: Inputs,
        epoch: Rows,
        row: jax.Array,
        packing: StatePacking | None = None,
    ) -> tuple[TrainState, EpochMetrics]:
        rows = jax.tree.map(
            lambda all_rows: jax.lax.with_sharding_constraint(
                jax.lax.dynamic_index_in_dim(all_rows, row, keepdims=False), placement.batch
            ),
            epoch,
        )
        return step(state, metrics, inputs, rows, packing)

    def many(
        state: TrainState,
        metrics: EpochMetrics,
        inputs: Inputs,
        epoch: Rows,
        first: jax.Array,
        count: jax.Array,
    ) -> tuple[TrainState, EpochMetrics]:
        # The count is traced, so a shorter call at the end of an epoch needs no second program.
        packing, metric_packing = step.packing(state), packing_of(metrics, scalars=True)
        held = state if packing is None else packing.pack(state)

        def body(row: jax.Array, carry: tuple[TrainState, list[jax.Array]]) -> Any:
            totals = metric_packing.unpack(carry[1])
            new, totals = one(carry[0], totals, inputs, epoch, row, packing)
            return new, metric_packing.pack(totals)

        held, totals = jax.lax.fori_loop(
            first, first + count, body, (held, metric_packing.pack(metrics))
        )
        state = held if packing is None else packing.unpack(held)
        return state, metric_packing.unpack(totals)

    def alone(
        state: TrainState, metrics: EpochMetrics, inputs: Inputs, rows: StreamedRows
    ) -> tuple[TrainState, EpochMetrics]:
        return step(state, metrics, inputs, rows)

    return jax.jit(
        alone if streamed else many if looped else one,
        donate_argnums=(0,),
        out_shardings=placement.replicated,
        compiler_options=compiler_options() if options is None else dict(options),
    )


class CompiledSteps:
    """A compiled step, from `compile_steps`.

    Args:
        program: runs one row, or several in a loop.
        looped: it runs several.
        streamed: it runs one, whose images it gets.
    """

    def __init__(self, program: Callable[..., Any], looped: bool, streamed: bool = False) -> None:
        self._program, self._looped, self._streamed = program, looped, streamed

    def wait(self, poll: Callable[[], Any]) -> None:
        """Waits for a compilation in the background; see `threads.Background.result`."""
        if isinstance(self._program, CompiledAhead):
            self._program.wait(poll)

    def __call__(
        self, state: TrainState, metrics: EpochMetrics, *data: Any
    ) -> tuple[TrainState, EpochMetrics]:
        """Runs rows of an epoch; see `compile_steps`."""
        *arrays, first, count = data
        if self._streamed:
            inputs, ahead = arrays
            for row in range(first, first + count):
                state, metrics = self._program(state, metrics, inputs, ahead.take(row))
            return state, metrics
        if self._looped:
            return self._program(state, metrics, *arrays, np.int32(first), np.int32(count))
        for row in range(first, first + count):
            state, metrics = self._program(state, metrics, *arrays, np.int32(row))
        return state, metrics
