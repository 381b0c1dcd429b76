"""One run at a time in a workdir, whatever becomes of the others."""

import json
import os
import subprocess
import sys

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


def test_a_file_that_has_been_replaced_locks_nothing(held):
    """Its holder leaves and removes it between our opening and our locking it."""
    workdir, process = held

    class Late(WorkdirLock):
        def _is(self, file):
            (workdir / NAME).unlink()
            (workdir / NAME).write_text("")
            return super()._is(file)

    process.kill()
    process.wait()
    with pytest.raises(InUseError), Late(workdir):
        pass


@pytest.mark.parametrize("text", ["", "{}", "[1]", "\x00", '{"since": "x", "pid": 1, "host": 1}'])
def test_a_holder_that_says_nothing_holds_it_too(held, text):
    (held[0] / NAME).write_text(text)
    with pytest.raises(InUseError, match="in use by another run"), WorkdirLock(held[0]):
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
