"""Times several programs in turn, so that other load on the machine affects all of them alike."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# PyTorch's threads keep spinning for up to 0.2 s after their work, which would slow down the next
# program.
PAUSE_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class Program:
    """A program that can be timed repeatedly.

    Attributes:
        run: runs it once and waits until it is done.
        steps: number of steps in one run.
        facts: other values for its row.
    """

    run: Callable[[], None]
    steps: int = 1
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def cpus() -> int:
    """The number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def interleave(
    programs: Mapping[str, Program],
    *,
    rounds: int,
    seconds: float,
    pause: float = PAUSE_SECONDS,
) -> dict[str, dict[str, Any]]:
    """Runs every program once per round, in a new order each, after a first round without timing.

    Args:
        programs: programs by name.
        rounds: largest number of rounds.
        seconds: no new round begins after this time, but three are always run.
        pause: seconds before each run.

    Returns:
        By name, milliseconds per step: "ms" (median), "ms_low" and "ms_high" (quartiles), "rounds",
        and "samples", one per round, so that programs can be compared round by round.
    """
    for program in programs.values():
        program.run()
    taken: dict[str, list[float]] = {name: [] for name in programs}
    started = time.monotonic()
    order = np.random.default_rng(0)
    for done in range(rounds):
        if done >= 3 and time.monotonic() - started > seconds:
            break
        # In a random order, so that no program always follows the same one.
        for name in order.permutation(list(programs)).tolist():
            program = programs[name]
            time.sleep(pause)
            before = time.perf_counter()
            program.run()
            taken[name].append((time.perf_counter() - before) / program.steps)
    return {name: spread(values) for name, values in taken.items()}


def spread(seconds: list[float]) -> dict[str, Any]:
    """Median and quartiles, in milliseconds, of times in seconds."""
    low, middle, high = (float(q) for q in np.percentile(seconds, (25, 50, 75)) * 1000)
    samples = [round(1000 * s, 3) for s in seconds]
    return {
        "ms": middle,
        "ms_low": low,
        "ms_high": high,
        "rounds": len(seconds),
        "samples": samples,
    }


def over(row: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The median over rounds of the ratio of two programs' times in the same round."""
    return float(np.median(np.divide(row["samples"], other["samples"])))
