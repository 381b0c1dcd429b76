"""Runs the tasks of a table in several processes of this machine, each a run at a time.

On a CPU each process has its share of the cores: two runs with a core each train faster than one
after the other with both. On a machine with several GPUs each process has one of them; if there are
more processes than GPUs, those of one GPU share its memory, which helps where a step is so short
that starting its kernels takes the time.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import INTERRUPTED, TERMINATED, Stopped

from ..local import SIGNALS, WITH_PARENT, stop
from ..planning import Task
from ..run_states import DONE, RUNNING, state_of

# Beside the folders of the runs: the output of each process.
LOGS = "logs"
# Of a GPU's memory, shared by the processes on it.
MEMORY = 0.9


def run(
    tasks: Sequence[Task],
    arguments: Sequence[str],
    jobs: int,
    root: Path,
    console: SafeConsole,
    command: Sequence[str],
) -> list[Path]:
    """Runs the tasks that are not finished, a task after those that it starts from.

    Args:
        tasks: of a table, each after those that it starts from.
        arguments: of the command, for all processes; each gets `--run WORKDIR` besides.
        jobs: processes at a time, at least 1.
        root: folder of all runs.
        console: where the outcome of each run is shown.
        command: that trains a run: Python, "-m" and the module of a program.

    Returns:
        The workdirs of runs that failed, that another process trains, or that start from these.

    Raises:
        Stopped: a signal ended the command, after all processes have saved and ended.
    """
    waiting = [task for task in tasks if not task.summary]
    known = {task.workdir for task in waiting}
    running: dict[int, tuple[Task, subprocess.Popen]] = {}
    broken: list[Path] = []
    gpus = _gpus()
    (root / LOGS).mkdir(parents=True, exist_ok=True)
    with _passing_on(running) as received:
        try:
            while waiting or running:
                if received:
                    waiting.clear()
                for task in [t for t in waiting if any(w in broken for w in t.starts_from)]:
                    waiting.remove(task)
                    broken.append(task.workdir)
                    console.print(f"{task.name}: skipped, what it starts from is not done")
                free = [place for place in range(jobs) if place not in running]
                ready = [t for t in waiting if not any(w in known for w in t.starts_from)]
                for place, task in zip(free, ready, strict=False):
                    # Blocked, so that no signal arrives between the start and the entry.
                    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
                    try:
                        if received:
                            break
                        waiting.remove(task)
                        own = _gpu_of(place, jobs, gpus)
                        words = [*command, *arguments, "--run", str(task.workdir)]
                        running[place] = task, _start(task, words, place, jobs, root, own)
                    finally:
                        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
                    console.print(f"{task.name}: started")
                for place, (task, process) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[place]
                    known.discard(task.workdir)
                    state = state_of(task)
                    console.print(f"{task.name}: {state.name} {state.detail}".rstrip())
                    if state.name == RUNNING:
                        broken.append(task.workdir)
                        console.print("  another process trains it; give the command again later")
                    elif state.name != DONE and not received:
                        broken.append(task.workdir)
                        log = _log(task, root)
                        console.print(f"  exit code {process.returncode}; its output is in {log}")
                time.sleep(0.1)
        finally:
            stop([process for _, process in running.values()])
    if received:
        name = signal.Signals(received[0]).name
        code = INTERRUPTED if received[0] == signal.SIGINT else TERMINATED
        raise Stopped(f"stopped by {name}; the same command continues where it stopped", code)
    return broken


def _log(task: Task, root: Path) -> Path:
    return root / LOGS / f"{task.name.replace('/', '-')}.txt"


def _start(
    task: Task,
    command: Sequence[str],
    place: int,
    jobs: int,
    root: Path,
    environment: Mapping[str, str],
) -> subprocess.Popen:
    with open(_log(task, root), "ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, WITH_PARENT: "1", **environment},
            # A group of its own: otherwise Ctrl-C would reach it twice.
            process_group=0,
        )
    # From here, because a function that runs in the new process before its program would need a
    # fork, which JAX's threads do not allow.
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(ProcessLookupError):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(process.pid, cores_of(place, jobs, cores))
    return process


def _gpus() -> list[str]:
    """The GPUs that this command may use, as CUDA names them; empty without any."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(i) for i, _ in enumerate(listed.stdout.splitlines())]


def _gpu_of(place: int, jobs: int, gpus: Sequence[str]) -> dict[str, str]:
    """The environment that gives a process its GPU, and its share of the memory."""
    if not gpus:
        return {}
    sharing = len(range(place % len(gpus), jobs, len(gpus)))
    return {
        "CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)],
        "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{MEMORY / sharing:.3f}",
    }


def cores_of(place: int, jobs: int, cores: Sequence[int]) -> list[int]:
    """The cores of a process: an equal share in a row; one, if there are more processes.

    Args:
        place: of the process, 0 .. jobs - 1.
        jobs: number of processes.
        cores: all cores that may be used.
    """
    if jobs >= len(cores):
        return [cores[place % len(cores)]]
    first, last = (round(i * len(cores) / jobs) for i in (place, place + 1))
    return list(cores[first:last])


@contextlib.contextmanager
def _passing_on(running: dict[int, tuple[Task, subprocess.Popen]]) -> Iterator[list[int]]:
    """Passes signals on to all processes, and yields the list of those received."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for _, process in running.values():
            if process.poll() is None:
                process.send_signal(number)

    old = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
