"""Starts one run as several processes on this machine.

    python -m launch.local 2 --config configs/digits_lt.py --workdir runs/digits

The arguments behind the number go to every process. If one process ends with an error, the others
are stopped and its exit code is returned. On a machine with several GPUs one process drives all of
them; this starter is for trying out what runs on several machines.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Sequence

# How long a process may take to end after it was asked to.
GRACE_SECONDS = 10


def free_port() -> int:
    """A port on the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(count: int, arguments: Sequence[str]) -> int:
    """Runs `count` processes to their end.

    Args:
      count: of processes, at least 1.
      arguments: of `purenoise_jax.main`.

    Returns:
      0, or the exit code of the first process that failed.
    """
    coordinator = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "purenoise_jax.main", *arguments]
    processes = [
        subprocess.Popen(
            [
                *command,
                f"--coordinator={coordinator}",
                f"--num_processes={count}",
                f"--process_id={i}",
            ]
        )
        for i in range(count)
    ]
    try:
        while True:
            codes = [process.poll() for process in processes]
            failed = [code for code in codes if code]
            if failed:
                return failed[0]
            if None not in codes:
                return 0
            time.sleep(0.1)
    finally:
        stop(processes)


def stop(processes: Sequence[subprocess.Popen]) -> None:
    """Asks the processes that still run to end, then makes them."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    if len(sys.argv) < 2 or not sys.argv[1].isdigit() or int(sys.argv[1]) < 1:
        sys.exit(__doc__)
    sys.exit(start(int(sys.argv[1]), sys.argv[2:]))
