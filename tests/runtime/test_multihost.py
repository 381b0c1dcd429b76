"""Two real processes of a run: signals, crashes and differences between them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from launch import local
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.runtime.workdir_lock import WorkdirLock
from purenoise_jax.training.loop import train_and_evaluate
from tests.tiny import tiny_config, write_npz

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HEARTBEAT = 5
# No process may wait as long as JAX would by itself, which is 100 s and more. The limit is long,
# so that a busy machine does not fail the test.
HANGS = 60
GONE = "error: process {} of 2 is gone: {}; the same command continues at the last checkpoint"


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The workdir of the one run that gets all signals and kills of this file in turn."""
    return tmp_path_factory.mktemp("run") / "run"


class Pair:
    """Two processes of a run, each on one CPU device.

    Args:
        folder: for their error output.
        arguments: of each.
        cwd: of each.
        environment: of each, in addition to that of the tests.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: Sequence[object],
        cwd: Sequence[Path] = (ROOT, ROOT),
        environment: Sequence[dict[str, str]] = ({}, {}),
    ) -> None:
        self.errors = [folder / f"{i}.err" for i in range(2)]
        port = local.free_port()
        self.coordinator = f"127.0.0.1:{port}"
        self.processes = []
        for i, more in enumerate(arguments):
            with self.errors[i].open("w") as stderr:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "purenoise_jax.main", *map(str, more),
                         "--config.num_devices=0", f"--coordinator={self.coordinator}",
                         "--num_processes=2", f"--process_id={i}", f"--heartbeat={HEARTBEAT}"],
                        stdout=subprocess.DEVNULL, stderr=stderr, cwd=cwd[i],
                        env={**os.environ, "PYTHONPATH": str(ROOT),
                             "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
                             **environment[i]},
                    )
                )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.wait()

    def codes(self, seconds: float = 60) -> list[int]:
        """Waits, at most so many seconds, and returns the exit codes."""
        deadline = time.monotonic() + seconds
        return [p.wait(max(0.1, deadline - time.monotonic())) for p in self.processes]

    def messages(self, i: int) -> list[str]:
        """Returns the lines of the package that process i wrote to stderr."""
        lines = self.errors[i].read_text().splitlines()
        assert not any(line.startswith("Traceback") for line in lines), lines
        return [line for line in lines if line.startswith(("error: ", "stopped "))]


def arguments(npz, workdir, *more):
    return ("--config", ROOT / f"tests/tiny_cli.py:{npz},one_phase", "--workdir", workdir, *more)


LONG = ("--config.num_epochs=20", "--config.eval.every_epochs=20", "--config.checkpoint.keep=3")


def train(tmp_path, npz, workdir):
    return Pair(tmp_path, *[arguments(npz, workdir, *LONG)] * 2)


def wait_for_progress(pair, workdir):
    """Returns once there is a new checkpoint."""
    before = Checkpoints(workdir).steps()
    for _ in range(2400):
        if set(Checkpoints(workdir).steps()) - set(before):
            return
        assert all(process.poll() is None for process in pair.processes), pair.messages(0)
        time.sleep(0.05)
    raise AssertionError("no progress")


def listens_everywhere(pid):
    """True if a process listens at all addresses of the machine."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, address, _, state, *rest = row.split()
            if state == "0A" and rest[5] in sockets and not int(address.split(":")[0], 16):
                return True
    return False


@pytest.mark.parametrize(
    ("number", "targets", "code"),
    [
        (signal.SIGTERM, [1], 143),
        (signal.SIGINT, [0, 1], 130),
    ],
)
def test_a_signal_to_any_stops_all_at_the_same_step(tmp_path, npz, workdir, number, targets, code):
    with train(tmp_path, npz, workdir) as pair:
        wait_for_progress(pair, workdir)
        for process in pair.processes:
            assert not listens_everywhere(process.pid)
        start = time.monotonic()
        for target in targets:
            pair.processes[target].send_signal(number)
        codes = pair.codes()
        assert time.monotonic() - start < HANGS
        assert codes == [code, code]
        steps = set()
        for i in range(2):
            (line,) = pair.messages(i)
            assert line.startswith(f"stopped by {signal.Signals(number).name}: saved at step") or (
                i not in targets and line.startswith("stopped by SIGTERM: saved at step")
            )
            steps.update(re.findall(r"step (\d+) of", line))
        assert steps == {str(Checkpoints(workdir).newest())}


