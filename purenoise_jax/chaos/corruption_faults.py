"""Corruption faults: damages the checkpoints of finished runs and starts from them."""

import json
import random
import shutil
import time
from typing import Any

from purenoise_jax.chaos import inspection
from purenoise_jax.chaos.corruption_modes import KINDS
from purenoise_jax.chaos.harness import Harness, Result, differences, first_lines
from purenoise_jax.chaos.process_control import PATIENCE_SECONDS, Hung
from purenoise_jax.chaos.scenarios import SCENARIOS, Scenario
from purenoise_jax.checkpoint.manager import FOLDER, QUARANTINE
from purenoise_jax.runtime.errors import CheckpointError


def inject(harness: Harness, times: int) -> list[Result]:
    """Damages the checkpoints of finished runs, and starts from them.

    Args:
        harness: a harness with its reference runs done.
        times: number of damaged checkpoints.
    """
    names = list(KINDS)
    random.Random(f"damage {harness.seed}").shuffle(names)
    # Each kind in turn, so that even a few damages cover many kinds.
    kinds = [names[i % len(names)] for i in range(times)]
    shares = [kinds[i :: harness.jobs] for i in range(harness.jobs)]
    parts = harness.at_once(lambda item: _start_many(harness, *item), [*enumerate(shares)])
    ends = harness.at_once(lambda scenario: _damage_all(harness, scenario), harness.scenarios)
    return [_sum_up(times, parts), _sum_up_ends(ends)]


def _start_many(harness: Harness, index: int, kinds: list[str]) -> dict[str, Any]:
    """Injects many in one process, because most of a start has nothing to do with checkpoints."""
    if not kinds:
        return {}
    scenario = harness.scenarios[index % len(harness.scenarios)]
    folder = harness.new_folder("damage")
    arguments = {
        "scratch": str(folder),
        "seed": f"damage {harness.seed} {index}",
        "kinds": kinds,
        "result": f"{folder}.json",
    }
    workdir = harness.references[scenario.name].workdir
    subject = harness.start(scenario, workdir, task="damage", arguments=arguments)
    done, since = 0, time.monotonic()
    while not subject.dead.wait(0.05):
        now = subject.last("done") or 0
        if now > done:
            since = time.monotonic()
        for _ in range(now - done):
            harness.advance()
        done = now
        if time.monotonic() - since > PATIENCE_SECONDS:
            return {"problems": [f"hung: {hung}" for hung in [_end(subject)]]}
    for _ in range(len(kinds) - done):
        harness.advance()
    if subject.code != 0:
        return {
            "problems": [f"the process ended with exit code {subject.code}: {subject.last_line()}"]
        }
    return dict(json.loads(folder.with_name(f"{folder.name}.json").read_text()))


def count(times: int) -> int:
    """The number of starts."""
    return times + len(SCENARIOS)


def _end(subject: Any) -> str:
    try:
        subject.wait(0)
    except Hung as hung:
        return str(hung)
    return ""


def _damage_all(harness: Harness, scenario: Scenario) -> list[str]:
    """A run without a complete step must not start from scratch unless fresh=True."""
    reference = harness.references[scenario.name]
    rng = random.Random(f"all damaged {harness.seed} {scenario.name}")
    workdir = harness.new_folder(f"all-damaged-{scenario.name}")
    shutil.copytree(reference.workdir, workdir)
    (workdir / "summary.json").unlink()
    steps = inspection.steps(workdir)
    for step in steps:
        files = sorted(p for p in (workdir / FOLDER / str(step)).rglob("*") if p.is_file())
        path = rng.choice(files)
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1
        path.write_bytes(data)
    problems = []
    try:
        subject = harness.start(scenario, workdir)
        code = subject.wait()
        if code != CheckpointError.exit_code:
            problems.append(f"exit code {code} with all steps damaged: {subject.last_line()}")
        if subject.last("start") is not None or inspection.steps(workdir) != steps:
            problems.append("with all steps damaged it trained from scratch, or removed them")
        fresh = harness.start(scenario, workdir, overrides={"fresh": True})
        code = fresh.wait()
        if code != 0:
            problems.append(f"exit code {code} with fresh=True: {fresh.last_line()}")
        problems += differences(workdir, reference)
        aside = workdir / FOLDER / QUARANTINE
        if not all((aside / str(step)).is_dir() for step in steps):
            problems.append(f"with fresh=True the damaged steps were not moved to {QUARANTINE}/")
    except Hung as hung:
        problems.append(f"hung: {hung}")
    harness.done(workdir, problems)
    return problems


def _sum_up(times: int, parts: list[dict[str, Any]]) -> Result:
    counted = ("times", "fell_back", "harmless", "silent", "unnoticed", "not_kept")
    numbers: dict[str, Any] = {name: sum(part.get(name, 0) for part in parts) for name in counted}
    kinds: dict[str, int] = {}
    for part in parts:
        for kind, count in part.get("kinds", {}).items():
            kinds[kind] = kinds.get(kind, 0) + count
    numbers["kinds"] = kinds
    problems = [problem for part in parts for problem in part.get("problems", ())]
    outcome = (
        f"{len(kinds)} kinds; back to the newest complete step: {numbers['fell_back']}; harmless: "
        f"{numbers['harmless']}; wrong values taken silently: {numbers['silent']}"
    )
    survived = numbers["fell_back"] + numbers["harmless"]
    if not problems and survived != times:
        problems.append(f"{times - survived} of {times} were not accounted for")
    return Result("checkpoint damaged", times, survived, outcome, numbers, first_lines(problems))


def _sum_up_ends(ends: list[list[str]]) -> Result:
    problems = [problem for end in ends for problem in end]
    survived = sum(not end for end in ends)
    outcome = (
        "refused with exit code 4; fresh=True then starts from scratch and keeps the old files"
    )
    return Result(
        "all checkpoints damaged", len(ends), survived, outcome, {}, first_lines(problems)
    )
