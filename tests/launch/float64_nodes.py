"""Trains in float64 on the devices of all processes of a SLURM job, or on one device alone.

`python -m tests.launch.float64_nodes FILE [alone]` leaves the arrays of the final state in an .npz file.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.runtime.distributed import initialize
from tests.device_counts import train


def main(file: str, alone: str = "") -> None:
    jax.config.update("jax_enable_x64", True)
    with initialize(None if alone else "auto", None, None):
        assert jax.device_count() == (1 if alone else 2)
        found = train("tiny", "dar_bn", jax.device_count(), jnp.float64)
        # In both processes, so that neither waits long at the end for the other's last steps.
        arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(found)]
        if jax.process_index() == 0:
            np.savez(file, *arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
