"""One run at a time in a workdir."""

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from purenoise_jax.runtime.errors import InUseError, StorageError
from purenoise_jax.runtime.files import open_plain, refuse_odd

NAME = "run.lock"
# A look at the lock by `in_use` holds it for an instant.
TRIES, TRY_SECONDS = 3, 0.1


class WorkdirLock:
    """Holds a workdir for as long as it is entered.

    The lock is the operating system's, on an open file. So it ends with the process, however that
    ends, and one that is left over cannot exist; the text in the file only tells the others who
    holds it. On network file systems it holds between machines where the server supports locks
    (NFS 4, Lustre with `flock`).

    Args:
        workdir: an existing folder.

    Raises:
        InUseError: another run holds it.
        StorageError: the file cannot be made, or the file system has no locks.
    """

    def __init__(self, workdir: Path) -> None:
        self._path = workdir / NAME
        self._lock = FileLock(
            self._path,
            blocking=False,
            # Any thread may leave what another has entered.
            thread_local=False,
            # The lock that would take its place outlives a process that is killed.
            fallback_to_soft=False,
            on_acquired=_sign,
        )

    def __enter__(self) -> "WorkdirLock":
        for _ in range(TRIES - 1):
            with contextlib.suppress(InUseError):
                return self._enter()
            time.sleep(TRY_SECONDS)
        return self._enter()

    def _enter(self) -> "WorkdirLock":
        # A link is refused by filelock, which does lock other things than files.
        refuse_odd(self._path.parent, [NAME], [])
        try:
            self._lock.acquire()
        except Timeout:
            raise InUseError(
                f"workdir={self._path.parent} is in use by {_holder(self._path)}; wait for it, or "
                "choose another workdir"
            ) from None
        except OSError as error:
            reason = error.strerror or str(error)
            # Errors of opening name the file, those of locking know an open file only.
            if error.filename is not None:
                raise StorageError(f"{self._path}: cannot be opened: {reason}") from error
            raise StorageError(
                f"{self._path}: this file system cannot lock files ({reason}), so two runs could "
                "not be told apart; choose another workdir"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()


def in_use(workdir: Path) -> bool:
    """Returns True if a process, of this machine or another, holds a workdir; changes nothing.

    On Windows it is not known, and False.
    """
    if os.name != "posix":
        return False
    # Not at the top, because Windows has no such module.
    import fcntl

    try:
        with open_plain(workdir / NAME) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        # There is no such file, or the file system has no locks.
        return False
    return False


def _sign(handle: int) -> None:
    """Writes into the locked file who holds it."""
    note = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    # The check that the workdir is writable reports a full disk.
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        # On Windows no other process can read the locked byte, which is the first.
        os.write(handle, b" " + json.dumps(note).encode())


def _holder(path: Path) -> str:
    """The holder of the lock, as far as the file names it."""
    try:
        with open_plain(path) as file:
            file.seek(1)
            told: Any = json.load(file)
        age = max(0, round(time.time() - told["since"]))
        return f"process {told['pid']} on {told['host']}, started {age} s ago"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another run"
