"""The client of the fork server: starts subject processes, reads their events and ends them."""

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

from purenoise_jax.chaos.privileges import unshare_command
from purenoise_jax.chaos.run_spec import RunSpec

MODULE = "purenoise_jax.chaos.forkserver"
POLL_SECONDS = 0.002
# Longer than any run of a few steps, even if it compiles everything on a slow machine.
PATIENCE_SECONDS = 120.0


class Hung(Exception):
    """A subject process or the fork server exceeded its time limit."""


class Refused(Exception):
    """This machine cannot set up what a fault needs."""


class Subject:
    """A subject process: a run, started by a `ForkServer`, into which faults are injected.

    Attributes:
        spec: its specification.
        pid: its process number.
        code: its exit code, or minus the signal that killed it; None while it runs.
        died_at: time of its end on the monotonic clock.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.pid = 0
        self.code: int | None = None
        self.died_at = 0.0
        self.started, self.dead = threading.Event(), threading.Event()
        self._events: list[tuple[float, str, Any]] = []
        self._read = 0

    def events(self) -> list[tuple[float, str, Any]]:
        """Its events so far: time on the monotonic clock, kind, value."""
        with contextlib.suppress(FileNotFoundError), open(self.spec.events, "rb") as file:
            file.seek(self._read)
            lines, newline, _ = file.read().rpartition(b"\n")
            self._read += len(lines) + len(newline)
            self._events += [tuple(json.loads(line)) for line in lines.splitlines()]
        return self._events

    def last(self, kind: str) -> Any:
        """The newest value of a kind of event; None if there was none."""
        return next((value for _, k, value in reversed(self.events()) if k == kind), None)

    def notes(self) -> str:
        """All messages to the user, errors included."""
        messages = [str(value) for _, kind, value in self.events() if kind == "note"]
        with contextlib.suppress(FileNotFoundError):
            messages.append(Path(self.spec.log).read_text(errors="replace"))
        return "\n".join(messages)

    def last_line(self) -> str:
        """The message to the user that says why it ended."""
        lines = self.notes().strip().splitlines() or ["no message"]
        # Libraries may print more after that message.
        ends = [line for line in lines if line.startswith(("error:", "stopped by"))]
        return (ends or lines)[-1]

    def send(self, number: int) -> bool:
        """Sends a signal; False if the process has ended already."""
        if self.dead.is_set():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, seconds: float | None = None) -> int:
        """Waits until it ends and returns its exit code.

        Args:
            seconds: time limit; None = `PATIENCE_SECONDS`.

        Raises:
            Hung: it had not ended by then, and was killed.
        """
        seconds = PATIENCE_SECONDS if seconds is None else seconds
        if not self.dead.wait(seconds):
            at = self.last("doing")
            self.send(signal.SIGKILL)
            self.dead.wait(10)
            raise Hung(f"a run was still at {at!r} after {seconds:g} s")
        return self.code if self.code is not None else -1


class ForkServer:
    """Starts subject processes, and kills them when it is closed or when this process ends.

    Args:
        log: file for the output of the server itself.
        mounts: path of an existing folder -> bytes of a file system in memory mounted there, which
            the subjects see at that path and this process under `path_seen`.

    Raises:
        Refused: it may not mount file systems, or cannot start.
    """

    def __init__(self, log: Path, mounts: Mapping[str, int] | None = None) -> None:
        prefix = unshare_command() if mounts else []
        if prefix and shutil.which(prefix[0]) is None:
            raise Refused(f"there is no program {prefix[0]!r} here")
        # On the CPU: the faults are those of the file system, and an accelerator has too little
        # memory for many runs at once.
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [
                    *prefix, sys.executable, "-m", MODULE,
                    *(f"{path}={size}" for path, size in (mounts or {}).items()),
                ],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                # Only this process gets Ctrl-C; it then ends the subjects.
                start_new_session=True, env=environment,
            )  # fmt: skip
        self._root = f"/proc/{self._process.pid}/root" if mounts else ""
        self._living: dict[int, Subject] = {}
        self._requested: dict[int, Subject] = {}
        self._lock = threading.Lock()
        self._ready, self._gone = threading.Event(), threading.Event()
        self._remounted: queue.Queue[str | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        while not self._ready.wait(0.05):
            if self._gone.is_set():
                lines = log.read_text(errors="replace").strip().splitlines() or ["no reason given"]
                what = "no file system can be mounted" if mounts else "no run can be started"
                raise Refused(f"{what} here: {lines[-1]}")

    def start(self, spec: RunSpec) -> Subject:
        """Starts a subject process and returns when it exists.

        Raises:
            Hung: the server did not start it in time.
        """
        subject = Subject(spec)
        with self._lock:
            number = len(self._requested)
            self._requested[number] = subject
            self._say({"spec": json.loads(spec.to_json()), "id": number})
        if not subject.started.wait(30):
            raise Hung("the fork server no longer starts runs")
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
        """The path under which this process sees what the subjects see as `path`."""
        return Path(f"{self._root}{path}")

    def close(self) -> None:
        """Kills all running subject processes."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            for subject in self._living.values():
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
            raise Hung("the fork server has ended") from None

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "started" in message:
                subject = self._requested[message["id"]]
                subject.pid = message["started"]
                self._living[subject.pid] = subject
                subject.started.set()
            elif "died" in message:
                subject = self._living.pop(message["died"])
                subject.code, subject.died_at = message["code"], message["at"]
                subject.dead.set()
            elif "remounted" in message:
                self._remounted.put(message["remounted"])
            else:
                self._ready.set()
        self._gone.set()
        # The server killed them when it ended: wake all threads that wait for them.
        for subject in [*self._living.values()]:
            subject.dead.set()


def until(condition: Callable[[], bool], subject: Subject, seconds: float | None = None) -> bool:
    """Waits until a condition holds; False if the subject ends first.

    Args:
        condition: is polled.
        subject: the process whose end ends the wait.
        seconds: time limit; None = `PATIENCE_SECONDS`.

    Raises:
        Hung: neither happened by then, and the subject was killed.
    """
    end = time.monotonic() + (PATIENCE_SECONDS if seconds is None else seconds)
    while not condition():
        if subject.dead.is_set():
            return bool(condition())
        if time.monotonic() > end:
            subject.wait(0)
        time.sleep(POLL_SECONDS)
    return True
