"""States of the runs of a table, read from their folders."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.runtime.console import SafeConsole, percent
from purenoise_jax.runtime.errors import counted
from purenoise_jax.runtime.workdir_lock import in_use

from .engines.one_run import failure
from .planning import Task
from .summaries import accuracy

DONE, ELSEWHERE, RUNNING, QUEUED, FAILED, STOPPED, TO_DO = (
    "done", "elsewhere", "running", "queued", "failed", "stopped", "to do",
)  # fmt: skip
STATES = (DONE, ELSEWHERE, RUNNING, QUEUED, FAILED, STOPPED, TO_DO)


class RunState(NamedTuple):
    """State of one run.

    Attributes:
        name: one of `STATES`.
        detail: its accuracy, progress or error, for people.
    """

    name: str
    detail: str = ""


def state_of(
    task: Task, queued: Collection[Path] = (), elsewhere: Collection[Path] = ()
) -> RunState:
    """Reads the state of a run.

    Args:
        task: the run.
        queued: workdirs of runs that wait in the queue of a cluster.
        elsewhere: workdirs of runs that are not needed here, see `earlier_lines`.
    """
    summary = task.summary
    if summary:
        return RunState(DONE, f"{percent(accuracy(summary))} %")
    if task.workdir in elsewhere:
        return RunState(ELSEWHERE)
    steps = Checkpoints(task.workdir).steps() if task.workdir.is_dir() else []
    progress = f"checkpoint of step {steps[-1]:,}" if steps else "no checkpoint yet"
    if in_use(task.workdir):
        return RunState(RUNNING, progress)
    if task.workdir in queued:
        return RunState(QUEUED, progress if steps else "")
    record = failure(task.workdir)
    if record:
        return RunState(FAILED, record["error"])
    return RunState(STOPPED, progress) if steps else RunState(TO_DO)


def show_states(
    tasks: Sequence[Task],
    console: SafeConsole,
    queued: Collection[Path] = (),
    elsewhere: Collection[Path] = (),
) -> dict[str, int]:
    """Lists the runs of a table with their states, and how many there are of each.

    Returns:
        The number of runs in each of `STATES`.
    """
    counts = dict.fromkeys(STATES, 0)
    for task in tasks:
        state = state_of(task, queued, elsewhere)
        counts[state.name] += 1
        console.print(f"{state.name:<9} {task.name}  {state.detail}".rstrip())
    there = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    console.print(f"{counted(len(tasks), 'run')}: {there}")
    return counts
