"""Submits the tasks of a table to SLURM as arrays of jobs, one run a job.

Runs that start from others are in an array of their own, which waits for the first. The state of a
run is in its folder, as with every other engine: a job whose run is finished or in progress
elsewhere ends at once. What is submitted is in OUT/jobs/NUMBER.txt, a workdir a line, by the number
of the array.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import ConfigError, PureNoiseError, counted
from purenoise_jax.runtime.files import write_atomically

from ..planning import Task

JOBS = "jobs"
SCRIPT = Path(__file__).parents[1] / "slurm_array.sbatch"
SECONDS = 60


def submit(
    tasks: Sequence[Task],
    arguments: Sequence[str],
    *,
    at_a_time: int,
    options: Sequence[str],
    root: Path,
    console: SafeConsole,
    program: str,
) -> list[str]:
    """Submits the tasks that are neither finished nor in the queue already.

    The jobs run in the folder of the command, where relative paths mean the same.

    Args:
        tasks: of a table, each after those that it starts from.
        arguments: of the program, for all jobs; each gets `--run WORKDIR` besides.
        at_a_time: most jobs of an array that run at a time; 0 = no limit.
        options: of sbatch, such as "--partition=gpu".
        root: folder of all runs.
        console: where the numbers of the arrays are shown.
        program: module of the program that trains a run.

    Returns:
        The numbers of the arrays.

    Raises:
        ConfigError: SLURM is not there, or refuses the jobs.
    """
    queue = queued(root)
    new = [task for task in tasks if not task.summary and task.workdir not in queue]
    waiting = sum(not task.summary for task in tasks) - len(new)
    if waiting:
        console.print(f"{counted(waiting, 'run is', 'runs are')} in the queue already")
    if not new:
        console.print("nothing to submit")
        return []
    numbers: list[str] = []
    for stage in stages(new):
        # An earlier run of this table may be in an array that was submitted before.
        earlier = {queue[w] for task in stage for w in task.starts_from if w in queue}
        # After any end: a job checks itself whether the run that it starts from is finished, so
        # that one failed run does not hold up those that start from others.
        after = ":".join(sorted({*earlier, *numbers}))
        command = [
            "sbatch", "--parsable", "--hold", f"--array=0-{len(stage) - 1}" + (
                f"%{at_a_time}" if at_a_time else ""
            ),
            *([f"--dependency=afterany:{after}"] if after else []),
            f"--chdir={Path.cwd()}", f"--output={root / JOBS}/%A_%a.log", *options, str(SCRIPT),
            str(root / JOBS), str(SCRIPT.parent), program, *arguments,
        ]  # fmt: skip
        (root / JOBS).mkdir(parents=True, exist_ok=True)
        number = _call(command).partition(";")[0].strip()
        # Released only with its list, which its jobs read.
        listed = "".join(f"{task.workdir}\n" for task in stage)
        write_atomically(root / JOBS / f"{number}.txt", listed)
        _call(["scontrol", "release", number])
        then = f", after {after}" if after else ""
        console.print(f"array {number}: {counted(len(stage), 'run')}{then}")
        numbers.append(number)
    return numbers


def stages(tasks: Sequence[Task]) -> list[list[Task]]:
    """Groups tasks so that each starts only from those of earlier groups, or from others."""
    level: dict[Path, int] = {}
    for task in tasks:
        level[task.workdir] = max((level[w] + 1 for w in task.starts_from if w in level), default=0)
    return [
        [task for task in tasks if level[task.workdir] == i]
        for i in range(max(level.values(), default=-1) + 1)
    ]


def queued(root: Path) -> dict[Path, str]:
    """The runs whose jobs wait or run, each with the number of its array; empty without SLURM."""
    lists = {path.stem: path for path in (root / JOBS).glob("*.txt")}
    if not lists:
        return {}
    try:
        # One line a job: the number of its array, and its place in it.
        shown = _call(["squeue", "--noheader", "--array", "--format=%F %K"])
    except ConfigError:
        return {}
    found = {}
    for number, place in re.findall(r"^\s*(\d+) (\d+)\s*$", shown, re.M):
        if number in lists:
            found[Path(lists[number].read_text().splitlines()[int(place)])] = number
    return found


def _call(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError:
        raise ConfigError(f"{command[0]} is not on this machine: --engine slurm needs SLURM") from (
            None
        )
    except subprocess.TimeoutExpired:
        raise PureNoiseError(f"{command[0]} has not answered for {SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ConfigError(f"{command[0]}: {lines[-1].removeprefix(f'{command[0]}: ')}")
    return done.stdout
