"""The connections that processes watch each other by, with sockets in the place of the others."""

import asyncio
import contextlib
import os
import queue
import socket
import threading
import time

import jax
import pytest
from jax.experimental import multihost_utils

from purenoise_jax.runtime import heartbeat, threads
from purenoise_jax.runtime.errors import CheckpointError, ConfigError, Stopped, exit_code
from purenoise_jax.runtime.heartbeat import Heartbeat


@pytest.fixture
def pose(monkeypatch):
    """Makes this process one of several; what process 0 tells is `text`, or what it says itself."""

    def make(index, text=None, count=2):
        heard = queue.Queue()

        def broadcast(own):
            heard.put(bytes(own))
            return own if text is None else text

        monkeypatch.setattr(jax, "process_index", lambda: index)
        monkeypatch.setattr(jax, "process_count", lambda: count)
        monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", broadcast)
        return heard

    return make


@pytest.fixture
def ends(monkeypatch):
    """The exit codes with which this process would have ended."""
    codes = queue.Queue()
    monkeypatch.setattr(os, "_exit", codes.put)
    monkeypatch.setattr(threads, "skip_atexit", lambda: None)
    monkeypatch.setattr(heartbeat, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "VERDICT_SECONDS", 0.1)
    return codes


@pytest.fixture
def begin(pose, ends):
    """Process 0 of several; returns it and the sockets of the others."""
    with contextlib.ExitStack() as open_sockets:
        made = queue.Queue()

        def make(count, seconds=10):
            heard = pose(0, count=count)
            thread = threading.Thread(target=lambda: made.put(Heartbeat("127.0.0.1", seconds)))
            thread.start()
            token, port, host = heard.get(timeout=10).split()
            others = []
            for process in range(1, count):
                other = socket.create_connection((host.decode(), int(port)), 10)
                other.sendall(b"%s %d\n" % (token, process))
                others.append(open_sockets.enter_context(other))
            beating = made.get(timeout=10)
            thread.join()
            open_sockets.callback(beating._leaving.set)
            return beating, *others

        yield make


def hears(other, line):
    """Waits until a line comes that is no mere sign of life."""
    text, deadline = b"", time.monotonic() + 10
    while not text.endswith(b"\n") or text == b"here\n":
        assert time.monotonic() < deadline, f"nothing but {text!r} came"
        text = b"" if text == b"here\n" else text
        byte = other.recv(1)
        assert byte, f"ended after {text!r}"
        text += byte
    assert text.decode() == f"{line}\n"


def test_process_0_waits_until_all_have_come(pose, ends):
    """One that is gone before it has said its name would not be missed; strangers do not count."""
    heard = pose(0)
    made, beating = threading.Event(), []

    def make():
        beating.append(Heartbeat("127.0.0.1", 10))
        made.set()

    threading.Thread(target=make, daemon=True).start()
    token, port, host = heard.get(timeout=10).split()
    address = (host.decode(), int(port))
    with contextlib.ExitStack() as stack:
        for said in (b"", b"guess 1\n", b"guess", b"\xff\n", b"x" * 5000, token, token + b" one\n"):
            stranger = stack.enter_context(socket.create_connection(address))
            stranger.sendall(said)
        assert not made.wait(0.3)
        other = stack.enter_context(socket.create_connection(address))
        other.sendall(token + b" 1\n")
        assert made.wait(10)
        beating[0]._leaving.set()


def test_a_process_0_that_cannot_be_reached_is_named(pose):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    pose(1, f"token {port} 127.0.0.1".encode())
    with pytest.raises(ConfigError, match=rf"process 0 cannot be reached at 127\.0\.0\.1:{port}: "):
        Heartbeat("127.0.0.1", 10)


def test_one_that_is_killed_is_named_to_all(begin, ends, capfd):
    _, one, other = begin(3)
    one.close()
    message = (
        "process 1 of 3 is gone: its connection ended; "
        "the same command continues at the last checkpoint"
    )
    hears(other, f"gone {message}")
    assert ends.get(timeout=10) == 1
    assert capfd.readouterr().err == f"\nerror: {message}\n"


