"""Runs that are killed again and again, and started again with the same command until done."""

import dataclasses
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from purenoise_jax.chaos import inspection, process_control
from purenoise_jax.chaos.harness import Result, Scene, differences, first_lines
from purenoise_jax.chaos.process_control import Hung, Victim, until
from purenoise_jax.chaos.scenarios import KEEP, TOTAL_STEPS, Case

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


def torment(scene: Scene, kills: int) -> list[Result]:
    """Kills runs so many times.

    Args:
      scene: with references.
      kills: altogether.
    """
    quotas = [min(KILLS_PER_RUN, kills - i) for i in range(0, kills, KILLS_PER_RUN)]
    if len(quotas) < len(scene.cases):
        quotas = [kills - kills // 2, kills // 2]
    runs = [
        run
        for part in scene.at_once(
            lambda item: _spend(scene, item[0], item[1]), [*enumerate(quotas)]
        )
        for run in part
    ]
    return [_sum_up(runs)]


def _spend(scene: Scene, index: int, quota: int) -> list[Killed]:
    """Kills one run after the other until the quota is used up."""
    rng = random.Random(f"kills {scene.seed} {index}")
    runs: list[Killed] = []
    while quota > 0:
        case = scene.cases[(index + len(runs)) % len(scene.cases)]
        runs.append(_kill_until_done(scene, case, rng, quota))
        quota -= runs[-1].kills
        if runs[-1].problems:
            break
    return runs


def _kill_until_done(scene: Scene, case: Case, rng: random.Random, quota: int) -> Killed:
    workdir = scene.new_folder(f"killed-{case.name}")
    run, reached = Killed(), 0
    # Every step that was ever there under its number. Not only what is there when it is killed: a
    # run that deletes the old step before the new one is whole would go unnoticed.
    seen: set[int] = set()
    try:
        while not run.problems:
            seen.update(inspection.steps(workdir))
            saved = max(seen, default=0)
            victim = scene.start(case, workdir)
            killed = run.kills < quota and _strike(scene, case, victim, workdir, rng, run, seen)
            code = victim.wait()
            begun = victim.last("start")
            if begun is not None:
                if begun < saved:
                    run.problems.append(f"went on at step {begun}, although {saved} was saved")
                if run.kills:
                    run.redone.append(max(0, reached - begun))
                reached = begun
            reached = max(reached, victim.last("step") or 0)
            if killed:
                scene.advance()
                continue
            if code != 0:
                run.problems.append(
                    f"after {run.kills} kills it ended with {code}: {victim.last_line()}"
                )
                break
            found = differences(workdir, scene.references[case.name])
            run.same = not found
            run.problems += found
            break
    except Hung as hung:
        run.problems.append(f"hung: {hung}")
    if not run.problems:
        scene.remove(workdir)
    return run


def _strike(
    scene: Scene,
    case: Case,
    victim: Victim,
    workdir: Path,
    rng: random.Random,
    run: Killed,
    seen: set[int],
) -> bool:
    """Kills a run at a random instant; False if it was done before."""

    def newest() -> int:
        seen.update(inspection.steps(workdir))
        return max(seen, default=0)

    if not until(lambda: victim.last("doing") == "compiling", victim):
        return False
    done = newest()
    how = rng.choice(INSTANTS)
    if how == "anywhere":
        # Short lives are more likely, so that a run is killed several times.
        left = scene.references[case.name].seconds * (1 - 0.5 * done / TOTAL_STEPS)
        end = time.monotonic() + left * rng.random() ** 2
        if not _spin(lambda: newest() < 0 or time.monotonic() > end, victim, 0.001):
            return False
    else:
        new = rng.choice((0, 1, 1, 2))
        if not _spin(lambda: newest() >= done + new, victim, 0.002):
            return False
        wanted: dict[str, Callable[[], bool]] = {
            "in save": lambda: inspection.in_save(workdir),
            "in deletion": lambda: inspection.in_deletion(workdir),
            "just saved": lambda: newest() > done + new,
        }
        # As fast as it goes: deleting takes a few milliseconds.
        if not _spin(wanted[how], victim, 0.0):
            return False
        if how == "in save":
            time.sleep(rng.random() * SAVE_SECONDS)
    newest()
    if not victim.send(signal.SIGKILL) or victim.wait() != -signal.SIGKILL:
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


def _spin(condition: Callable[[], bool], victim: Victim, pause: float) -> bool:
    """Waits until a condition holds; False if the victim has ended before."""
    end = time.monotonic() + process_control.PATIENCE_SECONDS
    while not condition():
        if victim.dead.is_set():
            return False
        if time.monotonic() > end:
            victim.wait(0)
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
