"""Notices when another process of the run is gone, and then ends this one with a line that says so.

JAX finds out too, but late, and ends the process from within the compiled library, where nothing
of ours is told; and a process that waits in a collective operation for one that failed does not
return to Python. So the processes hold connections of their own to process 0 and say at least once
a second that they are there: the operating system closes the connections of one that is killed at
once, and one that hangs falls silent.

A process that fails says so too, and the others end with its exit code.
"""

import contextlib
import hmac
import os
import secrets
import selectors
import socket
import threading
import time
from types import TracebackType

import jax
import numpy as np
from jax.experimental import multihost_utils

from purenoise_jax.runtime import threads
from purenoise_jax.runtime.errors import (
    INTERRUPTED,
    ConfigError,
    PureNoiseError,
    Stopped,
    StorageError,
    one_line,
)

GONE = 1
# How long an error that comes from the library may turn out to be that of another process, and how
# long a process that is told of another's failure may come to its own end.
VERDICT_SECONDS, GRACE_SECONDS = 2.0, 1.0
TOKEN_BYTES, HELLO_BYTES = 16, 64


class _Link:
    """A connection to another process.

    Args:
        socket: connected, does not block.
        process: at the other end; None = it has not said yet.
    """

    def __init__(self, connection: socket.socket, process: int | None) -> None:
        self.connection = connection
        self.process = process
        self.silent = 0.0
        self.unread = b""
        connection.setblocking(False)
        # A line of a few bytes must not wait for the answer to the one before.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, line: str) -> None:
        """Sends a line; that it cannot be sent shows when reading, too."""
        with contextlib.suppress(OSError):
            self.connection.send(f"{line}\n".encode())

    def lines(self) -> list[str] | None:
        """The lines that have come; None = the connection has ended."""
        try:
            data = self.connection.recv(4096)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self.unread = (self.unread + data).split(b"\n")
        return [line.decode("ascii", "replace") for line in lines]


