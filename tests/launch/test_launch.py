"""Runs of two real processes, and the SLURM script."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from launch import local
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.training.confusion import FILES, load
from tests.tiny import write_npz

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def launch(count, npz, workdir, *more):
    return subprocess.run(
        [sys.executable, "-m", "launch.local", str(count), "--config", f"tests/tiny_cli.py:{npz},one_phase",
         "--workdir", str(workdir), *more],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def test_two_processes_train_like_one(npz, tmp_path, monkeypatch):
    # One device each: two processes of several forced devices hang on two cores.
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")

    def run(count):
        return launch(count, npz, tmp_path / str(count), "--config.num_devices=0")

    with ThreadPoolExecutor() as pool:
        both = [*pool.map(run, (1, 2))]
    for done in both:
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("fingerprint") == 1, "only one process writes"
    one, two = (json.loads((tmp_path / f"{c}/summary.json").read_text()) for c in (1, 2))
    assert (one["devices"], two["devices"]) == (1, 2)
    assert one["dataset_fingerprint"] == two["dataset_fingerprint"]
    assert two["steps"] == 12 and np.sum(two["confusion_matrix"]) == 40
    saved = load(tmp_path / "2" / FILES["test"], 12)
    assert saved.dense().tolist() == two["confusion_matrix"]
    # Each class has ten images, and the parts of both processes are in their order.
    assert saved.by_true().tolist() == [10] * 4
    assert two["test_nll"] == pytest.approx(one["test_nll"], rel=1e-3)


def test_the_first_failure_ends_all_and_gives_the_exit_code(npz, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    done = launch(2, npz, tmp_path, "--config.num_devices=5")
    assert done.returncode == 2
    assert "num_devices=5 but this machine has 2" in done.stderr


def test_a_process_that_ignores_sigterm_is_killed(monkeypatch):
    monkeypatch.setattr(local, "GRACE_SECONDS", 0.5)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    local.stop([process])
    process.stdout.close()
    assert process.returncode == -9


def test_usage():
    done = subprocess.run(
        [sys.executable, "-m", "launch.local", "two"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "launch.local 2 --config" in done.stderr


def running(marker):
    """Processes whose command line contains a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def started(npz, workdir):
    """A starter whose two processes have saved a checkpoint."""
    starter = subprocess.Popen(
        [sys.executable, "-m", "launch.local", "2", "--config", f"tests/tiny_cli.py:{npz},one_phase",
         "--workdir", str(workdir), "--config.num_devices=0", "--config.num_epochs=300"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(2400):
        if Checkpoints(workdir).steps():
            return starter
        time.sleep(0.05)
    raise AssertionError("no progress")


def ended(starter, marker):
    """Stderr of the starter and its processes, once all of them have closed it."""
    try:
        return starter.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        for pid in running(marker):
            os.kill(pid, signal.SIGKILL)
        raise


def gone(marker):
    for _ in range(100):
        if not running(marker):
            return True
        time.sleep(0.1)
    return False


def test_a_signal_to_the_starter_stops_all(npz, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    with started(npz, tmp_path / "run") as starter:
        starter.send_signal(signal.SIGUSR1)
        messages = ended(starter, str(tmp_path))
        assert starter.returncode == 143
    assert messages.count("stopped by SIGUSR1: saved at step") == 2
    assert not running(str(tmp_path))


def test_a_starter_that_is_killed_leaves_no_process_behind(npz, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    with started(npz, tmp_path / "run") as starter:
        assert len(running(str(tmp_path))) == 3
        starter.kill()
        messages = ended(starter, str(tmp_path))
    assert messages.count("stopped by SIGTERM: saved at step") == 2
    assert gone(str(tmp_path))


def test_a_killed_process_gives_the_exit_code():
    """Also if the others, which end because of it, end before the next poll."""
    codes = [
        [sys.executable, "-c", "import sys; sys.exit(1)"],
        [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"],
    ]
    processes = [subprocess.Popen(code) for code in codes]
    for process in processes:
        process.wait()
    assert local.wait(processes) == 137


SCRIPT = Path(local.__file__).with_name("slurm.sbatch").resolve()
KILL = "kill -{0} $$; sleep 9"
# Commands of a job's processes -> its exit code; 100 = all were stopped by a signal.
ENDS = {
    "done": (["exit 0", "exit 0"], 0),
    "all stopped": (["exit 143", "exit 143"], 100),
    "one done, one stopped": (["exit 0", "exit 143"], 100),
    "stopped while it starts": ([KILL.format("USR1"), KILL.format("TERM")], 100),
    "interrupted": (["exit 130", "exit 130"], 130),
    "killed, and the other failed": ([KILL.format("KILL"), "exit 1"], 137),
    "killed, and the other ended": ([KILL.format("KILL"), "exit 143"], 137),
    "crashed": (["exit 143", KILL.format("SEGV")], 139),
    "not to be started": (["exit 143", "no-such-program"], 127),
    **{
        f"refused with {code}": (["exit 143", f"exit {code}"], code) for code in range(1, 8)
    },
    "refused in two ways": (["exit 2", "exit 3"], 3),
}  # fmt: skip


def shell(code, *arguments, **more):
    """Runs a line that can call the functions of the batch script."""
    return subprocess.run(
        ["bash", "-c", f"source {SCRIPT}; {code}", "test", *arguments],
        capture_output=True, text=True, **more,
    )  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_a_job_counts_as_stopped_only_if_all_its_processes_were(case):
    """Runs real processes; srun returns the largest code of all tasks."""
    processes, expected = ENDS[case]
    largest = max(shell('process bash -c "$1"', line).returncode for line in processes)
    assert (largest == 100) == (expected == 100)
    assert int(shell(f"job_code {largest}").stdout) == (143 if expected == 100 else expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_process_of_a_job_gets_signals_and_its_shell_outlives_it(number):
    program = (
        "import signal, sys, time; "
        f"signal.signal({int(number)}, lambda *_: sys.exit(3)); print(flush=True); time.sleep(60)"
    )
    line = f'source {SCRIPT}; process "$@"'
    with subprocess.Popen(
        ["bash", "-c", line, "test", sys.executable, "-c", program],
        stdout=subprocess.PIPE, process_group=0,
    ) as process:  # fmt: skip
        process.stdout.readline()
        os.killpg(process.pid, number)
        assert process.wait(timeout=30) == 103


def test_errors_of_srun_itself_are_passed_on():
    # An error of srun, out of memory, and a shell that was ended before it could start anything.
    assert [int(shell(f"job_code {code}").stdout) for code in (1, 253, 143)] == [1, 253, 143]


# Fakes of SLURM: `srun` runs the job's two processes, `python` in them runs the next line of a file,
# and `scontrol` records its call.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
largest=0
for SLURM_PROCID in 0 1; do
    export SLURM_PROCID
    "$@" || { code=$?; largest=$((code > largest ? code : largest)); }
done
sed -i 1d "$FAKE/plan"
exit $largest
"""
PYTHON = """#!/bin/bash
line=$(head -n 1 "$FAKE/plan")
if ((SLURM_PROCID == 0)); then eval "${line%|*}"; else eval "${line#*|}"; fi
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo "   JobState=$(cat "$FAKE/state") Reason=None"; else echo "$*" >> "$FAKE/calls"; fi
"""
SAVE = "mkdir -p runs/x/checkpoints/{0} runs/x/checkpoints/staging; exit 143"
FRESH = "rm -rf runs/x/checkpoints; mkdir -p runs/x/checkpoints/{0}; exit 143"
CASES = {
    "done": (["exit 0"], "RUNNING", [0], 0),
    "a config error": (["exit 2"], "RUNNING", [2], 0),
    "a config error of one process": (["exit 143|exit 2"], "RUNNING", [2], 0),
    "killed": (["exit 137"], "RUNNING", [137], 0),
    "stopped after a first checkpoint": ([SAVE.format(90), "exit 0"], "RUNNING", [0, 0], 1),
    "steps are numbers": ([SAVE.format(n) for n in (90, 100, 1000, 10000, 100000)], "RUNNING", [0] * 5, 5),
    "cancelled by its user": ([SAVE.format(90)], "CANCELLED", [143], 0),
    "no progress": ([SAVE.format(90)] * 6, "RUNNING", [0, 0, 0, 0, 143], 4),
    "no checkpoint at all": (["exit 143"] * 5, "RUNNING", [0, 0, 0, 143], 3),
    "progress counts anew": (
        [SAVE.format(n) for n in (1, 1, 1, 1, 2, 2, 2, 2, 2)], "RUNNING", [0] * 8 + [143], 8,
    ),
    "from scratch, behind an older checkpoint": (
        [FRESH.format(5), FRESH.format(7), "exit 0"], "RUNNING", [0, 0, 0], 2,
    ),
    "a checkpoint that is lost again and again": (
        [FRESH.format(n) for n in (90, 80, 90, 80, 90)], "RUNNING", [0, 0, 0, 0, 143], 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_slurm_script(case, tmp_path):
    plan, state, codes, requeued = CASES[case]
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("python", PYTHON)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "plan").write_text("\n".join(plan) + "\n")
    (tmp_path / "state").write_text(state)
    if case.startswith("from scratch"):
        (tmp_path / "runs/x/checkpoints/1000").mkdir(parents=True)
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "FAKE": str(tmp_path),
        "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "17",
    }  # fmt: skip
    workdir = ["--workdir=runs/x"] if len(case) % 2 else ["--workdir", "runs/x"]
    for code in codes:
        done = subprocess.run(
            ["bash", str(SCRIPT), "--config", "a b.py", *workdir],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
    calls = tmp_path / "calls"
    assert (calls.read_text() if calls.exists() else "") == "requeue 17\n" * requeued
    if codes[-1] == 143 and state == "RUNNING":
        assert "no new one in" in done.stderr
    elif codes[-1] != 2:
        assert done.stderr == "" and "line" not in done.stdout
    if codes[-1] != 0 or requeued < len(codes):
        assert not list(tmp_path.glob("*.idle"))


def test_slurm_sends_a_signal_early_enough():
    script = SCRIPT.read_text()
    # Not "B:USR1", which would send it only to the script.
    assert "#SBATCH --signal=USR1@" in script and "#SBATCH --open-mode=append" in script
