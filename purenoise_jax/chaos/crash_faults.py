"""Runs that are killed again and again, and started again with the same command until done."""

import dataclasses
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from purenoise_jax.chaos import inspection, process_control
from purenoise_jax.chaos.harness import Harness, Result, differences, first_lines
from purenoise_jax.chaos.process_control import Hung, Subject, until
from purenoise_jax.chaos.scenarios import KEEP, TOTAL_STEPS, Scenario

# A run is left to end after so many, so that there are several of them.
KILLS_PER_RUN = 10
# "in save" and "in deletion" are when that has begun, "just saved" is as soon as a step is there.
INSTANTS = ("anywhere", "in save", "in save", "in deletion", "just saved")
# A save takes about as long here, at most.
SAVE_SECONDS = 0.12


@dataclasses.dataclass
class Killed:
    """What became of one run.

    Attributes:
        kills: how often it was killed.
        in_save: how often of these while a step was being written.
        in_deletion: how often of these while a step was being deleted.
        lost: steps that were saved, and gone afterwards.
        damaged: steps that were listed after a kill, and not as they were written.
        redone: steps that were computed again after each kill.
        same: whether its end was that of a run that nothing befell.
        problems: a line for each broken promise.
    """

    kills: int = 0
    in_save: int = 0
    in_deletion: int = 0
    lost: int = 0
    damaged: int = 0
    redone: list[int] = dataclasses.field(default_factory=list)
    same: bool = False
    problems: list[str] = dataclasses.field(default_factory=list)


def inject(harness: Harness, kills: int) -> list[Result]:
    """Kills runs so many times.

    Args:
        harness: with references.
        kills: altogether.
    """
    quotas = [min(KILLS_PER_RUN, kills - i) for i in range(0, kills, KILLS_PER_RUN)]
    if len(quotas) < len(harness.cases):
        quotas = [kills - kills // 2, kills // 2]
    runs = [
        run
        for part in harness.at_once(
            lambda item: _spend(harness, item[0], item[1]), [*enumerate(quotas)]
        )
        for run in part
    ]
    return [_sum_up(runs)]


def _spend(harness: Harness, index: int, quota: int) -> list[Killed]:
    """Kills one run after the other until the quota is used up."""
    rng = random.Random(f"kills {harness.seed} {index}")
    runs: list[Killed] = []
    while quota > 0:
        case = harness.cases[(index + len(runs)) % len(harness.cases)]
        runs.append(_kill_until_done(harness, case, rng, quota))
        quota -= runs[-1].kills
        if runs[-1].problems:
            break
    return runs


def _kill_until_done(harness: Harness, case: Scenario, rng: random.Random, quota: int) -> Killed:
    workdir = harness.new_folder(f"killed-{case.name}")
    run, reached = Killed(), 0
    # Every step that was ever there under its number. Not only what is there when it is killed: a
    # run that deletes the old step before the new one is whole would go unnoticed.
    seen: set[int] = set()
    try:
        while not run.problems:
            seen.update(inspection.steps(workdir))
            saved = max(seen, default=0)
            subject = harness.start(case, workdir)
            killed = run.kills < quota and _strike(harness, case, subject, workdir, rng, run, seen)
            code = subject.wait()
            begun = subject.last("start")
            if begun is not None:
                if begun < saved:
                    run.problems.append(f"went on at step {begun}, although {saved} was saved")
                if run.kills:
                    run.redone.append(max(0, reached - begun))
                reached = begun
            reached = max(reached, subject.last("step") or 0)
            if killed:
                harness.advance()
                continue
            if code != 0:
                run.problems.append(
                    f"after {run.kills} kills it ended with {code}: {subject.last_line()}"
                )
                break
            found = differences(workdir, harness.references[case.name])
            run.same = not found
            run.problems += found
            break
    except Hung as hung:
        run.problems.append(f"hung: {hung}")
    if not run.problems:
        harness.remove(workdir)
    return run


def _strike(
    harness: Harness,
    case: Scenario,
    subject: Subject,
    workdir: Path,
    rng: random.Random,
    run: Killed,
    seen: set[int],
) -> bool:
    """Kills a run at a random instant; False if it was done before."""

    def newest() -> int:
        seen.update(inspection.steps(workdir))
        return max(seen, default=0)

    if not until(lambda: subject.last("doing") == "compiling", subject):
        return False
    done = newest()
    how = rng.choice(INSTANTS)
    if how == "anywhere":
        # Short lives are more likely, so that a run is killed several times.
        left = harness.references[case.name].seconds * (1 - 0.5 * done / TOTAL_STEPS)
        end = time.monotonic() + left * rng.random() ** 2
        if not _spin(lambda: newest() < 0 or time.monotonic() > end, subject, 0.001):
            return False
    else:
        new = rng.choice((0, 1, 1, 2))
        if not _spin(lambda: newest() >= done + new, subject, 0.002):
            return False
        wanted: dict[str, Callable[[], bool]] = {
            "in save": lambda: inspection.in_save(workdir),
            "in deletion": lambda: inspection.in_deletion(workdir),
            "just saved": lambda: newest() > done + new,
        }
        # As fast as it goes: deleting takes a few milliseconds.
        if not _spin(wanted[how], subject, 0.0):
            return False
        if how == "in save":
            time.sleep(rng.random() * SAVE_SECONDS)
    newest()
    if not subject.send(signal.SIGKILL) or subject.wait() != -signal.SIGKILL:
        return False
    run.kills += 1
    run.in_save += inspection.in_save(workdir)
    run.in_deletion += inspection.in_deletion(workdir)
    gone, bad = (
        inspection.lost(sorted(seen), inspection.steps(workdir)),
        inspection.damages(workdir),
    )
    run.lost += len(gone)
    run.damaged += len(bad)
    run.problems += [f"step {step} was saved, and is gone" for step in gone]
    run.problems += [f"listed after a kill, but {why}" for why in bad]
    return True


def _spin(condition: Callable[[], bool], subject: Subject, pause: float) -> bool:
    """Waits until a condition holds; False if the subject has ended before."""
    end = time.monotonic() + process_control.PATIENCE_SECONDS
    while not condition():
        if subject.dead.is_set():
            return False
        if time.monotonic() > end:
            subject.wait(0)
        time.sleep(pause)
    return True


def _sum_up(runs: list[Killed]) -> Result:
    kills = sum(run.kills for run in runs)
    redone = [steps for run in runs for steps in run.redone]
    numbers = {
        "kills": kills,
        "in_save": sum(run.in_save for run in runs),
        "in_deletion": sum(run.in_deletion for run in runs),
        "saved_steps_lost": sum(run.lost for run in runs),
        "listed_steps_damaged": sum(run.damaged for run in runs),
        "steps_redone": sum(redone),
        "steps_redone_most": max(redone, default=0),
        "runs": len(runs),
        "runs_same": sum(run.same for run in runs),
        "keep": KEEP,
    }
    told = (
        f"{numbers['in_save']} in mid-save, {numbers['in_deletion']} in mid-deletion; "
        f"saved steps lost: {numbers['saved_steps_lost']}; steps redone: "
        f"{sum(redone) / max(kills, 1):.1f} a kill, at most {max(redone, default=0)}; "
        f"{numbers['runs_same']} of {len(runs)} runs ended bitwise as if left alone"
    )
    problems = [problem for run in runs for problem in run.problems]
    survived = kills - sum(bool(run.problems) for run in runs)
    return Result("killed (SIGKILL)", kills, survived, told, numbers, first_lines(problems))
