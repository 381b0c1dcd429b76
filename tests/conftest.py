"""Gives every test eight CPU devices, strict shapes and a cache of compiled programs.

`JAX_PLATFORMS=cuda pytest -n 0 tests/models/test_norm_goldens.py` compares the layers with PyTorch
on a GPU.
"""

import os
import signal
from collections import Counter
from pathlib import Path

# A script starts its background commands with Ctrl-C switched off, and then nothing here could be
# interrupted by it. Python's own handler is that of a command in the foreground.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Functions that tests jit run once or twice: without optimisation they compile in two thirds of the
# time. The package sets the level of its own programs, see `purenoise_jax.runtime.compiler`.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is compilation, and many tests compile the same programs; subprocesses
# share the cache too.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parent.parent / ".pytest_cache/xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"

import jax
import pytest

from tests.wheels import build, install

jax.config.update("jax_numpy_rank_promotion", "raise")
# Initialises the devices now, because a test may change the environment for its subprocesses before
# any test uses the devices.
jax.devices()

# The longest files go to the workers first, in this order: one that takes a minute and comes last
# would leave the other workers idle.
LONGEST = (
    "chaos",
    "multihost",
    "dead_screen",
    "reproduce",
    "loop",
    "norm_goldens",
    "float64",
    "nonfinite_steps",
    "launch",
    "benchmarks",
    "preemption",
    "devices",
    "train_step",
    "manager",
    "checkpoint_runs",
)


# Before pytest leaves out the slow ones.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    seen = Counter()
    for item in items:
        every = item.get_closest_marker("every")
        if every is not None:
            function = (item.path, item.originalname)
            if seen[function] % every.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[function] += 1
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    return build(Path(__file__).parent.parent, tmp_path_factory.mktemp("wheel"), "-t", "wheel")


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """The folder with the programs of an environment with the wheel and without the checkout."""
    return install(wheel, tmp_path_factory.mktemp("installed"))
