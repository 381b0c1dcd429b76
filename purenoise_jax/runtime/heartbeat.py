"""Heartbeat between the processes of a run: ends this process if another one is gone.

JAX detects this too, but late, and ends the process from within the compiled library, without our
message and exit code; and a process that waits in a collective operation for a failed one does not
return to Python. A launcher ends the others of a process that ended, not of one that hangs. So each
process has a connection to process 0 and sends a line at least once a second. The operating system
closes the connections of a killed process at once; a process that hangs stops sending.

A process that fails sends its error, and the others end with its exit code.
"""

import asyncio
import contextlib
import hmac
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from purenoise_jax.runtime import threads
from purenoise_jax.runtime.errors import ConfigError, PureNoiseError, Stopped, exit_code, one_line

T = TypeVar("T")

GONE = 1
# Seconds to wait whether an error of the library was caused by another process; and seconds that a
# process has to end by itself after it has received the failure of another.
VERDICT_SECONDS, GRACE_SECONDS = 2.0, 1.0
TOKEN_BYTES, LINE_BYTES = 16, 1024


class Heartbeat:
    """Watches over the other processes of a run, from when all have come until it is left.

    Left without an error, or with `Stopped`, it waits until all others are done too. Left with
    another error, it tells them, and they end with its exit code. With one process it does nothing.

    The connections belong to an event loop on a thread of its own, on which all that is a coroutine
    here runs.

    Args:
        host: address of process 0; None = what process 0 calls itself.
        seconds: after which a process that nothing is heard of is taken for gone.

    Raises:
        ConfigError: process 0 cannot be reached.
    """

    def __init__(self, host: str | None, seconds: float) -> None:
        self._host, self._seconds = host, seconds
        self._beat = min(1.0, seconds / 5)
        self._me, self._count = jax.process_index(), jax.process_count()
        # All others for process 0, only process 0 for the others.
        self._others: dict[int, asyncio.StreamWriter] = {}
        self._done: set[int] = set()
        self._all_here, self._all_done = threading.Event(), threading.Event()
        self._alone, self._leaving = threading.Event(), threading.Event()
        if self._count > 1:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, daemon=True).start()
            self._connect()

    def __enter__(self) -> "Heartbeat":
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
            self._run(self._say_done(self._me))
            # The watch goes on meanwhile: process 0 may have a report to draw.
            self._all_done.wait()
        elif _from_library(error):
            # More often than not what a collective operation says when another process is gone.
            # If so, the watch ends this process first.
            time.sleep(VERDICT_SECONDS)
        self._leaving.set()
        if not in_order:
            self._run(self._tell(f"left {self._me} {exit_code(error)}"))
        if self._me == 0:
            # When this process ends, JAX ends those that have not, with an error.
            self._alone.wait(self._seconds if in_order else 2 * GRACE_SECONDS)
        # JAX would have all of them meet once more, where one that has compiled code still at work
        # in the background cannot come to.
        threads.skip_atexit()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Does something on the thread of the connections, and waits for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _connect(self) -> None:
        """Makes the connections.

        Where and with which password comes by way of JAX, so that nobody else can interfere.
        """
        token, port = b"", 0
        if self._me == 0:
            token = secrets.token_hex(TOKEN_BYTES).encode()
            port = self._run(self._listen(token))
            self._host = self._host or socket.gethostname()
        text = b"%s %d %s" % (token, port, (self._host or "").encode())
        told = multihost_utils.broadcast_one_to_all(np.frombuffer(text.ljust(512), np.uint8))
        token, told_port, host = bytes(np.asarray(told)).split()
        if self._me != 0:
            try:
                self._run(self._call(host.decode(), int(told_port), token))
            except OSError as error:
                raise ConfigError(
                    f"process 0 cannot be reached at {host.decode()}:{int(told_port)}: {error}"
                ) from error
        # Wait until all are connected: a process that dies before connecting would go unnoticed.
        self._all_here.wait()

    async def _listen(self, token: bytes) -> int:
        """Waits for the other processes from now on; returns at which port."""

        async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, ValueError):
                said, process = (await reader.readline()).split()
                if hmac.compare_digest(said, token):
                    await self._watch(int(process), reader, writer)
            writer.close()

        listener = _listener(self._host)
        self._server = await asyncio.start_server(welcome, sock=listener, limit=LINE_BYTES)
        self._beating = asyncio.create_task(self._say_here())
        return listener.getsockname()[1]

    async def _call(self, host: str, port: int, token: bytes) -> None:
        """Connects with process 0."""
        opened = asyncio.open_connection(host, port, limit=LINE_BYTES)
        reader, writer = await asyncio.wait_for(opened, self._seconds)
        writer.write(b"%s %d\n" % (token, self._me))
        self._watching = asyncio.create_task(self._watch(0, reader, writer))
        self._beating = asyncio.create_task(self._say_here())

    async def _say_here(self) -> None:
        while True:
            await self._tell("here")
            await asyncio.sleep(self._beat)

    async def _watch(
        self, process: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Reads the lines of another process until its connection closes."""
        self._others[process] = writer
        if len(self._others) == (self._count - 1 if self._me == 0 else 1):
            self._all_here.set()
        why = "its connection ended"
        try:
            while (line := await self._next(reader)).endswith(b"\n"):
                await self._heed(line.decode("ascii", "replace").strip())
        except TimeoutError:
            why = f"nothing was heard of it for {self._seconds:g} s"
        except (OSError, ValueError):
            pass
        del self._others[process]
        writer.close()
        if not self._others:
            self._alone.set()
        if process not in self._done and not self._leaving.is_set():
            message = (
                f"process {process} of {self._count} is gone: {why}; "
                "the same command continues at the last checkpoint"
            )
            await self._tell(f"gone {message}")
            await self._end(message, GONE)

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        """The next line, cut short where the connection ended.

        Raises:
            TimeoutError: none came in time.
        """
        # After a suspension of the whole job all clocks have advanced. It then uses up only one of
        # several short waits.
        for _ in range(math.ceil(self._seconds / self._beat)):
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(reader.readline(), self._beat)
        raise TimeoutError

    async def _heed(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "left":
            if self._me == 0:
                await self._tell(line)
            process, code = rest.split()
            why = f"process {process} could not go on (exit code {code}, see there)"
            await self._end(why, int(code), GRACE_SECONDS)
        elif word == "gone":
            await self._end(rest, GONE)
        elif word == "done":
            await self._say_done(int(rest))

    async def _end(self, message: str, code: int, grace: float = 0.0) -> None:
        """Ends this process, unless it is about to end with an error of its own."""
        # Holds up the other coroutines, or another of them could end it meanwhile.
        if self._leaving.wait(grace):
            return
        # Not through a console, whose lock the main thread may hold, and in one piece.
        with contextlib.suppress(OSError):
            os.write(2, f"\nerror: {one_line(message)}\n".encode())
        # From here on the process ends.
        self._leaving.set()
        # When process 0 ends, JAX ends the others, perhaps before they could say why.
        deadline = time.monotonic() + GRACE_SECONDS
        while self._me == 0 and self._others and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        os._exit(code)

    async def _say_done(self, process: int) -> None:
        """All processes hear of every one that is done, from process 0."""
        self._done.add(process)
        if self._me in (0, process):
            await self._tell(f"done {process}")
        if len(self._done) == self._count:
            self._all_done.set()

    async def _tell(self, line: str) -> None:
        """Sends a line to all; a broken connection shows when reading, too."""
        for writer in self._others.values():
            writer.write(f"{line}\n".encode())


def _from_library(error: BaseException | None) -> bool:
    """True if the first exception is neither ours nor the operating system's."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, Exception) and not isinstance(error, PureNoiseError | OSError)


def _listener(host: str | None) -> socket.socket:
    """At one address if it is one of this machine; the token keeps others out in any case."""
    if host is not None:
        with contextlib.suppress(OSError):
            family = socket.getaddrinfo(host, None)[0][0]
            return socket.create_server((host, 0), family=family)
    return socket.create_server(("", 0))
