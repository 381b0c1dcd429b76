"""Progress display of fault injection: a bar per kind of fault on a terminal, otherwise a line."""

import threading
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from purenoise_jax.runtime.console import SafeConsole, duration


class Shown:
    """Context manager that shows the progress of one kind of fault after the other.

    Args:
        console: console to print to.
    """

    def __init__(self, console: SafeConsole) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<22}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._lock = threading.Lock()
        self._label, self._done, self._since = "", 0, 0.0
        self._task = self._bars.add_task("", visible=False)

    def __enter__(self) -> "Shown":
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
        self._bars.stop()

    def begin(self, label: str, total: int) -> None:
        """Begins the next kind of fault."""
        self.end()
        self._label, self._done, self._since = label, 0, time.monotonic()
        self._task = self._bars.add_task(label, total=total)

    def advance(self) -> None:
        """Counts one more injection as done; any thread may call it."""
        with self._lock:
            self._done += 1
            self._bars.advance(self._task)

    def end(self) -> None:
        """Ends the current kind of fault."""
        if not self._label:
            return
        self._bars.stop_task(self._task)
        if not self._console.is_terminal:
            seconds = duration(time.monotonic() - self._since)
            self._console.print(f"{self._label}: {self._done} done in {seconds}", soft_wrap=True)
        self._label = ""
