"""How far the torments are: a bar each on a terminal, else a line each."""

import threading
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from purenoise_jax.runtime.console import SafeConsole, duration


class Shown:
    """Shows one inject after the other, for as long as it is entered.

    Args:
        console: where to.
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
        """The next inject."""
        self.end()
        self._label, self._done, self._since = label, 0, time.monotonic()
        self._task = self._bars.add_task(label, total=total)

    def advance(self) -> None:
        """Another one is done; may be called by any thread."""
        with self._lock:
            self._done += 1
            self._bars.advance(self._task)

    def end(self) -> None:
        """The inject is over."""
        if not self._label:
            return
        self._bars.stop_task(self._task)
        if not self._console.is_terminal:
            seconds = duration(time.monotonic() - self._since)
            self._console.print(f"{self._label}: {self._done} done in {seconds}", soft_wrap=True)
        self._label = ""
