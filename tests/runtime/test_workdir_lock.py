"""One run at a time in a workdir, whatever becomes of the others."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from purenoise_jax.main import main
from purenoise_jax.runtime.errors import InUseError, StorageError
from purenoise_jax.runtime.workdir_lock import NAME, WorkdirLock
from purenoise_jax.training.loop import train_and_evaluate
from tests.tiny import tiny_config, write_npz

HOLD = """
import sys, time
from pathlib import Path
from purenoise_jax.runtime.workdir_lock import WorkdirLock
with WorkdirLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
FORK = """
import os, sys, time
from pathlib import Path
from purenoise_jax.runtime.workdir_lock import WorkdirLock
with WorkdirLock(Path(sys.argv[1])):
    fork = os.fork()
    if fork:
        print(fork, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path):
    """A workdir that another process holds."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield tmp_path, process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_told_who_holds_it(held):
    workdir, process = held
    message = rf"workdir=.* is in use by process {process.pid} on .*, started \d+ s ago"
    for _ in range(2):
        with pytest.raises(InUseError, match=message), WorkdirLock(workdir):
            pass
    assert json.loads((workdir / NAME).read_text())["pid"] == process.pid


def test_a_kill_frees_it(held):
    workdir, process = held
    process.kill()
    process.wait()
    with WorkdirLock(workdir):
        assert json.loads((workdir / NAME).read_text())["pid"] == os.getpid()


def test_leaving_frees_it(tmp_path):
    for _ in range(2):
        with WorkdirLock(tmp_path):
            pass


def test_a_file_that_has_been_replaced_locks_nothing(held, monkeypatch):
    """Its holder leaves and removes it between our opening and our locking it."""
    workdir, process = held
    lock = fcntl.flock

    def late(handle, operation):
        (workdir / NAME).unlink()
        (workdir / NAME).write_text("")
        return lock(handle, operation)

    process.kill()
    process.wait()
    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(InUseError), WorkdirLock(workdir):
        pass


@pytest.mark.parametrize(
    "text",
    ["", "{}", " {}", " [1]", "\x00\x00", ' {"since": "x", "pid": 1, "host": 1}', " " + 9999 * "["],
)
def test_a_holder_that_says_nothing_holds_it_too(held, text):
    (held[0] / NAME).write_text(text)
    with pytest.raises(InUseError, match="in use by another run"), WorkdirLock(held[0]):
        pass


def test_the_first_byte_is_not_read(held):
    """On Windows that is the one that is locked, and nobody else may read it."""
    workdir, process = held
    text = (workdir / NAME).read_text()
    (workdir / NAME).write_text("x" + text[1:])
    with (
        pytest.raises(InUseError, match=f"process {process.pid} on "),
        WorkdirLock(workdir),
    ):
        pass


def test_a_fork_of_the_holder_does_not_hold_it(tmp_path):
    """A run may be killed while a process that it has forked lives on."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORK, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    fork = int(process.stdout.readline())
    try:
        with pytest.raises(InUseError), WorkdirLock(tmp_path):
            pass
        process.kill()
        process.wait()
        with WorkdirLock(tmp_path):
            os.kill(fork, 0)
    finally:
        os.kill(fork, signal.SIGKILL)
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_is_not_entered_twice_by_one_process(tmp_path):
    with (
        WorkdirLock(tmp_path),
        pytest.raises(InUseError, match=f"process {os.getpid()} on "),
        WorkdirLock(tmp_path),
    ):
        pass


def test_another_thread_may_leave_it(tmp_path):
    lock = WorkdirLock(tmp_path).__enter__()
    thread = threading.Thread(target=lock.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    with WorkdirLock(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch, number):
    """A lock that is a file which the run removes would outlive a run that is killed."""

    def flock(handle, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    message = rf"run\.lock: this file system cannot lock files \({os.strerror(number)}\)"
    with pytest.raises(StorageError, match=message), WorkdirLock(tmp_path):
        pass


def test_a_full_disk_costs_the_note_only(tmp_path, monkeypatch):
    def write(handle, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        lock = WorkdirLock(tmp_path).__enter__()
    with pytest.raises(InUseError, match="by another run"), WorkdirLock(tmp_path):
        pass
    lock.__exit__(None, None, None)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused(tmp_path, make):
    make(tmp_path / NAME)
    with pytest.raises(StorageError, match="not a plain file"), WorkdirLock(tmp_path):
        pass


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / NAME).symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError, match=r"run\.lock: cannot be opened"), WorkdirLock(tmp_path):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_run_in_a_workdir_in_use_is_exit_code_7(held, tmp_path_factory, capsys):
    npz = write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")
    before = sorted(held[0].iterdir())
    arguments = ["--config", f"tests/tiny_cli.py:{npz}", "--workdir", str(held[0])]
    assert main(["main", *arguments]) == 7
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"process {held[1].pid}" in error
    assert sorted(held[0].iterdir()) == before, "nothing is written"


def test_a_run_frees_its_workdir_however_it_ends(tmp_path):
    npz = write_npz(tmp_path / "tiny.npz")
    config = tiny_config(npz, num_epochs=3)
    train_and_evaluate(config, tmp_path / "run")
    config.data.path = str(tmp_path / "absent.npz")
    with pytest.raises(Exception, match="absent"):
        train_and_evaluate(config, tmp_path / "run")
    with WorkdirLock(tmp_path / "run"):
        pass
