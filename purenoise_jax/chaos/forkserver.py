"""The fork server: imports everything once, then forks subject processes in milliseconds.

python -m purenoise_jax.chaos.forkserver [PATH=BYTES ...]

It reads requests from standard input, a JSON line each, and reports on standard output which
processes started and ended. At the end of its input it kills all subjects, so that none outlives
the client, even if the client was killed. `multiprocessing` has a fork server too, but its children
exit without finalizing the interpreter, which is when background threads crash; these end like any
command.

At each PATH, an existing folder, the subjects see a small file system in memory.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
from typing import Any

from purenoise_jax.chaos.privileges import mount_tmpfs, remount
from purenoise_jax.chaos.run_spec import RunSpec
from purenoise_jax.chaos.subject import become
from purenoise_jax.runtime.threads import exit_process

# Modules that a run imports only after its start.
MODULES = (
    "sklearn.datasets",
    "tensorboardX.event_file_writer",
    "PIL.Image",
    "jaxlib.mlir.dialects.builtin",
)


def serve() -> str | None:
    """Forks a subject process for each request.

    Returns:
        In a subject, its specification as JSON; in the server None, at the end of the input.
    """
    # A pipe that becomes readable whenever a subject has ended.
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    living: set[int] = set()
    waiting = b""
    while True:
        ready, _, _ = select.select([0, wake_read], [], [])
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _report_dead(living)
        if 0 not in ready:
            continue
        data = os.read(0, 65536)
        if not data:
            for pid in living:
                os.kill(pid, signal.SIGKILL)
            return None
        *lines, waiting = (waiting + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "remount" in message:
                _say(_remount(**message["remount"]))
                continue
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for handle in (wake_read, wake_write):
                    os.close(handle)
                # Its own input, because it would otherwise read requests meant for the server.
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                return json.dumps(message["spec"])
            living.add(pid)
            _say({"started": pid, "id": message["id"]})


def _report_dead(living: set[int]) -> None:
    for pid in [*living]:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            living.discard(pid)
            # As in `subprocess`: minus the signal, if one killed it.
            _say({"died": pid, "code": os.waitstatus_to_exitcode(status), "at": time.monotonic()})


def _remount(path: str, read_only: bool) -> dict[str, Any]:
    try:
        remount(path, read_only)
    except OSError as error:
        return {"remounted": str(error)}
    return {"remounted": None}


def _say(message: dict[str, Any]) -> None:
    os.write(1, (json.dumps(message) + "\n").encode())


def main() -> None:
    """Runs the server; in a forked subject, runs that subject instead."""
    sizes = (arg.rpartition("=") for arg in sys.argv[1:])
    mount_tmpfs({path: int(size) for path, _, size in sizes})
    for name in MODULES:
        importlib.import_module(name)
    # Otherwise the garbage collector of each subject would touch, and so copy, all pages of memory.
    gc.freeze()
    _say({"ready": os.getpid()})
    spec = serve()
    if spec is not None:
        exit_process(become(RunSpec.from_json(spec)))


if __name__ == "__main__":
    main()