class Peers:
    """Watches over the other processes of a run for as long as it is entered.

    Left without an error, or with `Stopped`, it waits until all others are done too. Left with
    another error, it tells them, and they end with its exit code. With one process it does nothing.

    Args:
        host: address of process 0; None = what process 0 calls itself.
        seconds: after which a process that nothing is heard of is taken for gone.
    """

    def __init__(self, host: str | None, seconds: float) -> None:
        self._host, self._seconds = host, seconds
        self._beat = min(1.0, seconds / 5)
        self._me, self._count = jax.process_index(), jax.process_count()
        self._listener: socket.socket | None = None
        self._selector = selectors.DefaultSelector()
        self._links: list[_Link] = []
        self._token = b""
        self._done: set[int] = set()
        self._all_done, self._alone = threading.Event(), threading.Event()
        self._leaving = threading.Event()
        if self._count > 1:
            self._connect()

    def __enter__(self) -> "Peers":
        if self._count > 1:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._count == 1:
            return
        in_order = error is None or isinstance(error, Stopped)
        if in_order:
            self._say_done(self._me)
            # The watch goes on meanwhile: process 0 may have a report to draw.
            self._all_done.wait()
        elif _from_library(error):
            # More often than not what a collective operation says when another process is gone.
            # If so, the watch ends this process first.
            time.sleep(VERDICT_SECONDS)
        self._leaving.set()
        if not in_order:
            self._tell(f"left {self._me} {exit_code(error)}")
        if self._me == 0:
            # When this process ends, JAX ends those that have not, with an error.
            self._alone.wait(self._seconds if in_order else 2 * GRACE_SECONDS)
        # JAX would have all of them meet once more, where one that has compiled code still at work
        # in the background cannot come to.
        threads.skip_atexit()

    def _connect(self) -> None:
        """Makes the connections.

        Where and with which password comes by way of JAX, so that nobody else can interfere.
        """
        port = 0
        if self._me == 0:
            self._token = secrets.token_hex(TOKEN_BYTES).encode()
            # All addresses only where it is not known under which the others see this one.
            self._listener = _listen(self._host)
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ)
            port = self._listener.getsockname()[1]
            self._host = self._host or socket.gethostname()
        text = b"%s %d %s" % (self._token, port, (self._host or "").encode())
        told = multihost_utils.broadcast_one_to_all(np.frombuffer(text.ljust(512), np.uint8))
        self._token, told_port, host = bytes(np.asarray(told)).split()
        if self._me != 0:
            address = host.decode(), int(told_port)
            try:
                connection = socket.create_connection(address, self._seconds)
            except OSError as error:
                raise ConfigError(
                    f"process 0 cannot be reached at {address[0]}:{address[1]}: {error}"
                ) from error
            link = _Link(connection, 0)
            link.send(f"{self._token.decode()} {self._me}")
            self._add(link)
        # One that is gone before it came would not be missed.
        while self._me == 0 and len({link.process for link in self._links} - {None}) < (
            self._count - 1
        ):
            self._listen_for(self._beat)

    def _watch(self) -> None:
        before, said = time.monotonic(), 0.0
        while True:
            heard = self._listen_for(self._beat / 2)
            now = time.monotonic()
            # A job that was suspended as a whole wakes up to old clocks and must not end for it.
            passed, before = min(now - before, self._beat), now
            for link in list(self._links):
                link.silent = 0.0 if link in heard else link.silent + passed
                if link.silent > self._seconds:
                    self._lost(link, f"nothing was heard of it for {self._seconds:g} s")
            if now - said >= self._beat:
                said = now
                self._tell("here")

    def _listen_for(self, seconds: float) -> list[_Link]:
        """Reads what comes within a time; returns whom it came from."""
        ready = self._selector.select(seconds)
        for key, _ in ready:
            if key.data is None:
                self._accept()
            else:
                self._read(key.data)
        return [key.data for key, _ in ready]

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            self._add(_Link(connection, None))

    def _read(self, link: _Link) -> None:
        lines = link.lines()
        if lines is None:
            self._lost(link, "its connection ended")
            return
        for line in lines:
            words = line.split()
            if link.process is None:
                if len(words) != 2 or not hmac.compare_digest(words[0].encode(), self._token):
                    self._drop(link)
                    return
                link.process = int(words[1])
            elif words[0] == "left":
                self._pass_on(line, link)
                why = f"process {words[1]} could not go on (exit code {words[2]}, see there)"
                self._end(why, int(words[2]), GRACE_SECONDS)
            elif words[0] == "gone":
                self._end(" ".join(words[1:]), GONE)
            elif words[0] == "done":
                self._say_done(int(words[1]))
        if link.process is None and len(link.unread) > HELLO_BYTES:
            self._drop(link)

    def _lost(self, link: _Link, why: str) -> None:
        self._drop(link)
        if link.process is None or link.process in self._done or self._leaving.is_set():
            return
        message = (
            f"process {link.process} of {self._count} is gone: {why}; "
            "the same command continues at the last checkpoint"
        )
        self._tell(f"gone {message}")
        self._end(message, GONE)

    def _end(self, message: str, code: int, grace: float = 0.0) -> None:
        """Ends this process, unless it is about to end with an error of its own."""
        if self._leaving.wait(grace):
            return
        # Not through a console, whose lock the main thread may hold, and in one piece.
        with contextlib.suppress(OSError):
            os.write(2, f"\nerror: {one_line(message)}\n".encode())
        # Whatever comes now, the process ends.
        self._leaving.set()
        self._wait_for_others()
        os._exit(code)

    def _wait_for_others(self) -> None:
        """When process 0 ends, JAX ends the others, perhaps before they could say why."""
        deadline = time.monotonic() + GRACE_SECONDS
        while self._me == 0 and self._links and time.monotonic() < deadline:
            self._listen_for(0.05)

    def _say_done(self, process: int) -> None:
        """All processes hear of every one that is done, from process 0."""
        self._done.add(process)
        if self._me == 0:
            for done in sorted(self._done):
                self._tell(f"done {done}")
        elif process == self._me:
            self._tell(f"done {process}")
        if len(self._done) == self._count:
            self._all_done.set()

    def _pass_on(self, line: str, source: _Link) -> None:
        if self._me == 0:
            for link in list(self._links):
                if link is not source:
                    link.send(line)

    def _tell(self, line: str) -> None:
        for link in list(self._links):
            if link.process is not None:
                link.send(line)

    def _add(self, link: _Link) -> None:
        self._links.append(link)
        self._selector.register(link.connection, selectors.EVENT_READ, link)

    def _drop(self, link: _Link) -> None:
        self._links.remove(link)
        self._selector.unregister(link.connection)
        link.connection.close()
        if not self._links:
            self._alone.set()


def exit_code(error: BaseException | None) -> int:
    """The exit code that the command line gives an error."""
    if isinstance(error, PureNoiseError | Stopped):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return StorageError.exit_code if isinstance(error, OSError) else 1


def _from_library(error: BaseException | None) -> bool:
    """Whether what was raised first is neither ours nor the operating system's."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, Exception) and not isinstance(error, PureNoiseError | OSError)


def _listen(host: str | None) -> socket.socket:
    """At one address if it is one of this machine; the token keeps others out in any case."""
    if host is not None:
        with contextlib.suppress(OSError):
            family = socket.getaddrinfo(host, None)[0][0]
            return socket.create_server((host, 0), family=family)
    return socket.create_server(("", 0))
