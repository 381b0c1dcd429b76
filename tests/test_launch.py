"""Two real processes make one run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from launch import local
from tests.tiny import write_npz


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def launch(count, npz, workdir, *more):
    return subprocess.run(
        [sys.executable, "-m", "launch.local", str(count), "--config", f"tests/tiny_cli.py:{npz}",
         "--workdir", str(workdir), *more],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def test_two_processes_do_the_run_of_one(npz, tmp_path, monkeypatch):
    # Two processes of several forced devices each hang on two cores.
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    for count in (1, 2):
        done = launch(count, npz, tmp_path / str(count), "--config.num_devices=0")
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("fingerprint") == 1, "one process writes"
    one, two = (json.loads((tmp_path / f"{c}/summary.json").read_text()) for c in (1, 2))
    assert (one["devices"], two["devices"]) == (1, 2)
    assert one["dataset_fingerprint"] == two["dataset_fingerprint"]
    assert two["steps"] == 12 and np.sum(two["confusion_matrix"]) == 40
    assert two["test_nll"] == pytest.approx(one["test_nll"], rel=1e-3)


def test_the_first_failure_ends_all_and_is_the_exit_code(npz, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    done = launch(2, npz, tmp_path, "--config.num_devices=5")
    assert done.returncode == 2
    assert "num_devices=5 but this machine has 2" in done.stderr


def test_a_process_that_hangs_is_ended(monkeypatch):
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


def test_slurm_script_is_valid_bash():
    script = Path(local.__file__).with_name("slurm.sbatch")
    subprocess.run(["bash", "-n", str(script)], check=True)
