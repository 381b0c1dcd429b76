"""Runs that are started at the same time in one workdir, of which one only may train."""

import random
import re
import time

from purenoise_jax.chaos import kept
from purenoise_jax.chaos.births import Hung
from purenoise_jax.chaos.case import CASES
from purenoise_jax.chaos.scene import Result, Scene, differences, first_lines
from purenoise_jax.errors import InUseError

TOLD = re.compile(r"is in use by (process (\d+) on \S+|another run)")


def torment(scene: Scene, races: int) -> list[Result]:
    """Starts two or three runs at once, so many times.

    Args:
      scene: with references.
      races: how many times.
    """
    outcomes = scene.at_once(lambda index: _race(scene, index), range(races))
    problems = [problem for found, _ in outcomes for problem in found]
    refused = sum(count for _, count in outcomes)
    survived = sum(not found for found, _ in outcomes)
    numbers = {"races": races, "one_winner": survived, "refused": refused}
    told = f"one trained and ended bitwise as alone, the {refused} others left with exit code 7"
    if problems:
        told = f"one alone trained in {survived} of {races}"
    return [
        Result("started at once in one workdir", races, survived, told, numbers,
               first_lines(problems))
    ]  # fmt: skip


def _race(scene: Scene, index: int) -> tuple[list[str], int]:
    """What went wrong in one race, and how many runs were turned away."""
    rng = random.Random(f"races {scene.seed} {index}")
    case = CASES[index % len(CASES)]
    workdir = scene.new_folder(f"race-{case.name}")
    start = time.monotonic() + 0.3
    # Half of them not to the microsecond, as a second one may come while the first one writes.
    spread = rng.choice((0.0, 0.5))
    problems = []
    try:
        runs = [
            scene.start(case, workdir, begin_at=start + spread * rng.random())
            for _ in range(rng.choice((2, 2, 3)))
        ]
        codes = [run.wait() for run in runs]
        winners = [run for run, code in zip(runs, codes, strict=True) if code == 0]
        losers = [
            run for run, code in zip(runs, codes, strict=True) if code == InUseError.exit_code
        ]
        if len(winners) != 1 or len(losers) != len(runs) - 1:
            problems.append(f"exit codes {codes}, and not one 0 and else {InUseError.exit_code}")
        for run in losers:
            told = TOLD.search(run.notes())
            if not told or (told[2] and winners and int(told[2]) != winners[0].pid):
                problems.append(f"one that was turned away said not by whom: {run.last_line()}")
            if run.last("start") is not None:
                problems.append("one that was turned away had begun to train")
        problems += differences(workdir, scene.references[case.name])
        problems += kept.damages(workdir)
    except Hung as hung:
        problems.append(f"hung: {hung}")
    scene.advance()
    return problems, len(losers) if not problems else 0