def test_one_that_hangs_is_named_to_all(begin, ends, capfd):
    _, one, other = begin(3, seconds=1)
    said = threading.Event()

    def say_here():
        while not said.wait(0.1):
            other.sendall(b"here\n")

    thread = threading.Thread(target=say_here)
    thread.start()
    try:
        message = (
            "process 1 of 3 is gone: nothing was heard of it for 1 s; "
            "the same command continues at the last checkpoint"
        )
        hears(other, f"gone {message}")
    finally:
        said.set()
        thread.join()
    assert ends.get(timeout=10) == 1
    assert capfd.readouterr().err == f"\nerror: {message}\n"
    one.close()


def test_one_that_cannot_go_on_tells_all(begin, ends, capfd):
    _, one, other = begin(3)
    one.sendall(b"left 1 4\n")
    hears(other, "left 1 4")
    assert ends.get(timeout=10) == 4
    error = capfd.readouterr().err
    assert error == "\nerror: process 1 could not go on (exit code 4, see there)\n"


def test_one_that_cannot_go_on_itself_ends_with_its_own_error(begin, ends, capfd, monkeypatch):
    monkeypatch.setattr(heartbeat, "GRACE_SECONDS", 5)
    beating, one, other = begin(3)
    with pytest.raises(CheckpointError, match="mine"), beating:
        other.sendall(b"left 2 3\n")
        for process in (one, other):
            hears(process, "left 2 3")
        # Which it would wait for.
        monkeypatch.setattr(beating._alone, "wait", lambda seconds: True)
        raise CheckpointError("mine")
    for process in (one, other):
        hears(process, "left 0 4")
    assert ends.empty() and capfd.readouterr().err == ""


@pytest.mark.parametrize("error", [None, Stopped("by a signal", 143)])
def test_in_order_all_wait_until_the_last_is_done(begin, ends, error):
    beating, one, other = begin(3)
    left = threading.Event()

    def leave():
        with contextlib.suppress(Stopped), beating:
            if error is not None:
                raise error
        left.set()

    thread = threading.Thread(target=leave)
    thread.start()
    for process in (one, other):
        hears(process, "done 0")
    one.sendall(b"done 1\n")
    for process in (one, other):
        hears(process, "done 1")
    # Done, so it may end before the last is.
    one.close()
    assert not left.wait(0.3)
    other.sendall(b"done 2\n")
    hears(other, "done 2")
    assert not left.wait(0.3), "its end is that of process 2"
    other.close()
    thread.join(10)
    assert left.is_set() and ends.empty()


def test_another_process_ends_by_what_process_0_says(pose, ends, capfd):
    with socket.create_server(("127.0.0.1", 0)) as server:
        pose(1, f"token {server.getsockname()[1]} 127.0.0.1".encode(), count=3)
        Heartbeat("127.0.0.1", 10)
        with server.accept()[0] as zero:
            assert zero.makefile("rb").readline() == b"token 1\n"
            zero.sendall(b"gone process 2 of 3 is gone\n")
            assert ends.get(timeout=10) == 1
            assert capfd.readouterr().err == "\nerror: process 2 of 3 is gone\n"


def test_a_run_that_was_suspended_as_a_whole_goes_on():
    """All clocks have moved on when it wakes up, and nobody has said anything meanwhile."""

    async def wake_up():
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        slept = 0.0
        loop.time = lambda: time.monotonic() + slept
        hearing = asyncio.create_task(Heartbeat(None, 30.0)._next(reader))
        await asyncio.sleep(0)
        slept = 1000.0
        await asyncio.sleep(0.1)
        reader.feed_data(b"here\n")
        return await hearing

    assert asyncio.run(wake_up()) == b"here\n"


def test_the_others_are_told_the_exit_code_of_the_command_line():
    codes = {CheckpointError(): 4, Stopped("", 143): 143, KeyboardInterrupt(): 130}
    codes |= {OSError(): 5, ValueError(): 1}
    assert {error: exit_code(error) for error in codes} == codes
