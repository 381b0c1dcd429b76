"""Long work on a thread, so that the main thread can look at signals meanwhile.

Compilers and running programs do not return to Python until they are done, and Python runs signal
handlers between its own instructions only.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar("T")
# How long a signal may wait for the main thread to look.
POLL_SECONDS = 0.05

_running: set[threading.Thread] = set()
_hurried = threading.Event()


class Background(Generic[T]):
    """Something that is computed on a thread of its own from now on.

    Args:
      work: what to compute. If nobody waits for it to the end, it is left behind: see `leave`.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._result: list[T] = []
        self._error: BaseException | None = None
        # A daemon, or the interpreter would wait for it at its end.
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()
        _running.add(self._thread)

    def result(self, poll: Callable[[], Any] | None = None) -> T:
        """What the work returned; waits for it.

        Args:
          poll: called again and again while waiting; what it raises ends the waiting.

        Raises:
          Whatever the work raised.
        """
        while self._thread.is_alive():
            self._thread.join(POLL_SECONDS)
            if poll is not None:
                poll()
        _running.discard(self._thread)
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self._result.append(work())
        except BaseException as error:
            self._error = error


def hurry() -> None:
    """From now on `leave` skips what is registered for the end of the interpreter.

    That is where JAX waits for the other processes of a run, which may not come there.
    """
    _hurried.set()


def leave(code: int) -> NoReturn:
    """Ends the process with an exit code, even if background work is not done.

    Code of a compiler that still runs while the interpreter is taken down would crash it.
    """
    if not _hurried.is_set() and not any(thread.is_alive() for thread in _running):
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
