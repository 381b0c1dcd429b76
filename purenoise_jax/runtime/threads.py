"""Long work on a thread, so that the main thread can look at signals meanwhile.

Compilers and running programs do not return to Python until they are done, and Python runs signal
handlers between its own instructions only.
"""

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TextIO, TypeVar

T = TypeVar("T")
# How long a signal may wait for the main thread to look.
POLL_SECONDS = 0.05

# Set when the work is done. Not the thread's own state, which an exception out of a signal handler
# in the midst of waiting can leave wrong.
_running: set[threading.Event] = set()
_hurried = threading.Event()


class Background(Generic[T]):
    """Something that is computed on a thread of its own from now on.

    Args:
        work: what to compute. If nobody waits for it to the end, it is abandoned: see
            `exit_process`.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        _running.add(self._done)
        # A daemon, or the interpreter would wait for it at its end.
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def result(self, poll: Callable[[], Any] | None = None) -> T:
        """What the work returned; waits for it.

        Args:
            poll: called again and again while waiting; what it raises ends the waiting.

        Raises:
            Whatever the work raised.
        """
        while not self._done.wait(POLL_SECONDS):
            if poll is not None:
                poll()
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self._result.append(work())
        except BaseException as error:
            self._error = error
        self._done.set()
        _running.discard(self._done)


def skip_atexit() -> None:
    """From now on `exit_process` skips what is registered for the end of the interpreter.

    That is where JAX waits for the other processes of a run, which may not come there.
    """
    _hurried.set()


def exit_process(code: int) -> NoReturn:
    """Ends the process with an exit code, even if background work is not done.

    Code of a compiler that still runs while the interpreter is taken down would crash it.
    """
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    if not _running and not _hurried.is_set():
        # Else the collector looks through all that was imported once more: half a second.
        gc.freeze()
        sys.exit(code)
    os._exit(code)


def _flush(stream: TextIO | None) -> None:
    """Flushes a stream; what cannot be written is given up.

    Otherwise the interpreter would try again at its end, and make the exit code 120.

    Args:
        stream: None = it was closed before the process began.
    """
    if stream is None:
        return
    # Closed, or put in its place by others and without a descriptor.
    with contextlib.suppress(OSError, ValueError):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
