"""Signal faults: sends SIGTERM, SIGUSR1 or SIGINT to a run in each of its phases."""

import dataclasses
import random
import shutil
import signal
import statistics
import time

from purenoise_jax.chaos import inspection
from purenoise_jax.chaos.harness import Harness, Result, differences, first_lines
from purenoise_jax.chaos.process_control import Hung, Subject, until
from purenoise_jax.chaos.scenarios import TOTAL_STEPS
from purenoise_jax.runtime.errors import INTERRUPTED, TERMINATED

# Phase that a run reports -> number of times that it reports it, at least.
PHASES = {
    "reading the data": 1,
    "compiling": 3,
    "epoch": TOTAL_STEPS - 1,
    "evaluating": 2,
    "saving": TOTAL_STEPS - 1,
}
NAMES = {"epoch": "training"}
SIGNALS = {
    signal.SIGTERM: TERMINATED,
    signal.SIGUSR1: TERMINATED,
    signal.SIGINT: INTERRUPTED,
}
MOST_SECONDS = 5.0
# Several attempts, because a phase may be over by the time the signal is sent.
ATTEMPTS = 6


@dataclasses.dataclass(frozen=True)
class Answer:
    """Outcome of one signal.

    Attributes:
        phase: phase of the run at the signal.
        seconds: time from the signal to the end of the process.
        problems: a line for each violated invariant.
    """

    phase: str
    seconds: float
    problems: tuple[str, ...]


def inject(harness: Harness, times: int) -> list[Result]:
    """Sends signals in every phase.

    Args:
        harness: a harness with its reference runs done.
        times: number of runs for each phase; the three signals take turns.
    """
    numbers = list(SIGNALS)
    trials = [
        (phase, numbers[(i + n) % len(numbers)], i * times + n)
        for i, phase in enumerate(PHASES)
        for n in range(times)
    ]
    answers = harness.at_once(lambda trial: _signal_in_phase(harness, *trial), trials)
    rows = []
    for phase in PHASES:
        found = [answer for answer in answers if answer.phase == phase]
        if found:
            rows.append(_sum_up(f"signal while {NAMES.get(phase, phase)}", found))
    twice = harness.at_once(lambda index: _interrupt_twice(harness, index), range(times))
    if twice:
        rows.append(_sum_up("Ctrl-C twice", twice))
    return rows


def count(times: int) -> int:
    """The number of runs that get a signal."""
    return times * (len(PHASES) + 1)


def _signal_in_phase(harness: Harness, phase: str, number: signal.Signals, index: int) -> Answer:
    rng = random.Random(f"signals {harness.seed} {index}")
    scenario = harness.scenarios[index % len(harness.scenarios)]
    problems: list[str] = []
    seconds = 0.0
    workdir = harness.folder / "none"
    try:
        for _ in range(ATTEMPTS):
            shutil.rmtree(workdir, ignore_errors=True)
            workdir = harness.new_folder("signal")
            subject = harness.start(scenario, workdir)
            sent = _send_in(subject, phase, rng.randrange(PHASES[phase]), number)
            code = subject.wait()
            if sent and _phase_at(subject, sent) == phase:
                break
        else:
            return Answer(phase, 0.0, (f"no signal reached a run while {phase}",))
        seconds = subject.died_at - sent
        if code != SIGNALS[number]:
            problems.append(f"{number.name} while {phase}: exit code {code}: {subject.last_line()}")
        if seconds > MOST_SECONDS:
            problems.append(f"{number.name} while {phase}: ended only after {seconds:.1f} s")
        problems += inspection.damages(workdir)
        saved = max(inspection.steps(workdir), default=0)
        computed = subject.last("step") or 0
        if computed > saved:
            problems.append(f"{number.name} while {phase}: {computed} computed, {saved} saved")
        again = harness.start(scenario, workdir)
        code = again.wait()
        if code != 0 or (again.last("start") or 0) != saved:
            problems.append(
                f"after {number.name} while {phase} it did not continue: exit code {code}"
            )
        problems += differences(workdir, harness.references[scenario.name])
    except Hung as hung:
        problems.append(f"{number.name} while {phase}: hung: {hung}")
    harness.done(workdir, problems)
    return Answer(phase, seconds, tuple(problems))


def _interrupt_twice(harness: Harness, index: int) -> Answer:
    """Sends SIGINT twice, which ends a run without waiting for its last save."""
    scenario = harness.scenarios[index % len(harness.scenarios)]
    workdir = harness.new_folder("twice")
    problems: list[str] = []
    seconds = 0.0
    try:
        subject = harness.start(scenario, workdir)
        begun = until(lambda: len(inspection.steps(workdir)) >= 2, subject)
        sent = time.monotonic()
        subject.send(signal.SIGINT)
        # Two signals at the same time would be delivered as one.
        time.sleep(0.02)
        subject.send(signal.SIGINT)
        code = subject.wait()
        seconds = subject.died_at - sent
        if not begun or code != INTERRUPTED:
            problems.append(f"SIGINT twice: exit code {code}: {subject.last_line()}")
        if seconds > MOST_SECONDS:
            problems.append(f"SIGINT twice: ended only after {seconds:.1f} s")
        problems += inspection.damages(workdir)
        if harness.start(scenario, workdir).wait() != 0:
            problems.append("after SIGINT twice it did not continue")
        problems += differences(workdir, harness.references[scenario.name])
    except Hung as hung:
        problems.append(f"SIGINT twice: hung: {hung}")
    harness.done(workdir, problems)
    return Answer("twice", seconds, tuple(problems))


def _send_in(subject: Subject, phase: str, skip: int, number: signal.Signals) -> float:
    """Sends a signal in a phase; returns the time on the monotonic clock, 0 if the run ended first.

    Args:
        subject: process that gets the signal.
        phase: phase that it must report.
        skip: number of times that the phase passes first.
        number: the signal.
    """

    def there() -> bool:
        phases = [str(value) for _, kind, value in subject.events() if kind == "doing"]
        times = sum(what.startswith(phase) for what in phases)
        return times > skip and phases[-1].startswith(phase)

    if not until(there, subject):
        return 0.0
    now = time.monotonic()
    return now if subject.send(number) else 0.0


def _phase_at(subject: Subject, when: float) -> str:
    phases = [str(value) for at, kind, value in subject.events() if kind == "doing" and at <= when]
    return next((phase for phase in PHASES if phases and phases[-1].startswith(phase)), "")


def _sum_up(what: str, answers: list[Answer]) -> Result:
    seconds = [answer.seconds for answer in answers]
    problems = [problem for answer in answers for problem in answer.problems]
    numbers = {"seconds_most": max(seconds), "seconds_median": statistics.median(seconds)}
    outcome = (
        f"ended within {max(seconds):.1f} s (median {statistics.median(seconds):.1f} s); continued"
    )
    survived = sum(not answer.problems for answer in answers)
    return Result(what, len(answers), survived, outcome, numbers, first_lines(problems))
