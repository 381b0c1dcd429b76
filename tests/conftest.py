"""Every test sees eight CPU devices, strict shapes, and a cache of compiled programs.

`JAX_PLATFORMS=cuda pytest -n 0 tests/models/test_norm_goldens.py` runs the comparison of the layers with
PyTorch on a GPU.
"""

import os
from pathlib import Path

# What tests jit themselves runs once or twice, so it is compiled for that, in two thirds of the
# time; the package's own programs ask for their level, see `purenoise_jax.runtime.compiler`.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is compilation, and many tests compile the same programs; programs that
# tests start as subprocesses share the cache too.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parent.parent / ".pytest_cache/xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
# Now, as a test may change the environment, for programs that it starts, before any asks for them.
jax.devices()

# Files go to the workers in this order, the rest as they come: one that takes a minute and comes
# last leaves the other workers idle.
LONGEST = (
    "chaos",
    "processes",
    "dead_screen",
    "reproduce",
    "train",
    "norm_goldens",
    "float64",
    "guard",
    "launch",
    "benchmarks",
    "stop",
    "devices",
    "step",
    "checkpoint",
    "checkpoint_runs",
)


def pytest_collection_modifyitems(items):
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
