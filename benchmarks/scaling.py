"""Cost of a step as the work grows."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.jax_steps import step_program
from benchmarks.timing import Program, interleave
from purenoise_jax.models import DARBatchNorm
from purenoise_jax.models.wide_resnet import WideResNet

BASE: dict[str, Any] = {"batch_size": 64, "image_size": 32, "num_classes": 10}
AXES: dict[str, tuple[int, ...]] = {
    "batch_size": (16, 32, 64, 128, 256),
    "width": (1, 2, 4, 8),
    "image_size": (16, 32, 64),
    "num_classes": (10, 100, 1000),
}
DEVICES = (1, 2, 4, 8)


def axis_programs(axis: str) -> Iterator[tuple[int, Program]]:
    """Yields a WRN-10 step with DAR-BN for every size of an axis, all else as in `BASE`."""
    for size in AXES[axis]:
        width = size if axis == "width" else 2
        settings = BASE | ({axis: size} if axis != "width" else {})
        model = WideResNet(
            num_classes=settings["num_classes"], depth=10, widen=width, norm=partial(DARBatchNorm)
        )
        yield size, step_program(model, **settings)


def axis(name: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Times along an axis, with the exponent of time in size between neighbouring points."""
    programs = dict(axis_programs(name))
    times = interleave(
        {str(size): program for size, program in programs.items()}, rounds=rounds, seconds=seconds
    )
    rows: list[dict[str, Any]] = []
    for size, program in programs.items():
        ms = times[str(size)]["ms"]
        growth = None
        if rows:
            growth = float(np.log(ms / rows[-1]["ms"]) / np.log(size / rows[-1]["size"]))
        rows.append(
            {"name": f"{name} {size}", "axis": name, "size": size, "growth": growth}
            | times[str(size)]
            | dict(program.facts)
            | {"images_per_second": program.facts["batch_size"] / ms * 1000}
        )
    return rows


def devices(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Cost of sharding: a batch of 128 over 1 to 8 devices, all of them the same processor.

    `work` is the FLOPs of all devices together, by the compiler's count, over those of one.
    """
    programs = {count: step_program("resnet32", batch_size=128, devices=count) for count in DEVICES}
    times = interleave(
        {str(count): program for count, program in programs.items()},
        rounds=rounds,
        seconds=seconds,
    )
    one = programs[1].facts["executed_flops"]
    return [
        {
            "name": f"{count} devices",
            "axis": "devices",
            "size": count,
            "work": count * program.facts["executed_flops"] / one if one else None,
            "overhead": times[str(count)]["ms"] / times["1"]["ms"] - 1,
        }
        | times[str(count)]
        | dict(program.facts)
        for count, program in programs.items()
    ]


def devices_in_child(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Runs `devices` in a new process, because JAX fixes the number of CPU devices at its start."""
    code = (
        "from benchmarks import scaling, overhead\n"
        f"print(overhead.to_json(scaling.devices({rounds}, {seconds})))"
    )
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def memory(step_bytes: int, limit: int | None) -> list[dict[str, Any]]:
    """The largest data set that fits on the device beside a step.

    Args:
        step_bytes: bytes that the step needs.
        limit: bytes of the device; None = unknown.
    """
    rows: list[dict[str, Any]] = []
    for name, count, size in (
        ("CIFAR-10", 60_000, 32),
        ("CIFAR-10-LT, ratio 100", 22_406, 32),
        ("Tiny ImageNet", 110_000, 64),
        ("ImageNet-LT at 224", 185_846, 224),
    ):
        one = size * size * 3
        fits = None if limit is None else max(limit - step_bytes, 0) // one
        rows.append(
            {
                "name": name,
                "limit_bytes": limit,
                "step_bytes": step_bytes,
                "images": count,
                "data_bytes": count * one,
                "fits": None if fits is None else bool(count <= fits),
                "streams_above_images": fits,
            }
        )
    return rows
