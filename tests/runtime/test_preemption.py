"""Signals: the run saves and stops at the next step boundary, and continues later."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest
from ml_collections import ConfigDict

from purenoise_jax import main as cli
from purenoise_jax.checkpoint.digest import state_digest
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.runtime import exit_codes, preemption
from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.errors import Stopped
from purenoise_jax.runtime.preemption import SIGNALS, PreemptionHandler
from purenoise_jax.runtime.threads import Background
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.metric_writer import read_metrics
from purenoise_jax.training.resume import FRESH_FILE
from tests.tiny import tiny_config, write_npz

pytestmark = pytest.mark.slow

CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGINT: 130}


def send(number):
    os.kill(os.getpid(), number)
    # A handler runs between two instructions of Python; this call lets it run.
    time.sleep(0)


@pytest.mark.parametrize("number", CODES)
def test_a_signal_raises_only_when_polled(number):
    with PreemptionHandler() as stop:
        stop.poll()
        assert not stop.requested
        send(number)
        assert stop.requested
        with pytest.raises(Stopped, match=signal.Signals(number).name) as stopped:
            stop.poll()
    assert stopped.value.exit_code == CODES[number]


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_the_wait_for_long_work(number):
    release, started = threading.Event(), time.monotonic()
    with PreemptionHandler() as stop, pytest.raises(Stopped) as stopped:
        threading.Timer(0.1, send, [number]).start()
        stop.waiting(release.wait)
    assert stopped.value.exit_code == CODES[number] and time.monotonic() - started < 5
    release.set()


def test_one_of_several_processes_does_not_stop_alone(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with PreemptionHandler() as stop:
        send(signal.SIGTERM)
        stop.poll()
        assert stop.waiting(lambda: 7) == 7 and stop.requested


def test_the_first_signal_counts():
    with PreemptionHandler() as stop:
        send(signal.SIGINT)
        send(signal.SIGTERM)
        with pytest.raises(Stopped) as stopped:
            stop.poll()
    assert stopped.value.exit_code == 130


def test_a_second_interrupt_ends_the_run_at_once(monkeypatch):
    skipped = []
    monkeypatch.setattr(preemption, "skip_atexit", lambda: skipped.append(True))
    with pytest.raises(KeyboardInterrupt), PreemptionHandler():
        send(signal.SIGINT)
        send(signal.SIGTERM)
        assert not skipped
        send(signal.SIGINT)
        time.sleep(10)
    assert skipped


def test_handlers_are_restored():
    before = [signal.getsignal(number) for number in SIGNALS]
    with PreemptionHandler():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_off_the_main_thread_no_handler_is_installed():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def elsewhere():
        with PreemptionHandler() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.requested))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_stopped_is_not_caught_as_an_exception():
    assert not issubclass(Stopped, Exception)

    def stop():
        raise Stopped("stopped by SIGTERM: saved", 143)

    assert exit_codes.run_command(stop, debug=False, interrupted="") == 143


def test_background_work_returns_raises_and_lets_signals_through(monkeypatch):
    monkeypatch.setattr(preemption, "skip_atexit", lambda: None)
    assert Background(lambda: 7).result() == 7
    with pytest.raises(ZeroDivisionError):
        Background(lambda: 1 // 0).result()
    release = threading.Event()
    work = Background(release.wait)
    with pytest.raises(KeyboardInterrupt), PreemptionHandler():
        for delay in (0.1, 0.2):
            threading.Timer(delay, send, [signal.SIGINT]).start()
        work.result()
    release.set()
    assert work.result() is True, "it stays usable after an exception of a handler"


def test_exit_process_does_not_wait_for_background_work():
    code = """
