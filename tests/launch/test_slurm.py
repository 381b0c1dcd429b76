"""The batch script on a real SLURM: `tests/local_slurm.sh pytest -m slow tests/launch/test_slurm.py`."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from launch import compare, reproduce
from purenoise_jax.checkpoint.manager import Checkpoints
from tests.launch.slurm_jobs import NODES, Run, change, cluster_alone, why_not
from tests.tiny import write_npz

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def slurm():
    why = why_not()
    if why:
        pytest.skip(why)


@pytest.fixture(autouse=True)
def alone(slurm):
    with cluster_alone():
        yield


REFUSED = """\
import os
from purenoise_jax.runtime.errors import ConfigError
from tests.tiny_cli import get_config
if os.environ["SLURM_PROCID"] == "1":
    raise ConfigError("not on this machine")
"""


def test_a_job_is_not_requeued_if_one_process_refuses(tmp_path):
    """SLURM ends the other process, whose code is then that of a stopped run."""
    (tmp_path / "refused.py").write_text(REFUSED)
    config = f"{tmp_path}/refused.py:{write_npz(tmp_path / 'tiny.npz')}"
    with Run(tmp_path, config=config) as job:
        job.wait("FAILED")
        assert job.shown("ExitCode") == "2:0" and job.shown("Restarts") == "0"
    assert "error: not on this machine" in job.log() and "queue" not in job.log()


def test_a_job_is_requeued_until_its_user_cancels_it(tmp_path):
    with Run(tmp_path, "--config.num_epochs=3000") as job:
        job.wait_for_steps()
        subprocess.run(["scancel", "--signal=USR1", job.number], check=True)
        job.wait_for_restart(1)
        stopped = max(Checkpoints(job.workdir).steps())
        assert f"stopped at a checkpoint of step {stopped}" in job.log()

        job.wait_for_steps(beyond=stopped)
        change("nodename", NODES[1], "state=down", "reason=test")
        job.wait("PENDING")
        change("nodename", NODES[1], "state=idle")
        saved = max(Checkpoints(job.workdir).steps())
        job.wait_for_restart(2)

        job.wait_for_steps(beyond=saved)
        subprocess.run(["scancel", job.number], check=True)
        job.wait("CANCELLED")
        time.sleep(3)
        assert job.shown("JobState") == "CANCELLED" and job.shown("Restarts") == "2"
    for steps in (stopped, saved):
        assert f"continues at step {steps:,}," in job.log()
    # After the failure of the machine SLURM itself requeued the job.
    assert job.log().count("back into the queue") == 1


@pytest.fixture
def table(tmp_path, monkeypatch, capsys):
    """A function that runs `launch.reproduce` on the quick form of a table, and returns its output."""
    cifar = os.environ.get("PURENOISE_JAX_CIFAR")
    if not cifar:
        pytest.skip("PURENOISE_JAX_CIFAR does not name a folder of CIFAR files")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    out = tmp_path / "out"

    def command(*more: str) -> str:
        assert (
            reproduce.main(["resnet32", "--quick", f"--data={cifar}", f"--out={out}", *more]) == 0
        )
        return capsys.readouterr().out

    yield command
    for listed in out.glob("quick/jobs/*.txt"):
        subprocess.run(["scancel", "--quiet", listed.stem])


def log_of(tmp_path: Path, number: str, place: int) -> str:
    path = tmp_path / f"out/quick/jobs/{number}_{place}.log"
    return path.read_text() if path.exists() else ""


def wait_until(done, tmp_path: Path) -> None:
    for _ in range(1200):
        if done():
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text() for path in tmp_path.glob("out/quick/jobs/*.log"))
    raise AssertionError(logs)


SUBMIT = ("--engine=slurm", "--sbatch=--cpus-per-task=1", "--sbatch=--time=20")


def test_a_table_is_run_by_two_arrays_and_nothing_twice(table, tmp_path):
    submitted = table(*SUBMIT, "--jobs=1")
    first, second = re.findall(r"array (\d+): (\d) runs", submitted)
    assert (first[1], second[1]) == ("2", "2")
    assert f"array {second[0]}: 2 runs, after {first[0]}" in submitted
    again = table(*SUBMIT)
    assert "4 runs are in the queue already" in again and "nothing to submit" in again
    assert re.search(r"4 runs: .*queued", table("--status"))
    wait_until(lambda: "4 runs: 4 done" in table("--status"), tmp_path)
    assert "already" not in log_of(tmp_path, first[0], 0)
    assert "nothing to submit" in table(*SUBMIT)
    assert table("--only-table").count("(n=1)") == 4


def test_a_stopped_job_of_an_array_goes_back_into_the_queue_alone(table, tmp_path):
    number, *_ = re.findall(r"array (\d+)", table(*SUBMIT, "--epochs=4000"))

    # Both have ended an epoch.
    def trained() -> bool:
        files = [*tmp_path.glob("out/quick/*/*/metrics.jsonl")]
        return sum(file.stat().st_size > 0 for file in files) == 2

    wait_until(trained, tmp_path)
    subprocess.run(["scancel", "--signal=USR1", f"{number}_0"], check=True)
    wait_until(lambda: "back into the queue" in log_of(tmp_path, number, 0), tmp_path)
    assert "stopped at a checkpoint of step" in log_of(tmp_path, number, 0)
    shown = subprocess.run(
        ["scontrol", "show", "job", f"{number}_1"], capture_output=True, text=True, check=True
    ).stdout
    assert "JobState=RUNNING" in shown and "Restarts=0" in shown
    assert "back into the queue" not in log_of(tmp_path, number, 1)


def test_a_comparison_is_submitted_and_its_table_made_when_the_runs_are_done(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    out = tmp_path / "out/quick"
    given = ["--config=digits_lt:epochs=2", "--methods=erm,drs", "--seeds=1", f"--out={out}"]

    def command(*more: str) -> str:
        assert compare.main([*given, *more]) == 0
        return capsys.readouterr().out

    try:
        submitted = command(*SUBMIT, "--jobs=1")
        assert len(re.findall(r"array \d+: 1 run", submitted)) == 2
        assert "nothing to submit" in command(*SUBMIT)
        wait_until(lambda: "2 runs: 2 done" in command("--status"), tmp_path)
        command("--only-table")
        table = (out / "tables/comparison.md").read_text()
        assert "erm" in table and "drs" in table and "missing" not in table
    finally:
        for listed in out.glob("jobs/*.txt"):
            subprocess.run(["scancel", "--quiet", listed.stem])
