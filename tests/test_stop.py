"""Signals: nothing computed is lost, the run leaves at the next step boundary, and continues."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from purenoise_jax import command
from purenoise_jax.background import Background
from purenoise_jax.checkpoint import Checkpoints
from purenoise_jax.console import Display
from purenoise_jax.errors import Stopped
from purenoise_jax.stop import SIGNALS, StopRequest
from purenoise_jax.train import train_and_evaluate
from purenoise_jax.writer import read_metrics, state_digest
from tests.tiny import tiny_config, write_npz

CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGINT: 130}


def send(number):
    os.kill(os.getpid(), number)
    # A handler runs between two instructions of Python; this gives it the occasion.
    time.sleep(0)


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_what_has_nothing_to_lose_at_once(number):
    with pytest.raises(Stopped, match=signal.Signals(number).name) as stopped, StopRequest():
        send(number)
        time.sleep(10)
    assert stopped.value.exit_code == CODES[number]


@pytest.mark.parametrize("number", CODES)
def test_a_deferred_signal_waits_until_it_is_asked_for(number):
    with StopRequest() as stop:
        with pytest.raises(Stopped), stop.deferred():
            assert not stop.requested
            send(number)
            assert stop.requested
            reached = True
        assert reached
    assert stop.stopped("saved").exit_code == CODES[number]


def test_a_signal_waits_for_the_outermost_of_those_that_defer():
    with StopRequest() as stop, pytest.raises(Stopped), stop.deferred():
        with stop.deferred():
            send(signal.SIGTERM)
        send(signal.SIGTERM)
        reached = True
    assert reached


def test_the_first_signal_counts():
    with StopRequest() as stop:
        with pytest.raises(Stopped) as stopped, stop.deferred():
            send(signal.SIGINT)
            send(signal.SIGTERM)
        assert stopped.value.exit_code == 130


def test_a_second_interrupt_leaves_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop, stop.deferred():
        send(signal.SIGINT)
        send(signal.SIGTERM)
        send(signal.SIGINT)
        time.sleep(10)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_off_the_main_thread_it_does_not_listen():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def elsewhere():
        with StopRequest() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.requested))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_stopped_is_no_error_that_somebody_may_catch():
    assert not issubclass(Stopped, Exception)

    def stop():
        raise Stopped("stopped by SIGTERM: saved", 143)

    assert command.run_command(stop, debug=False, interrupted="") == 143


def test_background_work_returns_raises_and_lets_signals_through():
    assert Background(lambda: 7).result() == 7
    with pytest.raises(ZeroDivisionError):
        Background(lambda: 1 // 0).result()
    release = threading.Event()
    work = Background(release.wait)
    started = time.monotonic()
    with pytest.raises(Stopped), StopRequest():
        threading.Timer(0.1, send, [signal.SIGTERM]).start()
        work.result()
    assert time.monotonic() - started < 5
    release.set()
    assert work.result() is True


def test_leaving_does_not_wait_for_background_work():
    code = """
import ctypes, sys, time
from purenoise_jax.background import Background, leave
# Python's own lock is held for as long as the foreign function sleeps, as in some compilers.
work = Background(lambda: time.sleep(60)) if sys.argv[1] == "busy" else Background(int)
print("out", end="")
time.sleep(0.1)
leave(143)
"""
    for kind in ("busy", "idle"):
        done = subprocess.run(
            [sys.executable, "-c", code, kind], capture_output=True, text=True, timeout=20
        )
        assert (done.returncode, done.stdout) == (143, "out")


# Whole runs, that send themselves a signal.


class Sender(Display):
    """Sends its own process a signal when the run gets to a phase for the n-th time."""

    def __init__(self, phase, times=1, number=signal.SIGTERM):
        super().__init__(active=False)
        self.phase, self.left, self.number = phase, times, number

    def doing(self, what):
        if what.startswith(self.phase):
            self.left -= 1
            if self.left == 0:
                send(self.number)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


# Evaluates after every epoch, and saves in between only when it is stopped.
SELDOM = {"eval.every_epochs": 1, "checkpoint.every_epochs": 0, "checkpoint.keep": 100}


@pytest.fixture(scope="module")
def through(npz, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("through")
    return workdir, train_and_evaluate(tiny_config(npz, **SELDOM), workdir)


def records(workdir):
    return [
        {name: value for name, value in record.items() if "per_second" not in name}
        for record in read_metrics(workdir / "metrics.jsonl")
    ]


WHERE = [
    ("reading", 1, None), ("compiling", 1, None), ("compiling", 3, 6), ("epoch 1", 1, 1),
    ("epoch 1", 2, 2), ("epoch 1", 3, 3), ("epoch 2", 2, 5), ("epoch 3", 1, 7), ("epoch 4", 3, 12),
    ("evaluating", 1, 3), ("evaluating", 2, 6), ("evaluating", 4, 12), ("saving", 1, 6),
    ("saving", 2, 12),
]  # fmt: skip


@pytest.mark.parametrize(("phase", "times", "step"), WHERE)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_stops_where_it_is_and_continues_as_if_it_had_not(
    npz, through, tmp_path, phase, times, step, number
):
    config = tiny_config(npz, **SELDOM)
    with pytest.raises(Stopped) as stopped:
        train_and_evaluate(config, tmp_path, Sender(phase, times, number))
    assert stopped.value.exit_code == CODES[number]
    assert Checkpoints(tmp_path).newest() == step
    again = train_and_evaluate(config, tmp_path)
    assert state_digest(again) == state_digest(through[1])
    assert records(tmp_path) == records(through[0]), "each epoch once, sums included"


def test_stopped_at_every_step_it_gets_there_all_the_same(npz, through, tmp_path):
    config, steps = tiny_config(npz, **SELDOM), []
    for _ in range(12):
        with pytest.raises(Stopped):
            train_and_evaluate(config, tmp_path, Sender("epoch"))
        steps.append(Checkpoints(tmp_path).newest())
    assert steps == list(range(1, 13))
    state = train_and_evaluate(config, tmp_path)
    assert state_digest(state) == state_digest(through[1])
    assert records(tmp_path) == records(through[0])


def test_a_stop_before_anything_is_computed_leaves_nothing(npz, tmp_path):
    with pytest.raises(Stopped):
        train_and_evaluate(tiny_config(npz), tmp_path / "run", Sender("reading"))
    assert not (tmp_path / "run").exists()


def test_an_epochs_end_that_is_done_twice_is_recorded_once(npz, through, tmp_path):
    """Stopped just before it, and then killed after it."""

    class Crash(Display):
        def doing(self, what):
            if what.startswith("epoch 2"):
                raise MemoryError

    config = tiny_config(npz, **SELDOM)
    with pytest.raises(Stopped):
        train_and_evaluate(config, tmp_path, Sender("epoch 1", 3))
    assert Checkpoints(tmp_path).newest() == 3 and records(tmp_path) == []
    with pytest.raises(MemoryError):
        train_and_evaluate(config, tmp_path, Crash(active=False))
    assert [record["step"] for record in records(tmp_path)] == [3]
    train_and_evaluate(config, tmp_path)
    assert records(tmp_path) == records(through[0])
