"""Compiles for a GPU that is not there, on a CPU, with what JAX's CUDA plugin brings.

Nothing runs and nothing is tuned; the text of the program says which kernels there are.
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import jax

# What the compiler asks of a chip, from NVIDIA's data sheets and the CUDA programming guide, under
# the name that CUDA reports: XLA's estimates depend on it. The H200 is an H100 with other memory.
HOPPER = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 minor: 0 }}
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  l2_cache_size: 52428800
  memory_bandwidth: {bandwidth}
  device_memory_size: {memory}
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
platform_name: "CUDA"
device_description_str: "{name}"
"""
CHIPS = {
    "H100": HOPPER.format(
        name="NVIDIA H100 80GB HBM3", bandwidth=3_352_320_000_000, memory=84_942_979_072
    ),
    "H200": HOPPER.format(name="NVIDIA H200", bandwidth=4_800_000_000_000, memory=141 * 10**9),
}


class CannotCompileError(Exception):
    """This machine cannot compile for an absent GPU; the message says why."""


def devices(chip: str, count: int) -> Sequence[Any]:
    """Devices of a machine that is not there, to compile for.

    Args:
        chip: one of `CHIPS`.
        count: number of them, in one machine.

    Raises:
        CannotCompileError: the CUDA plugin of JAX is not installed, or it cannot do this.
    """
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        raise CannotCompileError("JAX's CUDA plugin is not installed; pip install -e '.[cuda12]'")
    # The plugin would otherwise refuse a machine without a driver.
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from jax.experimental import topologies

    jax.devices()
    try:
        topology = topologies.get_topology_desc(
            topology_name=chip.lower(),
            platform="cuda",
            target_config=CHIPS[chip],
            topology=f"1x{count}x1",
        )
    except Exception as error:
        # JAX raises different types for different reasons, and documents none.
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CannotCompileError(f"JAX {jax.__version__} gives no absent GPU: {reason}") from error
    return list(topology.devices)[:count]


@contextlib.contextmanager
def traced_for_gpu() -> Iterator[None]:
    """Within it, programs are traced in the form for a GPU, whatever this machine has."""
    with mock.patch("jax.default_backend", return_value="gpu"):
        yield
