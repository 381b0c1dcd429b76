"""Engines that run the tasks of a table, and the states of its runs."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch import reproduce
from launch.engines import in_turn, side_by_side, slurm
from launch.engines.one_run import FAILURE
from launch.engines.side_by_side import cores_of
from launch.planning import tasks_of_table
from launch.run_states import FAILED, QUEUED, RUNNING, STOPPED, TO_DO, state_of
from launch.tables import Entry
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.workdir_lock import WorkdirLock, in_use
from tests.launch import tiny_table
from tests.tiny import write_npz

ROOT = Path(__file__).parents[2]


@pytest.fixture
def npz(tmp_path, monkeypatch):
    path = write_npz(tmp_path / "tiny.npz")
    monkeypatch.setenv("TINY_NPZ", str(path))
    return path


@pytest.fixture
def tasks(npz, tmp_path):
    return tasks_of_table(tiny_table.make(reproduce.make_plan(arguments())), range(2), tmp_path)


def arguments(*more):
    return reproduce.parser().parse_args(["tiny", *more])


@pytest.mark.parametrize("jobs", [1, 2, 3, 5, 7, 9])
def test_processes_share_the_cores_evenly(jobs):
    cores = [0, 1, 2, 5, 6, 8, 9]
    shares = [cores_of(place, jobs, cores) for place in range(jobs)]
    assert all(shares)
    if jobs <= len(cores):
        assert [core for share in shares for core in share] == cores
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    else:
        assert {core for share in shares for core in share} == set(cores)


def test_processes_of_one_gpu_share_its_memory():
    names = ["4", "7"]
    found = [side_by_side._gpu_of(place, 3, names) for place in range(3)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == ["4", "7", "4"]
    shares = [float(each["XLA_PYTHON_CLIENT_MEM_FRACTION"]) for each in found]
    assert shares == [0.45, 0.9, 0.45]
    assert side_by_side._gpu_of(0, 2, []) == {}


def test_stages_follow_the_runs_that_they_start_from(tasks):
    assert [len(tasks[i].starts_from) for i in range(3)] == [0, 1, 1]
    first, second = slurm.stages(tasks)
    assert [t.workdir.name for t in first] == ["seed0", "seed1"]
    assert {w for t in second for w in t.starts_from} == {t.workdir for t in first}
    # Those whose first stage is not among them need not wait for it here.
    assert slurm.stages(second) == [second]
    assert slurm.stages([]) == []


def test_states_of_a_run(tasks):
    task, other = tasks[0], tasks[1]
    assert state_of(task).name == TO_DO
    assert state_of(task, {task.workdir}).name == QUEUED
    (task.workdir / "checkpoints" / "6").mkdir(parents=True)
    assert state_of(task) == (STOPPED, "checkpoint of step 6")
    (task.workdir / FAILURE).write_text(json.dumps({"error": "the disk is full", "exit_code": 5}))
    assert state_of(task) == (FAILED, "the disk is full")
    with WorkdirLock(task.workdir):
        assert state_of(task) == (RUNNING, "checkpoint of step 6")
    assert state_of(other).name == TO_DO


def test_a_process_gets_the_same_table(npz, tmp_path):
    given = arguments(
        "--set", "batch_size=8", "--seeds", "3", "--epochs", "7", "--preset", "rescience"
    )
    again = reproduce.parser().parse_args([*reproduce.arguments_for_a_run(given, 3), "--run", "x"])
    assert reproduce.make_plan(again) == reproduce.make_plan(given)
    assert (again.seeds, again.run, again.jobs, again.engine) == (3, "x", None, "local")


def test_a_process_gets_paths_that_do_not_depend_on_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = arguments("--set", "frozen.g=erm", "--set", "data.workers=2", "--set", "model.norm=bn")
    again = reproduce.arguments_for_a_run(given, 1)
    assert [word for word in again if word.startswith("--set=")] == [
        f"--set=frozen.g={tmp_path / 'erm'}", "--set=data.workers=2", "--set=model.norm=bn",
    ]  # fmt: skip


def test_a_run_that_is_refused_for_its_data_does_not_stop_the_others(tmp_path, monkeypatch):
    def train(task, quick):
        if task.name == "imbsam":
            raise ConfigError("no class has so few training images")
        return {"test_accuracy": 0.5, "seconds": 1.0}

    def task(name, *starts_from):
        return SimpleNamespace(
            name=name, summary=None, workdir=tmp_path / name, starts_from=starts_from
        )

    monkeypatch.setattr(in_turn, "train", train)
    tasks = [task("imbsam"), task("imbsam+drw", tmp_path / "imbsam")]
    tasks += [task("imbsam+drw+crt", tmp_path / "imbsam+drw"), task("erm")]
    output = io.StringIO()
    broken = in_turn.run(tasks, SafeConsole(file=output, soft_wrap=True), quick=False)
    assert [path.name for path in broken] == ["imbsam", "imbsam+drw", "imbsam+drw+crt"]
    text = output.getvalue()
    assert "[1/4] imbsam: failed: no class has so few training images" in text
    assert text.count("skipped, because the run that it starts from failed") == 2
    assert "[4/4] erm: 50.0 %" in text


def test_slurm_that_is_not_there_is_an_error_of_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="sbatch is not on this machine"):
        slurm._call(["sbatch"])


@pytest.fixture
def tiny_command(monkeypatch, npz):
    """Processes train runs of the tiny table."""
    monkeypatch.setattr(reproduce, "COMMAND", (sys.executable, "-m", "tests.launch.tiny_table"))
    monkeypatch.setitem(reproduce.TABLES, "tiny", Entry(tiny_table.make))


@pytest.mark.slow
def test_runs_side_by_side_are_those_in_turn(tiny_command, tmp_path, capsys):
    def digests(folder):
        found = {
            p.parent.parent.name: json.loads(p.read_text()) for p in folder.glob("*/*/summary.json")
        }
        return {name: summary["state_digest"] for name, summary in found.items()}

    for name, more in (("apart", ["--jobs", "2"]), ("turn", [])):
        out = str(tmp_path / name)
        assert reproduce.main(["tiny", "--out", out, "--seeds", "1", *more]) == 0
    assert digests(tmp_path / "apart") == digests(tmp_path / "turn")
    assert len(digests(tmp_path / "turn")) == 3
    text = capsys.readouterr().out
    assert len(re.findall(": started", text)) == 3 and len(re.findall(r": done \d", text)) == 3
    assert (
        reproduce.main(["tiny", "--out", str(tmp_path / "turn"), "--seeds", "2", "--status"]) == 0
    )
    assert "6 runs: 3 done, 3 to do" in capsys.readouterr().out


@pytest.mark.slow
def test_a_failed_run_is_named_with_its_reason(tiny_command, tmp_path, capsys):
    argv = [
        "tiny",
        "--out",
        str(tmp_path / "out"),
        "--seeds",
        "1",
        "--set",
        "optimizer.learning_rate=1e30",
    ]
    assert reproduce.main([*argv, "--jobs", "2"]) == 1
    text = capsys.readouterr().out
    assert text.count("skipped, what it starts from is not done") == 2
    assert "exit code 6" in text or "exit code" in text
    assert reproduce.main([*argv, "--status"]) == 0
    status = capsys.readouterr().out
    assert "3 runs: 1 failed, 2 to do" in status
    assert re.search(r"^failed .*not finite", status, re.M), status


def started(out, **more):
    """The command on runs that would take hours, with two processes, once both have saved."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.launch.tiny_table", "tiny", "--out", str(out), "--seeds", "2",
         "--jobs", "2"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TINY_EPOCHS": "90000", **more},
    )  # fmt: skip
    folders = [out.parent / "none"]
    for _ in range(3000):
        folders = [p for p in out.glob("*-erm-*/*") if Checkpoints(p).steps()]
        if len(folders) == 2:
            return process, folders
        assert process.poll() is None
        time.sleep(0.1)
    raise AssertionError(folders)


def until_free(folders):
    for _ in range(600):
        if not any(in_use(folder) for folder in folders):
            return
        time.sleep(0.1)
    raise AssertionError("a process is still there")


@pytest.mark.slow
def test_a_signal_stops_all_processes_after_they_have_saved(npz, tmp_path):
    process, folders = started(tmp_path / "out")
    with process:
        process.send_signal(signal.SIGTERM)
        process.wait(120)
    assert process.returncode == 143
    assert not any(in_use(folder) for folder in folders)
    logs = "".join(path.read_text() for path in (tmp_path / "out" / "logs").iterdir())
    assert len(re.findall(r"saved at step", logs)) == 2, logs


@pytest.mark.slow
def test_processes_end_with_a_command_that_is_killed(npz, tmp_path):
    process, folders = started(tmp_path / "out")
    with process:
        process.kill()
    until_free(folders)
