"""Starts subjects in milliseconds: a process that has imported everything forks them.

python -m purenoise_jax.chaos.forkserver [PATH=BYTES ...]

Orders come in on standard input, a JSON line each; who was born and who died goes out on standard
output. At the end of the input all subjects are killed, so that none outlives who ordered it,
however that ended. `multiprocessing` has a fork server too, but its children leave without taking
the interpreter down, which is where background threads crash; these end like any command.

The PATHs are folders for small file systems in memory that subjects see in place of them.
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

# What a run imports later than at its start.
MODULES = (
    "sklearn.datasets",
    "tensorboardX.event_file_writer",
    "PIL.Image",
    "jaxlib.mlir.dialects.builtin",
)


def serve() -> str | None:
    """Forks a subject for each order.

    Returns:
        In a subject its order; in the server None, when there is nothing more to do.
    """
    # A pipe that becomes readable whenever a subject has died.
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
                # Its own input, or it would take orders from the others.
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                return json.dumps(message["order"])
            living.add(pid)
            _say({"born": pid, "id": message["id"]})


def _report_dead(living: set[int]) -> None:
    for pid in [*living]:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            living.discard(pid)
            # As `subprocess` has it: minus the signal that killed it.
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
    """The server; and each subject comes out of here, too."""
    sizes = (arg.rpartition("=") for arg in sys.argv[1:])
    mount_tmpfs({path: int(size) for path, _, size in sizes})
    for name in MODULES:
        importlib.import_module(name)
    # So that no subject goes through, and thereby copies, what was there before it.
    gc.freeze()
    _say({"ready": os.getpid()})
    order = serve()
    if order is not None:
        exit_process(become(RunSpec.from_json(order)))


if __name__ == "__main__":
    main()
