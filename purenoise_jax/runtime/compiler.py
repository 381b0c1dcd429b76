"""Compiler options and an optimization barrier that make a training step fast on a CPU.

Measured on ResNet-32, batch 128, two cores (`python -m benchmarks.run --suite compiler`): without
the first two options below a step takes 1.7 times as long. On accelerators nothing is changed.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from purenoise_jax.runtime.threads import Background

Tree = TypeVar("Tree")

CPU_OPTIONS: dict[str, Any] = {
    # The YNNPACK kernels, the default for convolutions, take two to three times as long as Eigen's
    # for the weight gradients of small images, and up to twice as long in the forward pass.
    "xla_cpu_experimental_ynn_fusion_type": "",
    # This pass removes optimization barriers before fusion. Without barriers, the weight gradient
    # of a convolution recomputes its input, element by element and in transposed order: the entire
    # chain of norms and shortcuts before it, mask included.
    "xla_disable_hlo_passes": "cse_barrier_expander",
    # Compiles faster than the default, 3, and steps are as fast: convolutions and products are
    # library calls, and the operations between them are limited by memory bandwidth.
    "xla_backend_optimization_level": 2,
}

# For a program that runs once, such as the one that draws the initial parameters: half the
# compilation time, and the same values.
CPU_ONCE_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 1}


@functools.cache
def compiler_options(once: bool = False) -> dict[str, Any]:
    """Returns the options for `jax.jit` on the backend in use, without those that it does not know.

    Args:
        once: the program will run only once, so that its compilation time counts, not its speed.
    """
    if jax.default_backend() != "cpu":
        return {}

    def known(name: str, value: Any) -> bool:
        try:
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
        except jax.errors.JaxRuntimeError:
            return False
        return True

    wanted = CPU_ONCE_OPTIONS if once else CPU_OPTIONS
    return {name: value for name, value in wanted.items() if known(name, value)}


def optimization_barrier_on_cpu(tree: Tree, rows: int | None = None) -> Tree:
    """Writes arrays to memory once on a CPU, where each of their readers would recompute them.

    The values are unchanged. On accelerators, where fusion has other rules, this does nothing.

    Args:
        tree: arrays.
        rows: if given, arrays with a leading axis of 1 are repeated along it that many times.
    """
    if jax.default_backend() != "cpu":
        return tree
    if rows is not None:
        tree = jax.tree.map(lambda a: jnp.broadcast_to(a, (rows, *a.shape[1:])), tree)
    return jax.lax.optimization_barrier(tree)


def optimization_barrier_on_accelerators(tree: Tree) -> Tree:
    """Writes arrays to memory once on an accelerator, where each reader would recompute them.

    The values are unchanged. On a CPU, where fusion has other rules, this does nothing.
    """
    return tree if jax.default_backend() == "cpu" else jax.lax.optimization_barrier(tree)


class CompiledAhead:
    """A jitted function that is compiled in the background while other things start.

    It takes arguments of exactly the given shapes; a call waits until compilation has finished.

    Args:
        jitted: from `jax.jit`.
        *shapes: its arguments, as trees of `jax.ShapeDtypeStruct` with their shardings.
    """

    def __init__(self, jitted: Any, *shapes: Any) -> None:
        self._compiling = Background(lambda: jitted.lower(*shapes).compile())

    def wait(self, poll: Callable[[], Any] | None = None) -> None:
        """Waits until compilation has finished; see `Background.result`."""
        self._compiling.result(poll)

    def __call__(self, *args: Any) -> Any:
        """Runs the function."""
        return self._compiling.result()(*args)
