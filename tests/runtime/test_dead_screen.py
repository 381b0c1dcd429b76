"""Runs whose output cannot be written, because its reader has ended or the log's disk is full."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from purenoise_jax.checkpoint import manifest
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.runtime import distributed
from purenoise_jax.runtime.console import Display, show_error, show_traceback
from purenoise_jax.runtime.errors import DataError
from purenoise_jax.runtime.exit_codes import run_command
from purenoise_jax.runtime.heartbeat import Heartbeat
from purenoise_jax.runtime.preemption import PreemptionHandler
from purenoise_jax.training.metric_writer import read_metrics
from tests.tiny import write_npz

pytestmark = pytest.mark.slow

DEAD = [OSError(errno.EPIPE, "reader gone"), OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "")]


@pytest.fixture(params=DEAD, ids=lambda error: errno.errorcode[error.errno])
def dead(request, monkeypatch):
    """Makes os.write fail and records the exit codes of os._exit, which then returns."""

    def write(descriptor, data):
        raise request.param

    codes = []
    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_a_signal_is_noted_although_its_message_cannot_be_written(dead):
    with PreemptionHandler() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)
        assert stop.requested


def test_a_process_whose_peer_is_gone_ends_although_its_message_cannot_be_written(dead):
    asyncio.run(Heartbeat(None, 1.0)._end("process 1 is gone", 1))
    assert dead == [1]


def test_a_start_that_takes_too_long_ends_although_its_message_cannot_be_written(dead):
    with distributed._deadline(0.01, "processes did not come within"):
        end = time.monotonic() + 20
        while not dead and time.monotonic() < end:
            time.sleep(0.01)
    assert dead == [2]


class Dead:
    """A stream whose writes fail; it may look like a terminal."""

    encoding = "utf-8"

    def __init__(self, error, terminal):
        self.error, self.terminal, self.written = error, terminal, 0

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.written += 1
        raise self.error

    def flush(self):
        raise self.error


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("error", DEAD, ids=lambda error: errno.errorcode[error.errno])
def test_output_that_fails_ends_nothing(error, terminal, monkeypatch):
    dead = Dead(error, terminal)
    monkeypatch.setattr(sys, "stdout", dead)
    monkeypatch.setattr(sys, "stderr", dead)
    display = Display()
    display.header({"a": "b"})
    display.start_progress(10, 0)
    display.doing("epoch 1")
    display.advance(5, 10.0)
    display.warn("text")
    display.stop_progress()
    test = {"accuracy": 0.5, "geometric_mean": 0.5, "per_class_accuracy": [0.5]}
    display.table("title", test, ["a"])
    show_error("error")
    show_traceback()
    assert dead.written >= 5, "each line is tried, because a full disk may have room again"

    def fail():
        raise DataError("labels")

    assert run_command(fail, debug=True, interrupted="") == 3
    # Standard output is not replaced, which Rich does when a pipe breaks.
    assert sys.stdout is dead


def test_a_console_has_the_properties_of_its_file(monkeypatch):
    for terminal in (False, True):
        monkeypatch.setattr(sys, "stdout", Dead(DEAD[0], terminal))
        assert Display()._console.is_terminal == terminal
        assert Display()._console.encoding == "utf-8"


# Complete runs with buffered standard output, as users have it: lines that could not be written
# stay in the buffer, and the interpreter tries again at exit.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    npz = write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")
    main = (sys.executable, "-m", "purenoise_jax.main")
    return [*main, "--config", f"tests/tiny_cli.py:{npz},one_phase", "--workdir"]


def stopped(process, workdir, number, before=lambda: None):
    """Sends a signal once there is a checkpoint; returns the exit code and the newest step."""
    checkpoints, end = Checkpoints(workdir), time.monotonic() + 120
    while not checkpoints.steps() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    try:
        before()
        process.send_signal(number)
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()
    newest = checkpoints.newest()
    assert manifest.find_damage(checkpoints.folder / str(newest)) is None
    return code, newest


# Saves only the first epoch on schedule, so that a later checkpoint is that of the signal.
LONG = ["--config.num_epochs=3000", "--config.checkpoint.every_epochs=0",
        "--config.checkpoint.epochs=(1,)", "--config.eval.every_epochs=1"]  # fmt: skip


def test_ctrl_c_saves_although_it_ends_the_reader_first(command, tmp_path):
    """As in `main 2>&1 | tee log`, where tee gets the signal too."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*command, str(tmp_path), *LONG], **pipes, env=ENVIRONMENT)

    def reader_ends():
        process.stdout.close()
        process.stderr.close()
        # Time for the run to write lines that nobody reads.
        time.sleep(0.5)

    code, step = stopped(process, tmp_path, signal.SIGINT, reader_ends)
    assert code == 130 and step > 3


def test_a_run_trains_and_stops_as_usual_if_the_disk_of_its_log_is_full(command, tmp_path):
    with open("/dev/full", "w") as full:
        to = {"stdout": full, "stderr": full, "env": ENVIRONMENT}
        process = subprocess.Popen([*command, str(tmp_path), *LONG], **to)
        code, step = stopped(process, tmp_path, signal.SIGTERM)
        assert code == 143 and step > 3
        few = ["--config.num_epochs=2", "--config.checkpoint.epochs=()"]
        few.append("--config.optimizer.milestones=()")
        done = subprocess.run([*command, str(tmp_path / "few"), *few], **to, timeout=120)
    assert done.returncode == 0 and Checkpoints(tmp_path / "few").newest() == 6
    assert (tmp_path / "few/summary.json").exists()
    assert [record["step"] for record in read_metrics(tmp_path / "few/metrics.jsonl")][-1] == 6
