"""Makes tests/goldens/format1: two runs stopped within an epoch, as the first release saved them.

It must run with the code of that release, commit 803abee:

    git worktree add /tmp/first 803abee
    PYTHONPATH=/tmp/first python tests/goldens/make_format1_runs.py

Each folder is a workdir whose newest checkpoint is that of step 8 of 12. arrays.npz holds the
arrays of that checkpoint ("stored/...") and those at the end of the uninterrupted run ("final/...").
"""

import os
import re
import shutil
from pathlib import Path

import jax
import numpy as np

from purenoise_jax.checkpoint import manifest
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from tests.tiny import tiny_config, write_npz

STEP = 8
FOLDER = Path(__file__).parent.resolve() / "format1"


def named_arrays(state, prefix):
    """Array by name, such as "stored/params/conv/kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    found = {}
    for path, leaf in leaves:
        parts = re.findall(r"\.(\w+)|\['([^']*)'\]|\[(\d+)\]", jax.tree_util.keystr(path))
        found["/".join([prefix, *map("".join, parts)])] = np.asarray(leaf)
    return found


def make(norm):
    """One run: whole, for its last state; and the part of it that is kept."""
    workdir = FOLDER / norm
    fields = {"model.norm": norm, "checkpoint.every_steps": 2, "checkpoint.keep": 100}
    config = tiny_config(Path("tiny.npz"), **fields)
    final = train_and_evaluate(config, workdir)
    for step in workdir.glob("checkpoints/[0-9]*"):
        if int(step.name) > STEP:
            shutil.rmtree(step)
    for name in ("tensorboard", "summary.json"):
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    stored = Checkpoints(workdir).restore(STEP, build(config).target())
    np.savez(
        workdir / "arrays.npz", **named_arrays(stored, "stored"), **named_arrays(final, "final")
    )
    for step in workdir.glob("checkpoints/*"):
        if step.name != str(STEP):
            shutil.rmtree(step)
    (workdir / "run.lock").unlink(missing_ok=True)
    # Orbax notes the path of the machine.
    step = workdir / "checkpoints" / str(STEP)
    (step / "state/commit_success.txt").write_text("written by orbax\n")
    manifest.commit(step)


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    os.chdir(FOLDER)
    write_npz(Path("tiny.npz"))
    for norm in ("dar_bn", "aux_bn"):
        make(norm)
