"""Concurrency faults: several runs started at once in one workdir, of which only one may train."""

import dataclasses
import random
import re
import time

from purenoise_jax.chaos import inspection
from purenoise_jax.chaos.harness import Harness, Result, differences, first_lines
from purenoise_jax.chaos.process_control import Hung
from purenoise_jax.runtime.errors import InUseError

IN_USE = re.compile(r"is in use by (process (\d+) on \S+|another run)")


@dataclasses.dataclass
class Raced:
    """Outcome of one race.

    Attributes:
        refused: number of runs that were refused.
        named: number of these whose message names the process and host that hold the workdir.
        problems: a line for each violated invariant.
    """

    refused: int = 0
    named: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)


def inject(harness: Harness, races: int) -> list[Result]:
    """Starts two or three runs at once.

    Args:
        harness: a harness with its reference runs done.
        races: number of times.
    """
    found = harness.at_once(lambda index: _race(harness, index), range(races))
    problems = [problem for race in found for problem in race.problems]
    survived = sum(not race.problems for race in found)
    refused, named = (sum(getattr(race, name) for race in found) for name in ("refused", "named"))
    numbers = {"races": races, "one_winner": survived, "refused": refused, "named": named}
    outcome = (
        f"one trained and ended bitwise like the undisturbed one; {refused} others exited with "
        f"code 7, {named} of them naming the process and host that hold the workdir"
    )
    what = "started at once in one workdir"
    return [Result(what, races, survived, outcome, numbers, first_lines(problems))]


def _race(harness: Harness, index: int) -> Raced:
    rng = random.Random(f"races {harness.seed} {index}")
    scenario = harness.scenarios[index % len(harness.scenarios)]
    workdir = harness.new_folder(f"race-{scenario.name}")
    start = time.monotonic() + 0.3
    # Half of the races are spread out, so that one run may start while another already writes.
    spread = rng.choice((0.0, 0.5))
    race = Raced()
    try:
        runs = [
            harness.start(scenario, workdir, begin_at=start + spread * rng.random())
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
            holder = IN_USE.search(run.notes())
            race.named += bool(holder and holder[2])
            # A missing name is no problem: the holder writes its name just after it gets the lock.
            if not holder or (holder[2] and winners and int(holder[2]) != winners[0].pid):
                race.problems.append(f"refused without the right holder's name: {run.last_line()}")
            if run.last("start") is not None:
                race.problems.append("a refused run had begun to train")
        race.problems += differences(workdir, harness.references[scenario.name])
        race.problems += inspection.damages(workdir)
    except Hung as hung:
        race.problems.append(f"hung: {hung}")
    harness.done(workdir, race.problems)
    return race
