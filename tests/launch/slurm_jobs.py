"""Jobs of two nodes on the SLURM that `tests/local_slurm.sh` starts."""

import contextlib
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from purenoise_jax.checkpoint.manager import Checkpoints
from tests.tiny import write_npz

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch/slurm.sbatch"
NODES = ("purenoise-n1", "purenoise-n2")
# From none of these a job goes back into the queue by itself.
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
# Long, because a busy machine must not fail a test, and because the end of a job fails it at once.
PATIENCE_SECONDS = 480


def why_not() -> str:
    """The reason why there is no SLURM for tests, which never run on another cluster; "" if there is."""
    try:
        shown = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=20
        )
    except FileNotFoundError:
        return "SLURM is not installed; see tests/local_slurm.sh"
    except subprocess.TimeoutExpired:
        return "SLURM does not answer; see tests/local_slurm.sh"
    if not re.search(r"^ClusterName *= purenoise-tests$", shown.stdout, re.M):
        return "not within tests/local_slurm.sh"
    return ""


@contextlib.contextmanager
def cluster_alone() -> Iterator[None]:
    """Keeps tests of other files off the nodes, as pytest may run several files at a time."""
    with FileLock(Path(os.environ["SLURM_CONF"]).parent / "tests.lock"):
        yield


def change(kind: str, name: str, *changes: str) -> None:
    subprocess.run(["scontrol", "update", f"{kind}={name}", *changes], check=True)


class Job:
    """A submitted batch script of two nodes, cancelled at the end.

    Args:
        folder: where it is submitted, and leaves its log.
        script: its path and its arguments.
    """

    def __init__(self, folder: Path, *script: object) -> None:
        self.folder = folder
        submitted = subprocess.run(
            ["sbatch", "--parsable", "--cpus-per-task=1", "--time=10", "--output=slurm-%j.log",
             *map(str, script)],
            capture_output=True, text=True, cwd=folder, check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
                 "XLA_FLAGS": "--xla_force_host_platform_device_count=1"},
        )  # fmt: skip
        self.number = submitted.stdout.strip()

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["scancel", "--quiet", self.number])

    def shown(self, name: str) -> str:
        """A value that SLURM shows of the job. A controller that is busy is asked again."""
        for _ in range(10):
            done = subprocess.run(
                ["scontrol", "show", "job", self.number], capture_output=True, text=True
            )
            if done.returncode == 0:
                return re.search(rf"\b{name}=(\S+)", done.stdout)[1]
            time.sleep(1)
        raise AssertionError(f"scontrol: {done.stderr}\n{self.log()}")

    def _until(self, reached: Callable[[str], bool], what: str) -> str:
        """Waits until a function of the job's state is true, and returns that state.

        A requeued job is started soon; SLURM alone would let it wait for two minutes.

        Raises:
            AssertionError: the job has ended before, or too much time passes; with the job's log.
        """
        deadline, start = time.monotonic() + PATIENCE_SECONDS, math.inf
        while (now := time.monotonic()) < deadline:
            state = self.shown("JobState")
            if reached(state):
                return state
            if state in ENDED:
                code = self.shown("ExitCode")
                raise AssertionError(
                    f"job {self.number} ended as {state}, {code}, before {what}\n{self.log()}"
                )
            if state != "PENDING":
                start = math.inf
            elif start == math.inf:
                # Nodes refuse a job that starts within the second in which they have ended it:
                # "Job credential revoked", and the job fails.
                start = now + 3
            elif now > start:
                # Repeated, because SLURM may not have been ready for the change, but with pauses,
                # because each change delays the job a little.
                change("jobid", self.number, "StartTime=now")
                start = now + 5
            time.sleep(0.2)
        raise AssertionError(f"job {self.number} is {state}, still before {what}\n{self.log()}")

    def wait(self, *states: str) -> str:
        return self._until(states.__contains__, " or ".join(states))

    def wait_for_restart(self, number: int) -> None:
        self._until(
            lambda state: state == "RUNNING" and self.shown("Restarts") == str(number),
            f"restart {number}",
        )

    def log(self) -> str:
        path = self.folder / f"slurm-{self.number}.log"
        return path.read_text() if path.exists() else ""


class Run(Job):
    """A run by the batch script of the project; without a config, that of the tiny problem."""

    def __init__(self, folder: Path, *more: str, config: str = "", script: Path = SCRIPT) -> None:
        config = config or f"{ROOT}/tests/tiny_cli.py:{write_npz(folder / 'tiny.npz')},one_phase"
        self.workdir = folder / "run"
        workdir = ("--workdir", self.workdir, "--config.num_devices=0")
        super().__init__(folder, script, "--config", config, *workdir, *more)

    def wait_for_steps(self, beyond: int = 0) -> int:
        def newest() -> int:
            return max(Checkpoints(self.workdir).steps(), default=0)

        self._until(lambda _: newest() > beyond, f"a step beyond {beyond}")
        return newest()


@contextlib.contextmanager
def lost_node() -> Iterator[None]:
    """Kills all processes of the second node, and starts its daemon again at the end."""
    for process in _processes_of(NODES[1]):
        os.kill(process, signal.SIGKILL)
    yield
    log = Path(os.environ["SLURM_CONF"]).parent / "log" / "restarted"
    with log.open("w") as file:
        # Of its own session and without a parent that waits for it: it ends with the cluster.
        subprocess.run(["slurmd", "-N", NODES[1]], stdout=file, stderr=file, check=True)


def _processes_of(node: str) -> set[int]:
    """The daemon of a node, the tasks of its jobs, and the processes that have started those."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().split(b"\0")
            if command[0].endswith(b"slurmd") and node.encode() in command:
                found.add(int(folder.name))
            if f"SLURMD_NODENAME={node}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                found |= {int(folder.name), int(parent)}
    return found
