"""Starts one run as several processes on this machine.

    python -m launch.local 2 --config configs/digits_lt.py --workdir runs/digits

The arguments behind the number go to every process, and so do SIGTERM, SIGUSR1 and SIGINT. If one
process ends with an error, the others are ended and its exit code is returned, 128 + n if it was
killed by signal n. On a machine with several GPUs one process drives all of them; this starter is
for testing runs that are meant for several machines.
"""

import ctypes
import functools
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Exit codes of a run that was stopped by a signal after it had saved.
STOPPED = (130, 143)
# Seconds that the other processes have to end by themselves after the first: after an error, which
# they detect, and after a signal, when one of them may still be saving a large checkpoint.
ERROR_SECONDS, STOPPED_SECONDS = 15, 120
# Seconds that a process has to end after SIGTERM.
GRACE_SECONDS = 10
PR_SET_PDEATHSIG = 1
# In the environment of a process that is to end with the one that started it.
WITH_PARENT = "PURENOISE_JAX_WITH_PARENT"


def free_port() -> int:
    """A port on the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(count: int, arguments: Sequence[str]) -> int:
    """Runs `count` processes to their end.

    Args:
        count: number of processes, at least 1.
        arguments: arguments of `purenoise_jax.main`.

    Returns:
        0, or the exit code of the first process that failed.
    """
    coordinator = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "purenoise_jax.main", *arguments]
    processes: list[subprocess.Popen] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    # Blocked, so that no signal arrives after a process has started but before it is in the list.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    old = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        for i in range(count):
            flags = (f"--num_processes={count}", f"--process_id={i}")
            processes.append(
                subprocess.Popen(
                    [*command, f"--coordinator={coordinator}", *flags],
                    # A group of its own: otherwise Ctrl-C would reach it twice.
                    process_group=0,
                    preexec_fn=functools.partial(_prepare, signal.SIGTERM),
                )
            )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return wait(processes)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        stop(processes)
        for number, handler in old.items():
            signal.signal(number, handler)


def wait(processes: Sequence[subprocess.Popen]) -> int:
    """Waits until all processes have ended, or for a limited time after one has failed.

    Returns:
        0, or the exit code of the first that failed.
    """
    first, deadline = 0, float("inf")
    while time.monotonic() < deadline:
        codes = [process.poll() for process in processes]
        # If several failed at once, one that was killed is the cause.
        failed = sorted(code for code in codes if code)
        if failed and not first:
            first = 128 - failed[0] if failed[0] < 0 else failed[0]
            seconds = STOPPED_SECONDS if first in STOPPED else ERROR_SECONDS
            deadline = time.monotonic() + seconds
        if None not in codes:
            break
        time.sleep(0.05)
    return first


def stop(processes: Sequence[subprocess.Popen]) -> None:
    """Sends SIGTERM to the processes that still run, later SIGKILL."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Requests a signal for this process if the one that started it is killed (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def _prepare(number: int) -> None:
    """Runs in a new process: unblocks signals, and requests one if the starter is killed."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    end_with_parent(number)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not sys.argv[1].isdigit() or int(sys.argv[1]) < 1:
        sys.exit(__doc__)
    sys.exit(start(int(sys.argv[1]), sys.argv[2:]))
