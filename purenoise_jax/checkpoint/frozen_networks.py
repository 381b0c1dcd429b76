"""Loads the networks of finished runs that a method evaluates but does not train."""

import hashlib
from typing import Any

import jax
import numpy as np

from purenoise_jax.checkpoint.identity import check_same
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.checkpoint.tree_names import by_name
from purenoise_jax.runtime.errors import CheckpointError
from purenoise_jax.runtime.paths import workdir_path


def load_frozen(name: str, workdir: str, target: Any, identity: dict[str, Any]) -> dict[str, Any]:
    """Reads the parameters and running statistics of the newest checkpoint of another run.

    Args:
        name: of the network, in messages: frozen.NAME is the field of its workdir.
        workdir: of the run.
        target: name of a collection -> its pytree of `jax.ShapeDtypeStruct` with shardings.
        identity: JSON values that must be the same in the records of both runs.

    Returns:
        {"params", "batch_stats"} on the host.

    Raises:
        ConfigError: the path is not legal.
        CheckpointError: the run has no checkpoint, or one of another model or other classes.
        StorageError: it cannot be read.
    """
    path = workdir_path(workdir, f"frozen.{name}")
    checkpoints = Checkpoints(path)
    try:
        step = checkpoints.newest()
        if step is None:
            raise CheckpointError(f"frozen.{name}={path} has no checkpoint")
        check_same(checkpoints.record(step), identity, f"frozen.{name}={path}")
        found: dict[str, Any] = jax.device_get(checkpoints.restore_collections(step, target))
        return found
    finally:
        checkpoints.close()


def digest(variables: Any) -> str:
    """Returns the sha256, in hex, of arrays and their names, which identifies a frozen network."""
    found = hashlib.sha256()
    for name, array in sorted(by_name(variables).items()):
        value = np.asarray(array)
        found.update(f"{name} {value.dtype}{value.shape}".encode())
        found.update(value.tobytes())
    return found.hexdigest()
