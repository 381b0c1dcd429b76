"""Checks that this code continues a run of the first release.

    python -m tests.continue_first_release FOLDER

The first release, commit 803abee, is installed into a new environment in FOLDER. There it trains the
digits twice: to the end, and until it is stopped within an epoch. This code then continues the
second run, and the largest difference between the final parameters is checked. It is not zero
because the norms round differently since commit 44965d8, which selects masked rows out of them. (On
some processors, plain training ended with the same bits even then.)
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

from configs import digits_lt
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.checkpoint.tree_names import by_name
from purenoise_jax.training.build import build

COMMIT = "803abee"
ROOT = Path(__file__).parent.parent
EPOCHS = 8
# Of parameters of the order of 1, after 96 steps.
LARGEST_DIFFERENCE = 1e-5
PLAIN = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}


def install(folder: Path) -> Path:
    """Checks out and installs the first release; returns its checkout.

    The environment has the packages of this one, except purenoise_jax.
    """
    checkout = folder / "checkout"
    subprocess.run(["git", "clone", "-q", "--no-checkout", str(ROOT), str(checkout)], check=True)
    subprocess.run(["git", "checkout", "-q", COMMIT], cwd=checkout, check=True)
    venv.create(folder / "environment", with_pip=True)
    pip = [str(folder / "environment/bin/python"), "-m", "pip", "install", "-q"]
    frozen = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--exclude-editable", "--exclude", "purenoise-jax"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{x}\n" for x in frozen.splitlines() if "==" in x))
    subprocess.run([*pip, "-c", str(constraints), "-e", str(checkout)], check=True)
    return checkout


def command(python: Path | str, method: str, workdir: Path) -> list[str]:
    """The command line of a run on the digits, with a checkpoint every few steps."""
    config = f"configs/digits_lt.py:epochs={EPOCHS},method={method}"
    return [
        str(python), "-m", "purenoise_jax.main", "--config", config, "--workdir", str(workdir),
        "--config.report=False", "--config.checkpoint.every_steps=5",
    ]  # fmt: skip


def train(python: Path | str, cwd: Path, method: str, workdir: Path) -> str:
    """Trains to the end and returns the output."""
    environment = {**os.environ, **PLAIN, "PYTHONPATH": str(cwd)}
    done = subprocess.run(
        command(python, method, workdir), cwd=cwd, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-1000:]}")
    return done.stdout


def train_until(python: Path, cwd: Path, method: str, workdir: Path, step: int) -> int:
    """Trains, sends SIGTERM after a checkpoint of `step` or later; returns the last saved step."""
    environment = {**os.environ, **PLAIN, "PYTHONPATH": str(cwd)}
    process = subprocess.Popen(
        command(python, method, workdir), cwd=cwd, env=environment, stdout=subprocess.DEVNULL
    )

    def steps() -> list[int]:
        names = (path.name for path in (workdir / "checkpoints").glob("[0-9]*"))
        return sorted(map(int, names))

    while not (steps() and steps()[-1] >= step) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    if process.wait() != 128 + signal.SIGTERM:
        raise RuntimeError(f"the run of the first release ended with {process.returncode}")
    return steps()[-1]


def digest(workdir: Path) -> str:
    """The SHA-256 of the last state of a finished run."""
    return str(json.loads((workdir / "summary.json").read_text())["state_digest"])


def largest_difference(method: str, one: Path, other: Path) -> float:
    """The largest difference between the final parameters of two runs."""
    target = build(digits_lt.get_config(f"epochs={EPOCHS},method={method}")).target()
    states = []
    for workdir in (one, other):
        checkpoints = Checkpoints(workdir)
        last = checkpoints.newest()
        assert last is not None
        states.append(by_name(checkpoints.restore(last, target).params))
    return max(float(abs(states[0][name] - array).max()) for name, array in states[1].items())


def show(folder: Path) -> bool:
    """Prints a line per method; True if all continued runs ended as near as they must."""
    checkout = install(folder)
    python = folder / "environment/bin/python"
    same = True
    for method, step in (("erm", 40), ("open", 80)):
        complete, stopped = folder / f"{method}_whole", folder / f"{method}_stopped"
        train(python, checkout, method, complete)
        at = train_until(python, checkout, method, stopped, step)
        output = train(sys.executable, ROOT, method, stopped)
        differ = largest_difference(method, complete, stopped)
        same &= f"continues at step {at}" in output
        same &= differ < LARGEST_DIFFERENCE
        print(
            f"{method}: {COMMIT} to the end {digest(complete)[:16]}; "
            f"stopped at step {at} and continued by this code {digest(stopped)[:16]}; "
            f"largest difference of a parameter {differ:.1e}"
        )
    return same


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    sys.exit(not show(target))
