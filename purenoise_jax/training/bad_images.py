"""Lists images that could not be read and were left out of a run."""

import threading
from pathlib import Path

import jax

from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.files import append_whole

FILE = "bad_images.txt"
# Files of all processes but the first.
OF_PROCESSES = "bad_images.*.txt"


class BadImages:
    """Counts and lists the images that a run leaves out, with `data.on_bad=skip`.

    Each time that one would have been used is a line of bad_images.txt, which the first of them
    creates. Of several processes each has a file of its own, such as bad_images.1.txt.

    Args:
        workdir: of the run.
        display: where the first ten are reported, and after them every time their number doubles.

    Attributes:
        count: lines that this process has written.
    """

    def __init__(self, workdir: Path, display: Display) -> None:
        process = jax.process_index()
        self._path = workdir / (FILE.replace(".", f".{process}.") if process else FILE)
        self._display, self._lock = display, threading.Lock()
        self.count = 0

    def note(self, line: str) -> None:
        """Lists one; several threads may do so at once."""
        with self._lock:
            self.count += 1
            try:
                append_whole(self._path, line + "\n")
            except OSError as error:
                line = f"{line}; {self._path} cannot be written: {error}"
            if self.count <= 10 or not self.count & (self.count - 1):
                self._display.warn(f"left out, {self.count} so far: {line}")
