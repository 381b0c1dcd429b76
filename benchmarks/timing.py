"""Times several programs in turn, so that what else a machine does falls on all of them."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# PyTorch's threads go on spinning for up to 0.2 s after their work; nobody else shall pay for it.
PAUSE_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class Program:
    """Something that can be timed again and again.

    Attributes:
        run: does it once and waits until it is done.
        steps: how many steps that is.
        facts: what is known of it beside its time.
    """

    run: Callable[[], None]
    steps: int = 1
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def cpus() -> int:
    """Processors that this process may use."""
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
    """Runs every program once a round, in another order each, after a round that does not count.

    Args:
        programs: by name.
        rounds: at most.
        seconds: no new round is begun after so many, but three are always run.
        pause: seconds before each run.

    Returns:
        By name, milliseconds a step: "ms" (median), "ms_low" and "ms_high" (quartiles), "rounds",
        and "samples", one a round, so that programs can be compared round by round.
    """
    for program in programs.values():
        program.run()
    taken: dict[str, list[float]] = {name: [] for name in programs}
    started = time.monotonic()
    order = np.random.default_rng(0)
    for done in range(rounds):
        if done >= 3 and time.monotonic() - started > seconds:
            break
        # So that nobody always follows the same one.
        for name in order.permutation(list(programs)).tolist():
            program = programs[name]
            time.sleep(pause)
            before = time.perf_counter()
            program.run()
            taken[name].append((time.perf_counter() - before) / program.steps)
    return {name: spread(values) for name, values in taken.items()}


def spread(seconds: list[float]) -> dict[str, Any]:
    """Median and quartiles of times in seconds, in milliseconds."""
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
    """The median over the rounds of one program's time over another's in the same round."""
    return float(np.median(np.divide(row["samples"], other["samples"])))
