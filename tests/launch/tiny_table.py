"""`launch.reproduce` with a table of tiny runs: python -m tests.launch.tiny_table tiny ...

The data are those of the npz file that TINY_NPZ names.
"""

import os
import sys
from pathlib import Path

from launch import reproduce
from launch.plan import Cell, Plan, Table
from launch.tables import TABLES, Entry
from purenoise_jax.runtime.threads import exit_process
from tests.tiny import tiny_config


def make(plan: Plan) -> Table:
    """ERM, and two runs that start from it."""
    npz = Path(os.environ["TINY_NPZ"])
    own = {"num_epochs": int(os.environ.get("TINY_EPOCHS", 4))}
    erm = tiny_config(npz, **own, **plan.overrides)
    del erm.phases["deferred"]
    full_stop = {"model.noise_grad": "full_stop"}
    return Table(
        "tiny",
        "nowhere",
        (
            Cell("tiny", "ERM", erm),
            Cell("tiny", "OPeN", tiny_config(npz, **own, **plan.overrides)),
            Cell("tiny", "OPeN, full stop", tiny_config(npz, **own, **full_stop, **plan.overrides)),
        ),
    )


if __name__ == "__main__":
    TABLES["tiny"] = Entry(make)
    reproduce.COMMAND = (sys.executable, "-m", "tests.launch.tiny_table")
    exit_process(reproduce.main(sys.argv[1:]))
