"""Lower bounds of a step's time, from its kernels and a chip's data sheet."""

from collections.abc import Sequence

from benchmarks.chips import PEAKS, chip_of
from benchmarks.gpu_program.hlo import parse
from benchmarks.gpu_program.kernels import Kernel, kernels

# Microseconds from one launch to the next by the host, and within a CUDA graph. Assumptions, to be
# replaced by what a GPU shows.
LAUNCH_US, GRAPH_US = 3.0, 1.0


def predicted(text: str, device_kind: str, dtype: str) -> dict[str, float]:
    """The time of a step by its program, to stand beside a measured one.

    Args:
        text: of the optimised program.
        device_kind: JAX's name of the device.
        dtype: of the convolutions.

    Returns:
        "kernels", "predicted_ms" and "predicted_graph_ms"; empty if the chip is not in
        `chips.PEAKS`, or has no rate for the dtype.
    """
    chip = chip_of(device_kind)
    if chip is None or dtype not in PEAKS[chip]:
        return {}
    found = kernels(parse(text))
    limits = bounds(found, chip, dtype)
    return {
        "kernels": len(found),
        "predicted_ms": limits["step_ms"],
        "predicted_graph_ms": limits["graph_step_ms"],
    }


def bounds(
    launched: Sequence[Kernel],
    chip: str,
    dtype: str,
    *,
    launch_us: float = LAUNCH_US,
    graph_us: float = GRAPH_US,
) -> dict[str, float]:
    """Milliseconds that a step takes at least.

    Args:
        launched: the kernels of a step.
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

    works = [work(kernel) for kernel in launched]
    launches = len(launched) * launch_us / 1e3
    return {
        "arithmetic_ms": sum(kernel.flops for kernel in launched) / peak[dtype] * 1e3,
        "memory_ms": sum(kernel.bytes for kernel in launched) / peak["memory"] * 1e3,
        "work_ms": sum(works),
        "launch_ms": launches,
        "step_ms": max(sum(works), launches),
        "graph_step_ms": sum(max(each, graph_us / 1e3) for each in works),
    }
