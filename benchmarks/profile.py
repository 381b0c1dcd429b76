"""Time of a step by operation, from the record of the profiler."""

import collections
import re
import tempfile
from pathlib import Path
from typing import Any

import jax

from benchmarks.timing import Program

# Purpose of an XLA instruction, and the pattern of its name.
KINDS = (
    ("convolutions", re.compile(r"conv(?!ert)|EigenConv|cudnn")),
    ("transposes for weight gradients", re.compile(r"transpose")),
    ("matrix products", re.compile(r"dot|gemm|custom-call")),
    ("sums", re.compile(r"reduce")),
    ("elementwise", re.compile(r"fusion|add|mul|sub|select|copy|broadcast|pad|slice|maximum")),
)


def kind_of(name: str) -> str:
    """The purpose of an instruction, by its name."""
    return next((kind for kind, pattern in KINDS if pattern.search(name)), "other")


def jax_profile(program: Program, steps: int = 4) -> list[dict[str, Any]]:
    """Milliseconds of busy threads per step by instruction, for a program that has run before.

    A CPU runs independent instructions in parallel and splits large ones, so the sums are thread
    times. The record has no time of threads inside Eigen's convolutions; see `convolutions`.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                program.run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        record = jax.profiler.ProfileData.from_file(str(path))
    busy: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    for plane in record.planes:
        for line in plane.lines:
            if not ("XLAEigen" in line.name or "Stream" in line.name):
                continue
            for event in line.events:
                name = event.name.partition(".")[0]
                if "::" in name or name.startswith("end:"):
                    continue
                busy[name] += event.duration_ns / 1e6 / steps / program.steps
                calls[name] += 1
    return [
        {"name": name, "kind": kind_of(name), "thread_ms": ms, "calls": calls[name] / steps}
        for name, ms in busy.most_common()
    ]


def torch_profile(program: Program, steps: int = 4) -> list[dict[str, Any]]:
    """The same from PyTorch's profiler: milliseconds per step of each operator itself."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as record:
        for _ in range(steps):
            program.run()
    rows = [
        {
            "name": event.key.removeprefix("aten::"),
            "ms": event.self_cpu_time_total / 1000 / steps / program.steps,
            "calls": event.count / steps,
        }
        for event in record.key_averages()
    ]
    return sorted(rows, key=lambda row: -row["ms"])
