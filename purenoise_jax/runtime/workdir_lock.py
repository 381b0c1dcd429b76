"""One run at a time in a workdir."""

import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from purenoise_jax.runtime.errors import InUseError, StorageError

NAME = "run.lock"


class WorkdirLock:
    """Holds a workdir for as long as it is entered.

    The lock is the operating system's, on an open file. So it ends with the process, however that
    ends, and one that is left over cannot exist; what the file says only tells the others who holds
    it. On network file systems it holds between machines where the server supports locks (NFS 4,
    Lustre with `flock`).

    Args:
        workdir: an existing folder.

    Raises:
        InUseError: another run holds it.
        StorageError: the file cannot be made, or the file system has no locks.
    """

    def __init__(self, workdir: Path) -> None:
        self._path = workdir / NAME
        self._file: IO[str] | None = None

    def __enter__(self) -> "WorkdirLock":
        try:
            import fcntl
        except ImportError:  # Not on Windows.
            return self
        try:
            # Not "w": a run that does not get the lock must not empty the file.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            handle = os.open(self._path, flags, 0o666)
            file = os.fdopen(handle, "r+", encoding="utf-8")
        except OSError as error:
            reason = error.strerror or str(error)
            raise StorageError(f"{self._path}: cannot be opened: {reason}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is(file):
                raise BlockingIOError
        except BlockingIOError:
            holder = _holder(file)
            file.close()
            raise InUseError(
                f"workdir={self._path.parent} is in use by {holder}; wait for it, or choose "
                "another workdir"
            ) from None
        except OSError as error:
            file.close()
            raise StorageError(
                f"{self._path}: this file system cannot lock files ({error.strerror}), so two runs "
                "could not be told apart; choose another workdir"
            ) from error
        self._file = file
        try:
            file.truncate(0)
            json.dump(
                {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}, file
            )
            file.flush()
        except OSError:
            # A full disk: that is for the probe to tell.
            pass
        return self

    def _is(self, file: IO[str]) -> bool:
        """Whether the open file is still the one of that name: its holder may just have left."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _holder(file: IO[str]) -> str:
    """Who holds the lock, as far as the file says."""
    try:
        told: Any = json.load(file)
        age = max(0, round(time.time() - told["since"]))
        return f"process {told['pid']} on {told['host']}, started {age} s ago"
    except (OSError, ValueError, LookupError, TypeError):
        return "another run"
