"""Networks of finished runs that a method asks and does not train."""

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
    """Reads parameters and running statistics of the newest checkpoint of another run.

    Args:
        name: of the network, for messages.
        workdir: of the run.
        target: name of a collection -> its pytree of `jax.ShapeDtypeStruct` with shardings.
        identity: what both runs must agree on, as their records have it.

    Returns:
        {"params", "batch_stats"} on the host.

    Raises:
        ConfigError: the path is not legal.
        CheckpointError: the run has no checkpoint, or one of another model or other classes.
        StorageError: it cannot be read.
    """
    path = workdir_path(workdir, f"network {name}")
    checkpoints = Checkpoints(path)
    try:
        step = checkpoints.newest()
        if step is None:
            raise CheckpointError(f"{path} has no checkpoint, and {name} needs its network")
        check_same(checkpoints.record(step), identity, f"{path}, whose network {name} needs,")
        found: dict[str, Any] = jax.device_get(checkpoints.restore_collections(step, target))
        return found
    finally:
        checkpoints.close()


def digest(variables: Any) -> str:
    """Sha256, in hex, of arrays with their names, so that a run knows its frozen network again."""
    found = hashlib.sha256()
    for name, array in sorted(by_name(variables).items()):
        value = np.asarray(array)
        found.update(f"{name} {value.dtype}{value.shape}".encode())
        found.update(value.tobytes())
    return found.hexdigest()
