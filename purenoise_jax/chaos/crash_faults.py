"""Crash faults: kills runs at random instants and restarts them until they finish."""

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

# After this many kills a run is left to finish, so that several runs are tested.
KILLS_PER_RUN = 10
# "in save" and "in deletion": once that has begun; "just saved": as soon as a new step is there.
INSTANTS = ("anywhere", "in save", "in save", "in deletion", "just saved")
# About the longest duration of a save.
SAVE_SECONDS = 0.12


@dataclasses.dataclass
class Killed:
    """Outcome of one run.

    Attributes:
        kills: number of kills.
        in_save: number of kills while a step was being written.
        in_deletion: number of kills while a step was being deleted.
        lost: number of saved steps that were missing afterwards.
        damaged: number of steps listed after a kill that were not as written.
        redone: for each kill, the number of steps computed again.
        same: True if it ended like the undisturbed reference run.
        problems: a line for each violated invariant.
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
    """Kills runs at random instants.

    Args:
        harness: a harness with its reference runs done.
        kills: total number of kills.
    """
    quotas = [min(KILLS_PER_RUN, kills - i) for i in range(0, kills, KILLS_PER_RUN)]
    if len(quotas) < len(harness.scenarios):
        quotas = [kills - kills // 2, kills // 2]
    runs = [
        run
        for part in harness.at_once(
            lambda item: _use_up(harness, item[0], item[1]), [*enumerate(quotas)]
        )
        for run in part
    ]
    return [_sum_up(runs)]


def _use_up(harness: Harness, index: int, quota: int) -> list[Killed]:
    """Kills one run after the other until the quota of kills is used up."""
    rng = random.Random(f"kills {harness.seed} {index}")
    runs: list[Killed] = []
    while quota > 0:
        scenario = harness.scenarios[(index + len(runs)) % len(harness.scenarios)]
        runs.append(_kill_until_done(harness, scenario, rng, quota))
        quota -= runs[-1].kills
        if runs[-1].problems:
            break
    return runs


def _kill_until_done(
    harness: Harness, scenario: Scenario, rng: random.Random, quota: int
) -> Killed:
    workdir = harness.new_folder(f"killed-{scenario.name}")
    run, reached = Killed(), 0
    # Every step that was ever saved, not only those saved at the kill: otherwise a run that deletes
    # the old step before the new one is complete would go unnoticed.
    seen: set[int] = set()
    try:
        while not run.problems:
            seen.update(inspection.steps(workdir))
            saved = max(seen, default=0)
            subject = harness.start(scenario, workdir)
            killed = run.kills < quota and _kill_at_random(
                harness, scenario, subject, workdir, rng, run, seen
            )
            code = subject.wait()
            begun = subject.last("start")
            if begun is not None:
                if begun < saved:
                    run.problems.append(
                        f"continued from step {begun}, although step {saved} was saved"
                    )
                if run.kills:
                    run.redone.append(max(0, reached - begun))
                reached = begun
            reached = max(reached, subject.last("step") or 0)
            if killed:
                harness.advance()
                continue
            if code != 0:
                run.problems.append(
                    f"after {run.kills} kills it ended with exit code {code}: {subject.last_line()}"
                )
                break
            found = differences(workdir, harness.references[scenario.name])
            run.same = not found
            run.problems += found
            break
    except Hung as hung:
        run.problems.append(f"hung: {hung}")
    if not run.problems:
        harness.remove(workdir)
    return run


def _kill_at_random(
    harness: Harness,
    scenario: Scenario,
    subject: Subject,
    workdir: Path,
    rng: random.Random,
    run: Killed,
    seen: set[int],
) -> bool:
    """Kills a run at a random instant; False if the run ended first."""

    def newest() -> int:
        seen.update(inspection.steps(workdir))
        return max(seen, default=0)

    if not until(lambda: subject.last("doing") == "compiling", subject):
        return False
    done = newest()
    how = rng.choice(INSTANTS)
    if how == "anywhere":
        # Early instants are more likely, so that a run is killed several times.
        left = harness.references[scenario.name].seconds * (1 - 0.5 * done / TOTAL_STEPS)
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
        # Polls without pause, because a deletion takes only a few milliseconds.
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
    run.problems += [f"step {step} was saved and is missing" for step in gone]
    run.problems += [f"listed after a kill, but {why}" for why in bad]
    return True


def _spin(condition: Callable[[], bool], subject: Subject, pause: float) -> bool:
    """Waits until a condition holds; False if the subject ends first."""
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
    outcome = (
        f"{numbers['in_save']} in mid-save, {numbers['in_deletion']} in mid-deletion; "
        f"saved steps lost: {numbers['saved_steps_lost']}; steps redone: "
        f"{sum(redone) / max(kills, 1):.1f} a kill, at most {max(redone, default=0)}; "
        f"{numbers['runs_same']} of {len(runs)} runs ended bitwise like the undisturbed one"
    )
    problems = [problem for run in runs for problem in run.problems]
    survived = kills - sum(bool(run.problems) for run in runs)
    return Result("killed (SIGKILL)", kills, survived, outcome, numbers, first_lines(problems))
