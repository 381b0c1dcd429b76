"""Signals that ask a run to stop: it saves at the next step boundary and ends.

SIGTERM is what schedulers send before they take a machine away, SIGUSR1 what SLURM can be told to
send before a time limit, SIGINT is Ctrl-C.
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
    """Listens for signals for as long as it is entered.

    A signal is only written down: an exception out of a handler can come up anywhere, also where a
    library swallows it. Whoever is at a place where the run may end asks `requested`, and does what
    takes long in the background meanwhile (`waiting`). A second SIGINT ends the run at once
    wherever it is. Signals reach the main thread only; elsewhere this does nothing.

    Args:
        again: says how the run is continued, in words; asked when it is stopped.
    """

    def __init__(self, again: Callable[[], str] = lambda: "the same command continues") -> None:
        self._again = again
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
        """Whether a signal has come."""
        return self._signal is not None

    def poll(self) -> None:
        """Ends a run that has nothing to save, if a signal has come.

        With several processes it does nothing: one that left on its own would leave the others
        waiting, so they go on until all can stop together.

        Raises:
            Stopped: with the exit code that goes with the signal.
        """
        if self.requested and jax.process_count() == 1:
            raise self.stopped("nothing was computed since the last checkpoint")

    def waiting(self, work: Callable[[], T], poll: Callable[[], None] | None = None) -> T:
        """Does what takes long; a single process hears signals meanwhile.

        Args:
            work: goes on in the background when the run is ended, until the process is.
            poll: called again and again; None = `poll` of this object.

        Raises:
            Stopped: from `poll`.
        """
        if jax.process_count() > 1:
            return work()
        result = Background(work).result(poll or self.poll)
        (poll or self.poll)()
        return result

    def stopped(self, what: str) -> Stopped:
        """The exception that ends the run.

        Args:
            what: became of it, in words.
        """
        # Another process may have got the signal, and this one have heard of it.
        number = signal.SIGTERM if self._signal is None else self._signal
        code = INTERRUPTED if number == signal.SIGINT else TERMINATED
        return Stopped(f"stopped by {signal.Signals(number).name}: {what}; {self._again()}", code)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # The first one counts: a scheduler's SIGTERM after Ctrl-C changes nothing.
        self._signal = self._signal or number
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts == 1:
                # Not through a console, in the middle of whose work this may be. The same Ctrl-C
                # has often ended whoever read what is written.
                with contextlib.suppress(OSError):
                    os.write(2, b"\nstopping; once more leaves at once\n")
        if self._interrupts > 2:
            os._exit(INTERRUPTED)
        if self._interrupts == 2 and number == signal.SIGINT:
            # Threads of a library in the midst of a save would complain on the way out.
            skip_atexit()
            raise KeyboardInterrupt
