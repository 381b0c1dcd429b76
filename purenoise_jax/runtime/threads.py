"""Runs long work on a thread, so that the main thread can handle signals meanwhile.

Compilers and running programs return to Python only when they are done, and Python runs signal
handlers only between its own instructions.
"""

import contextlib
import gc
import itertools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NoReturn, TextIO, TypeVar

S = TypeVar("S")
T = TypeVar("T")
# Arguments of `in_order` that a thread gets at a time, and such groups under way for each thread.
GROUP, GROUPS = 16, 4
# Longest time in seconds until the main thread handles a signal.
POLL_SECONDS = 0.05

# An event for each unfinished task, set when its work is done. The state of the thread itself can
# become wrong if a signal handler raises an exception during a wait.
_running: set[threading.Event] = set()
_hurried = threading.Event()


class Background(Generic[T]):
    """A computation that starts at once on a thread of its own.

    Args:
        work: to compute. It is abandoned if the process ends first, see `exit_process`.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        _running.add(self._done)
        # A daemon thread; otherwise the interpreter would wait for it at exit.
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def result(self, poll: Callable[[], Any] | None = None) -> T:
        """Waits for the work and returns its result.

        Args:
            poll: called repeatedly while waiting; an exception of it ends the wait.

        Raises:
            BaseException: the exception that the work raised.
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


def in_order(work: Callable[[S], T], arguments: Iterable[S]) -> Iterator[T]:
    """Computes on one thread for each core; results come in the order of the arguments.

    Unlike `ThreadPoolExecutor.map` it begins only so much ahead that its memory does not grow with
    the number of arguments.

    Args:
        work: to compute, of one argument.
        arguments: of all calls.
    """

    def of_group(group: tuple[S, ...]) -> list[T]:
        return [work(argument) for argument in group]

    left = iter(arguments)
    groups = iter(lambda: tuple(itertools.islice(left, GROUP)), ())
    with ThreadPoolExecutor(cores()) as pool:
        under_way = deque(
            pool.submit(of_group, group) for group in itertools.islice(groups, GROUPS * cores())
        )
        try:
            while under_way:
                yield from under_way.popleft().result()
                if group := next(groups, None):
                    under_way.append(pool.submit(of_group, group))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def skip_atexit() -> None:
    """Makes `exit_process` skip the functions that are registered for the interpreter's exit.

    JAX waits there for the other processes of a run, which may never arrive.
    """
    _hurried.set()


def exit_process(code: int) -> NoReturn:
    """Ends the process with an exit code, even if background work is not done.

    A compiler that is still running while the interpreter shuts down would crash the process.
    """
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    if not _running and not _hurried.is_set():
        # Otherwise the garbage collector scans everything that was imported: half a second.
        gc.freeze()
        sys.exit(code)
    os._exit(code)


def _flush(stream: TextIO | None) -> None:
    """Flushes a stream; output that cannot be written is dropped.

    Otherwise the interpreter would try again at exit and change the exit code to 120.

    Args:
        stream: None if it was closed before the process began.
    """
    if stream is None:
        return
    # The stream is closed, or was replaced by an object without a file descriptor.
    with contextlib.suppress(OSError, ValueError):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
