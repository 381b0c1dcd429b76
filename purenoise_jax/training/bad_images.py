"""Lists images that could not be read and were left out of a run."""

import threading
from collections.abc import Sequence
from pathlib import Path

import jax

from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.errors import one_line
from purenoise_jax.runtime.files import append_whole, read_bytes

FILE = "bad_images.txt"
# Files of all processes but the first.
OF_PROCESSES = "bad_images.*.txt"


class BadImages:
    """Counts and lists the images that a run leaves out, with `data.on_bad=skip`.

    Each that was left out at the start is a line of bad_images.txt, and so is each time that
    another one would have been used. The first of them creates the file. Of several processes each
    has a file of its own, such as bad_images.1.txt.

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

    def at_start(self, lines: Sequence[str]) -> None:
        """Lists those that were left out when the data were read, once for all starts of a run."""
        if not lines or jax.process_index():
            return
        try:
            there = {*read_bytes(self._path).decode("utf-8", "replace").split("\n")}
        except OSError:
            there = set()
        where = f"; {self._path} lists them"
        try:
            for line in map(one_line, lines):
                if line not in there:
                    append_whole(self._path, f"{line}\n")
        except OSError as error:
            where = f"; {self._path} cannot be written: {error}"
        # A folder is one entry: of a class without images, or one folder too deep.
        files = "1 entry was" if len(lines) == 1 else f"{len(lines):,} entries were"
        self._display.warn(f"{files} left out, because no image could be read{where}")

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