@pytest.mark.parametrize(
    ("number", "target", "seconds", "why"),
    [
        (signal.SIGKILL, 1, HANGS, "its connection ended"),
        (signal.SIGKILL, 0, HANGS, "its connection ended"),
        (signal.SIGSTOP, 1, HANGS + HEARTBEAT, f"nothing was heard of it for {HEARTBEAT} s"),
    ],
)
def test_when_one_is_gone_the_other_ends(tmp_path, npz, workdir, number, target, seconds, why):
    with train(tmp_path, npz, workdir) as pair:
        wait_for_progress(pair, workdir)
        start = time.monotonic()
        pair.processes[target].send_signal(number)
        assert pair.processes[1 - target].wait(60) == 1
        assert time.monotonic() - start < seconds
        assert pair.messages(1 - target) == [GONE.format(target, why)]
        # A process that was suspended and continues finds the other gone.
        pair.processes[target].send_signal(signal.SIGCONT)
        code = pair.processes[target].wait(60)
        if number == signal.SIGSTOP:
            assert code == 1 and pair.messages(target) == [
                GONE.format(1 - target, "its connection ended")
            ]
    with WorkdirLock(workdir):
        """The lock is free."""


def test_the_interrupted_run_ends_like_an_undisturbed_one(tmp_path, npz, workdir):
    folders = [workdir, tmp_path / "undisturbed"]
    folders[1].mkdir()
    with train(tmp_path, npz, folders[0]) as one, train(folders[1], npz, folders[1]) as other:
        assert one.codes(180) == other.codes(180) == [0, 0]
    runs = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    assert runs[0]["steps"] == 60
    assert runs[0]["state_digest"] == runs[1]["state_digest"]


def test_processes_that_would_not_compute_the_same_run_are_refused(tmp_path):
    """Seed, checkpoint interval, image and version of a library differ; one message names all."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for i, folder in enumerate(folders):
        folder.mkdir()
        path = write_npz(folder / "tiny.npz")
        arrays = dict(np.load(path))
        arrays["train_images"][5] += i
        np.savez(path, **arrays)
    fake = folders[1] / "flax-0.0.1.dist-info"
    fake.mkdir()
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: flax\nVersion: 0.0.1\n")
    same = arguments("tiny.npz", tmp_path / "run")
    start = time.monotonic()
    with Pair(
        tmp_path,
        same,
        (*same, "--config.seed=3", "--config.checkpoint.every_steps=10"),
        cwd=folders,
        environment=[{}, {"PYTHONPATH": f"{ROOT}:{folders[1]}"}],
    ) as pair:
        assert pair.codes() == [2, 2]
        assert time.monotonic() - start < HANGS
        (line,) = pair.messages(0)
        assert pair.messages(1) == [line]
    for part in (
        "process 1 has config.seed=3, process 0 has 0",
        # Not fixed for the run, but the same on all its processes.
        "process 1 has config.checkpoint.every_steps=10, process 0 has 0",
        "process 1 has data.dataset_content=",
        "process 1 has versions.flax='0.0.1', process 0 has '",
    ):
        assert part in line
    assert not (tmp_path / "run").exists()


def test_processes_that_would_start_from_different_parameters_are_refused(tmp_path, npz):
    """The same path leads to another run on each machine."""
    for seed, name in enumerate("ab"):
        config = tiny_config(npz, num_epochs=1, seed=seed)
        del config.phases["deferred"]
        train_and_evaluate(config, tmp_path / name / "erm")
    same = arguments(npz, tmp_path / "run", "--config.init_from=erm", "--config.init_epoch=1")
    with Pair(tmp_path, same, same, cwd=[tmp_path / name for name in "ab"]) as pair:
        assert pair.codes() == [2, 2]
        for i in range(2):
            (line,) = pair.messages(i)
            assert "process 1 has state='" in line


def test_all_end_when_one_fails(tmp_path, npz):
    """Three pairs run at once, because they mostly wait."""
    for name in ("data", "lock", "other"):
        (tmp_path / name).mkdir()
    with (
        WorkdirLock(tmp_path / "lock"),
        Pair(
            tmp_path / "data",
            arguments(npz, tmp_path / "data/run"),
            arguments(tmp_path / "none.npz", tmp_path / "data/run"),
        ) as data,
        Pair(tmp_path / "lock", *[arguments(npz, tmp_path / "lock")] * 2) as lock,
        Pair(
            tmp_path / "other",
            arguments(npz, tmp_path / "other/run"),
            arguments(npz, tmp_path / "other"),
        ) as other,
    ):
        for pair, code, failed, why in ((data, 3, 1, "none.npz"), (lock, 7, 0, "is in use by")):
            assert pair.codes() == [code, code]
            (line,) = pair.messages(1 - failed)
            assert line == f"error: process {failed} could not go on (exit code {code}, see there)"
            (line,) = pair.messages(failed)
            assert why in line
        assert other.codes() == [2, 2]
        for i in range(2):
            (line,) = other.messages(i)
            assert "process 1 does not see what process 0 writes there" in line
    for name in ("data", "other"):
        assert not (tmp_path / name / "run").exists()


def test_a_process_that_stays_alone_ends_at_the_start_timeout(npz, tmp_path):
    start = time.monotonic()
    alone = Pair(tmp_path, arguments(npz, tmp_path / "run", "--start_timeout=3"))
    with alone:
        assert alone.codes() == [2]
        assert time.monotonic() - start < HANGS
        assert alone.messages(0) == [
            f"error: --coordinator={alone.coordinator}: not all processes came within 3 s, or "
            "cannot reach each other"
        ]
