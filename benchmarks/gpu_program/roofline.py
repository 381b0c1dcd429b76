"""Lower bounds of a step's time, from its kernels and a chip's data sheet."""

from collections.abc import Sequence

from benchmarks.chips import PEAKS
from benchmarks.gpu_program.kernels import Kernel

# Microseconds from one launch to the next by the host, and within a CUDA graph. Assumptions, to be
# replaced by what a GPU shows.
LAUNCH_US, GRAPH_US = 3.0, 1.0


def bounds(
    kernels: Sequence[Kernel],
    chip: str,
    dtype: str,
    *,
    launch_us: float = LAUNCH_US,
    graph_us: float = GRAPH_US,
) -> dict[str, float]:
    """Milliseconds that a step takes at least.

    Args:
        kernels: of a step.
        chip: a key of `chips.PEAKS`.
        dtype: of the convolutions.
        launch_us: of a launch by the host.
        graph_us: of a launch within a CUDA graph.

    Returns:
        "arithmetic_ms", at the peak rate; "memory_ms", at the peak bandwidth; "work_ms", the sum
        over kernels of the larger of their two; "launch_ms", of all launches by the host;
        "step_ms", the larger of work and launches, which overlap; and "graph_step_ms", the sum over
        kernels of the larger of their work and a launch within a graph.
    """
    peak = PEAKS[chip]

    def work(kernel: Kernel) -> float:
        return max(kernel.bytes / peak["memory"], kernel.flops / peak[dtype]) * 1e3

    works = [work(kernel) for kernel in kernels]
    launches = len(kernels) * launch_us / 1e3
    return {
        "arithmetic_ms": sum(kernel.flops for kernel in kernels) / peak[dtype] * 1e3,
        "memory_ms": sum(kernel.bytes for kernel in kernels) / peak["memory"] * 1e3,
        "work_ms": sum(works),
        "launch_ms": launches,
        "step_ms": max(sum(works), launches),
        "graph_step_ms": sum(max(each, graph_us / 1e3) for each in works),
    }
