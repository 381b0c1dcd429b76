"""What the compiler has to be told so that a step on a CPU is as fast as it can be.

Measured on ResNet-32, batch 128, two cores (`python -m benchmarks.run --suite compiler`): without
the first two settings below a step takes 1.7 times as long. On accelerators nothing is changed.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from purenoise_jax.runtime.threads import Background

Tree = TypeVar("Tree")

CPU_OPTIONS: dict[str, Any] = {
    # The YNNPACK kernels that convolutions are given by default take two to three times as long as
    # Eigen's for the weight gradients of small images, and up to twice as long forward.
    "xla_cpu_experimental_ynn_fusion_type": "",
    # This pass drops optimisation barriers before fusion. Without barriers the input of each
    # convolution is computed anew, element by element and in transposed order, for the weight
    # gradient: the whole chain of norms and shortcuts before it, mask included.
    "xla_disable_hlo_passes": "cse_barrier_expander",
    # Compiles faster than the default, 3, to steps of the same speed: convolutions and products are
    # library calls, and what is between them waits for memory.
    "xla_backend_optimization_level": 2,
}

# For a program that runs once, as that which draws the first parameters: half the compilation, and
# the same values.
CPU_ONCE_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 1}


@functools.cache
def compiler_options(once: bool = False) -> dict[str, Any]:
    """Options for `jax.jit` on the backend in use; those that its compiler knows.

    Args:
        once: the program will run once, so its compilation counts, not its speed.
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
    """Has arrays written to memory once instead of recomputed by each of their readers, on a CPU.

    The values are unchanged. On accelerators, where fusion has other rules, this does nothing.

    Args:
        tree: arrays.
        rows: if given, arrays with a leading axis of 1 are repeated along it so often.
    """
    if jax.default_backend() != "cpu":
        return tree
    if rows is not None:
        tree = jax.tree.map(lambda a: jnp.broadcast_to(a, (rows, *a.shape[1:])), tree)
    return jax.lax.optimization_barrier(tree)


class CompiledAhead:
    """A jitted function that is compiled in the background, so that other things start meanwhile.

    It takes arguments of exactly the given shapes; a call waits until it is compiled.

    Args:
        jitted: from `jax.jit`.
        *shapes: its arguments, as trees of `jax.ShapeDtypeStruct` with their shardings.
    """

    def __init__(self, jitted: Any, *shapes: Any) -> None:
        self._compiling = Background(lambda: jitted.lower(*shapes).compile())

    def wait(self, poll: Callable[[], Any] | None = None) -> None:
        """Waits until it is compiled; see `Background.result`."""
        self._compiling.result(poll)

    def __call__(self, *args: Any) -> Any:
        """Runs the function."""
        return self._compiling.result()(*args)
