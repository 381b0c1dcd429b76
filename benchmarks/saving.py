"""Cost of a manifest on top of that of writing a checkpoint."""

import itertools
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from benchmarks.timing import Program, interleave, over
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.models import create_model
from purenoise_jax.training.train_step import TrainState, init_state

# Long enough for the last manifest to be complete before the next measurement, as in training.
PAUSE_SECONDS = 2.0


def state_of(model: str) -> TrainState:
    """A state as large as in training, with values that do not compress."""
    tx = make_optimizer("sgd", momentum=0.9, weight_decay=0)
    shapes = jax.eval_shape(
        lambda: init_state(create_model(model, num_classes=10), tx, (32, 32, 3), 0)
    )
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    return jax.tree.unflatten(
        tree,
        [
            jax.random.normal(key, x.shape, x.dtype)
            if jnp.issubdtype(x.dtype, jnp.floating)
            else jnp.zeros(x.shape, x.dtype)
            for key, x in zip(keys, leaves, strict=True)
        ],
    )


def saves(model: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Times saves in turn with those of orbax alone.

    Args:
        model: network whose state is saved.
        rounds: largest number of rounds.
        seconds: no new round begins after this time.

    Returns:
        A row each, as from `interleave`, for "orbax alone"; "what the loop waits", until the state
        is on disk and training continues; "until it is sealed", until the checkpoint is committed.
        All but the first have "over_alone", their time over the first's, round by round.
    """
    state = jax.block_until_ready(state_of(model))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    steps = itertools.count(1)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        alone = ocp.Checkpointer(ocp.StandardCheckpointHandler())
        checkpoints = Checkpoints(Path(folder) / "run", keep=1)
        checkpoints.prepare()

        def save_alone() -> None:
            path = Path(folder).resolve() / f"alone{next(steps)}"
            alone.save(path, args=ocp.args.StandardSave(state))
            threading.Thread(target=shutil.rmtree, args=(path,)).start()

        def save() -> None:
            numbered = state.replace(step=jnp.asarray(next(steps), jnp.int32))
            checkpoints.save(numbered, {"epoch": 0})

        def save_and_wait() -> None:
            save()
            checkpoints.wait()

        programs = {
            "orbax alone": Program(save_alone),
            "what the loop waits": Program(save),
            "until it is sealed": Program(save_and_wait),
        }
        found = interleave(programs, rounds=rounds, seconds=seconds, pause=PAUSE_SECONDS)
        checkpoints.close()
    rows = [{"name": name, **row, "megabytes": size / 1e6} for name, row in found.items()]
    for row in rows[1:]:
        row["over_alone"] = over(row, rows[0])
    return rows
