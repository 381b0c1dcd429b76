"""The other side of the fork server: orders subjects, listens to them, and ends them."""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from purenoise_jax.chaos.privileges import alone
from purenoise_jax.chaos.run_spec import RunSpec

MODULE = "purenoise_jax.chaos.forkserver"
POLL_SECONDS = 0.002
# No run of a few steps takes as long, even where it compiles anew on a slow machine.
PATIENCE_SECONDS = 120.0


class Hung(Exception):
    """A subject, or the fork server, did not do within its time what it should."""


class Refused(Exception):
    """The machine does not let us set up what a inject needs."""


class Subject:
    """A process that a `ForkServer` has started.

    Attributes:
        order: what it was told to do.
        pid: its number.
        code: its exit code, minus the signal that killed it; None while it lives.
        died_at: on the monotonic clock.
    """

    def __init__(self, order: RunSpec) -> None:
        self.order = order
        self.pid = 0
        self.code: int | None = None
        self.died_at = 0.0
        self.born, self.dead = threading.Event(), threading.Event()
        self._events: list[tuple[float, str, Any]] = []
        self._read = 0

    def events(self) -> list[tuple[float, str, Any]]:
        """What it has told so far: time on the monotonic clock, kind, value."""
        with contextlib.suppress(FileNotFoundError), open(self.order.events, "rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
            self._read += len(whole) + len(newline)
            self._events += [tuple(json.loads(line)) for line in whole.splitlines()]
        return self._events

    def last(self, kind: str) -> Any:
        """The newest value of a kind of event; None if there was none."""
        return next((value for _, k, value in reversed(self.events()) if k == kind), None)

    def notes(self) -> str:
        """All that the user would have been told, errors included."""
        told = [str(value) for _, kind, value in self.events() if kind == "note"]
        with contextlib.suppress(FileNotFoundError):
            told.append(Path(self.order.log).read_text(errors="replace"))
        return "\n".join(told)

    def last_line(self) -> str:
        """How the user would have been told that it ended."""
        lines = self.notes().strip().splitlines() or ["no message"]
        # Libraries may have something to say after that.
        ends = [line for line in lines if line.startswith(("error:", "stopped by"))]
        return (ends or lines)[-1]

    def send(self, number: int) -> bool:
        """Sends a signal; False if it is dead already."""
        if self.dead.is_set():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, seconds: float | None = None) -> int:
        """Its exit code, when it has ended.

        Args:
            seconds: how long that may take; None = `PATIENCE_SECONDS`.

        Raises:
            Hung: it has not by then, and was killed.
        """
        seconds = PATIENCE_SECONDS if seconds is None else seconds
        if not self.dead.wait(seconds):
            at = self.last("doing")
            self.send(signal.SIGKILL)
            self.dead.wait(10)
            raise Hung(f"a run was still at {at!r} after {seconds:g} s")
        return self.code if self.code is not None else -1


class ForkServer:
    """Starts subjects; when it is closed, or this process ends, they are killed.

    Args:
        log: file for what the server itself has to say.
        mounts: path of an existing folder -> bytes of a file system in memory in its place, which
            the subjects see, and this process under `path_seen`.

    Raises:
        Refused: it may not mount.
    """

    def __init__(self, log: Path, mounts: Mapping[str, int] | None = None) -> None:
        prefix = alone() if mounts else []
        if prefix and shutil.which(prefix[0]) is None:
            raise Refused(f"there is no program {prefix[0]!r} here")
        # The file system is what is tormented; accelerators only have less room for many at once.
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [
                    *prefix, sys.executable, "-m", MODULE,
                    *(f"{path}={size}" for path, size in (mounts or {}).items()),
                ],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                # Ctrl-C is for us alone, who then end them.
                start_new_session=True, env=environment,
            )  # fmt: skip
        self._root = f"/proc/{self._process.pid}/root" if mounts else ""
        self._victims: dict[int, Subject] = {}
        self._ordered: dict[int, Subject] = {}
        self._lock = threading.Lock()
        self._ready, self._gone = threading.Event(), threading.Event()
        self._remounted: queue.Queue[str | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        while not self._ready.wait(0.05):
            if self._gone.is_set():
                said = log.read_text(errors="replace").strip().splitlines() or ["no reason given"]
                what = "no file system can be mounted" if mounts else "no run can be started"
                raise Refused(f"{what} here: {said[-1]}")

    def start(self, order: RunSpec) -> Subject:
        """Starts a subject, and returns when it lives.

        Raises:
            Hung: it does not.
        """
        subject = Subject(order)
        with self._lock:
            number = len(self._ordered)
            self._ordered[number] = subject
            self._say({"order": json.loads(order.to_json()), "id": number})
        if not subject.born.wait(30):
            raise Hung("the fork server does not start any more runs")
        return subject

    def remount(self, path: Path, read_only: bool) -> None:
        """Makes one of the mounts read-only, or writable again.

        Raises:
            Refused: the kernel refuses.
        """
        with self._lock:
            self._say({"remount": {"path": str(path), "read_only": read_only}})
        answer = self._remounted.get(timeout=30)
        if answer is not None:
            raise Refused(f"it cannot be remounted: {answer}")

    def path_seen(self, path: Path) -> Path:
        """Where this process finds what subjects see as `path`."""
        return Path(f"{self._root}{path}")

    def close(self) -> None:
        """Kills all subjects that live."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            for subject in self._victims.values():
                subject.send(signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        self._listener.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((json.dumps(message) + "\n").encode())
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise Hung("the fork server is gone") from None

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "born" in message:
                subject = self._ordered[message["id"]]
                subject.pid = message["born"]
                self._victims[subject.pid] = subject
                subject.born.set()
            elif "died" in message:
                subject = self._victims.pop(message["died"])
                subject.code, subject.died_at = message["code"], message["at"]
                subject.dead.set()
            elif "remounted" in message:
                self._remounted.put(message["remounted"])
            else:
                self._ready.set()
        self._gone.set()
        # Killed with it; whoever waits for them waits no longer.
        for subject in [*self._victims.values()]:
            subject.dead.set()


def until(condition: Callable[[], bool], subject: Subject, seconds: float | None = None) -> bool:
    """Waits until a condition holds; False if the subject has ended before.

    Args:
        condition: is called again and again.
        subject: whose life is the limit.
        seconds: the other limit; None = `PATIENCE_SECONDS`.

    Raises:
        Hung: neither has happened by then, and the subject was killed.
    """
    end = time.monotonic() + (PATIENCE_SECONDS if seconds is None else seconds)
    while not condition():
        if subject.dead.is_set():
            return bool(condition())
        if time.monotonic() > end:
            subject.wait(0)
        time.sleep(POLL_SECONDS)
    return True
