"""Runs that are started at the same time in one workdir, of which one only may train."""

import dataclasses
import random
import re
import time

from purenoise_jax.chaos import inspection
from purenoise_jax.chaos.harness import Harness, Result, differences, first_lines
from purenoise_jax.chaos.process_control import Hung
from purenoise_jax.runtime.errors import InUseError

TOLD = re.compile(r"is in use by (process (\d+) on \S+|another run)")


@dataclasses.dataclass
class Raced:
    """What came of one race.

    Attributes:
        refused: runs that were turned away.
        named: of these, those that were told by which process on which machine.
        problems: a line for each broken promise.
    """

    refused: int = 0
    named: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)


def inject(harness: Harness, races: int) -> list[Result]:
    """Starts two or three runs at once, so many times.

    Args:
        harness: with references.
        races: how many times.
    """
    found = harness.at_once(lambda index: _race(harness, index), range(races))
    problems = [problem for race in found for problem in race.problems]
    survived = sum(not race.problems for race in found)
    refused, named = (sum(getattr(race, name) for race in found) for name in ("refused", "named"))
    numbers = {"races": races, "one_winner": survived, "refused": refused, "named": named}
    told = (
        f"one trained, and ended bitwise as if left alone; {refused} others left with exit code 7, "
        f"{named} of them told which process on which host has it"
    )
    what = "started at once in one workdir"
    return [Result(what, races, survived, told, numbers, first_lines(problems))]


def _race(harness: Harness, index: int) -> Raced:
    rng = random.Random(f"races {harness.seed} {index}")
    case = harness.cases[index % len(harness.cases)]
    workdir = harness.new_folder(f"race-{case.name}")
    start = time.monotonic() + 0.3
    # Half of them not to the microsecond, as a second one may come while the first one writes.
    spread = rng.choice((0.0, 0.5))
    race = Raced()
    try:
        runs = [
            harness.start(case, workdir, begin_at=start + spread * rng.random())
            for _ in range(rng.choice((2, 2, 3)))
        ]
        codes = [run.wait() for run in runs]
        winners = [run for run in runs if run.code == 0]
        losers = [run for run in runs if run.code == InUseError.exit_code]
        race.refused = len(losers)
        if len(winners) != 1 or len(losers) != len(runs) - 1:
            race.problems.append(
                f"exit codes {codes}, not one 0 and all others {InUseError.exit_code}"
            )
        for run in losers:
            told = TOLD.search(run.notes())
            race.named += bool(told and told[2])
            # For a moment, the one that has the lock has not yet written who it is.
            if not told or (told[2] and winners and int(told[2]) != winners[0].pid):
                race.problems.append(f"turned away, and not told by whom: {run.last_line()}")
            if run.last("start") is not None:
                race.problems.append("one that was turned away had begun to train")
        race.problems += differences(workdir, harness.references[case.name])
        race.problems += inspection.damages(workdir)
    except Hung as hung:
        race.problems.append(f"hung: {hung}")
    harness.done(workdir, race.problems)
    return race