import ctypes, sys, time
from purenoise_jax.runtime.threads import Background, exit_process
work = Background(lambda: time.sleep(60)) if sys.argv[1] == "busy" else Background(int)
print("out", end="")
time.sleep(0.1)
exit_process(143)
"""
    for kind in ("busy", "idle"):
        done = subprocess.run(
            [sys.executable, "-c", code, kind], capture_output=True, text=True, timeout=20
        )
        assert (done.returncode, done.stdout) == (143, "out")


# Complete runs that send themselves a signal.


class Sender(Display):
    """Sends its own process a signal when the run enters an activity for the n-th time."""

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


# Evaluates after every epoch, and saves within epochs only when it is stopped.
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


@pytest.mark.parametrize(
    ("phase", "times", "step", "number"),
    # The signal matters only for the exit code, so the signals take turns.
    [(*place, number) for place, number in zip(WHERE, itertools.cycle(SIGNALS), strict=False)],
)
def test_a_stopped_run_continues_as_if_it_had_not_been_stopped(
    npz, through, tmp_path, phase, times, step, number
):
    config = tiny_config(npz, **SELDOM)
    with pytest.raises(Stopped) as stopped:
        train_and_evaluate(config, tmp_path, Sender(phase, times, number))
    assert stopped.value.exit_code == CODES[number]
    assert Checkpoints(tmp_path).newest() == step
    again = train_and_evaluate(config, tmp_path)
    assert state_digest(again) == state_digest(through[1])
    assert records(tmp_path) == records(through[0]), (
        "each epoch is recorded once, with the same sums"
    )


def test_a_run_stopped_at_every_step_ends_in_the_same_state(npz, through, tmp_path):
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


def test_an_epochs_end_that_is_repeated_is_recorded_once(npz, through, tmp_path):
    """The run is stopped just before the end of an epoch, and killed after it."""

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


@pytest.mark.parametrize(
    ("phase", "times", "spent"),
    [("reading", 1, False), ("compiling", 1, True), ("epoch 3", 1, True)],
)
def test_a_job_starts_from_scratch_once(npz, through, tmp_path, monkeypatch, phase, times, spent):
    """Restarted by SLURM with the same job number, it continues."""
    train_and_evaluate(tiny_config(npz, **SELDOM), tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    fresh = tiny_config(npz, **SELDOM, fresh=True)
    with pytest.raises(Stopped, match="; the same command continues"):
        train_and_evaluate(fresh, tmp_path, Sender(phase, times))
    assert (tmp_path / FRESH_FILE).exists() == spent
    there = Checkpoints(tmp_path).steps()
    assert there == {"reading": [6, 12], "compiling": [], "epoch 3": [6, 7]}[phase]
    again = train_and_evaluate(fresh, tmp_path)
    assert state_digest(again) == state_digest(through[1])
    assert records(tmp_path) == records(through[0])
    aside = {path.name for path in (tmp_path / "checkpoints/quarantine").iterdir()}
    assert {"6", "12"} <= aside and not aside & {"6.1", "7"}, (
        "its own checkpoints are not set aside"
    )
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    with pytest.raises(Stopped):
        train_and_evaluate(fresh, tmp_path, Sender("compiling"))
    assert Checkpoints(tmp_path).steps() == [], "another job starts from scratch again"


def test_without_a_job_the_message_says_how_to_continue(npz, tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    config = tiny_config(npz, **SELDOM, fresh=True)
    with pytest.raises(Stopped, match=r"without --config\.fresh=True the same command continues"):
        train_and_evaluate(config, tmp_path, Sender("epoch 2"))
    # By now the checkpoints are set aside; without the field, the run would be refused.
    with pytest.raises(Stopped, match=r"before the first step; the same command starts again$"):
        train_and_evaluate(config, tmp_path, Sender("compiling"))
    # Here they are not set aside yet.
    train_and_evaluate(config, tmp_path)
    with pytest.raises(Stopped, match=r"; without --config\.fresh=True the same command continues"):
        train_and_evaluate(config, tmp_path, Sender("reading"))


@pytest.mark.parametrize(
    ("fresh", "job", "saved", "hint"),
    [
        (False, "", True, "the same command continues at the last checkpoint"),
        (True, "", True,
         "without --config.fresh=True the same command continues at the last checkpoint"),
        (True, "", False, "the same command starts again"),
        (True, "17", True, "the same command continues at the last checkpoint"),
    ],
)  # fmt: skip
def test_an_interrupted_run_says_how_to_continue(
    npz, tmp_path, monkeypatch, capsys, fresh, job, saved, hint
):
    def interrupted(config, workdir, *rest):
        if saved:
            (tmp_path / "checkpoints/3").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setattr(cli, "train_and_evaluate", interrupted)
    arguments = ["--config", f"tests/tiny_cli.py:{npz}", "--workdir", str(tmp_path)]
    assert cli.main(["main", *arguments, f"--config.fresh={fresh}"]) == 130
    assert capsys.readouterr().err == f"interrupted; {hint}\n"


def test_a_network_with_two_sets_of_statistics_continues_bitwise(npz, tmp_path):
    """The run is stopped within an epoch, and later just after an epoch."""
    config = tiny_config(npz, **SELDOM, **{"model.name": "wrn10_1", "model.norm": "aux_bn"})
    # Only one phase, because compiling this network takes long.
    config.phases = ConfigDict({"initial": {"start_epoch": 0, "methods": ("open",)}})
    through = train_and_evaluate(config, tmp_path / "through")
    for times, step in ((2, 2), (5, 7)):
        with pytest.raises(Stopped):
            train_and_evaluate(config, tmp_path / "parts", Sender("epoch", times))
        assert Checkpoints(tmp_path / "parts").newest() == step
    parts = train_and_evaluate(config, tmp_path / "parts")
    assert state_digest(parts) == state_digest(through)
    assert records(tmp_path / "parts") == records(tmp_path / "through")
