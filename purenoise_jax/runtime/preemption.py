"""Handles signals that ask a run to stop: it saves at the next step boundary and ends.

Schedulers send SIGTERM before they take a machine away; SLURM can be asked to send SIGUSR1 before a
time limit; Ctrl-C sends SIGINT.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeVar

import jax

from purenoise_jax.runtime.errors import INTERRUPTED, TERMINATED, Stopped
from purenoise_jax.runtime.threads import Background, skip_atexit

T = TypeVar("T")

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)
)


class PreemptionHandler:
    """Handles signals for as long as it is entered.

    The handler only sets a flag: an exception raised in a handler can surface anywhere, even where
    a library swallows it. Code that reaches a point where the run may end checks `requested`, and
    runs long work in the background (`waiting`). A second SIGINT ends the run at once, at any
    point. Signals reach only the main thread; on other threads this does nothing.

    Args:
        resume_hint: returns advice, in words, for continuing the run; called when the run stops.
    """

    def __init__(
        self, resume_hint: Callable[[], str] = lambda: "the same command continues"
    ) -> None:
        self._resume_hint = resume_hint
        self._signal: int | None = None
        self._interrupts = 0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "PreemptionHandler":
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """True once a signal has come."""
        return self._signal is not None

    def poll(self) -> None:
        """Ends a run that has nothing to save, if a signal has come.

        With several processes it does nothing: the others would wait for a process that ends
        alone, so they continue until all can stop together.

        Raises:
            Stopped: with the exit code that goes with the signal.
        """
        if self.requested and jax.process_count() == 1:
            raise self.stopped("nothing was computed since the last checkpoint")

    def waiting(self, work: Callable[[], T], poll: Callable[[], None] | None = None) -> T:
        """Runs long work; a single process handles signals meanwhile.

        Args:
            work: continues in the background after the run is stopped, until the process ends.
            poll: called repeatedly; None = `poll` of this object.

        Raises:
            Stopped: from `poll`.
        """
        if jax.process_count() > 1:
            return work()
        result = Background(work).result(poll or self.poll)
        (poll or self.poll)()
        return result

    def stopped(self, outcome: str) -> Stopped:
        """Builds the exception that ends the run.

        Args:
            outcome: of the run, in words.
        """
        # Without a signal of its own: another process got one and all processes stop.
        number = signal.SIGTERM if self._signal is None else self._signal
        code = INTERRUPTED if number == signal.SIGINT else TERMINATED
        name = signal.Signals(number).name
        return Stopped(f"stopped by {name}: {outcome}; {self._resume_hint()}", code)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # The first signal counts: a scheduler's SIGTERM after Ctrl-C changes nothing.
        self._signal = self._signal or number
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts == 1:
                # Not through a console, whose work this may have interrupted. Suppressed, because
                # the same Ctrl-C has often ended the reader of standard error.
                with contextlib.suppress(OSError):
                    os.write(2, b"\nstopping; another Ctrl-C ends the run at once\n")
        if self._interrupts > 2:
            os._exit(INTERRUPTED)
        if self._interrupts == 2 and number == signal.SIGINT:
            # Otherwise threads of a library in the middle of a save would report errors at exit.
            skip_atexit()
            raise KeyboardInterrupt
