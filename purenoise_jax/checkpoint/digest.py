"""A digest of all arrays of a state."""

import hashlib
from typing import Any

import jax
import numpy as np


def state_digest(state: Any) -> str:
    """Returns the sha256, in hex, of all arrays of a state except its step, to compare two runs."""
    digest = hashlib.sha256()
    trees = {k: getattr(state, k) for k in ("params", "batch_stats", "opt_state")}
    if state.extra:
        trees["extra"] = state.extra
    for path, leaf in jax.tree_util.tree_flatten_with_path(trees)[0]:
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
