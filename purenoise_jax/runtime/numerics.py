"""Settings outside of the config that change the numbers of a run; runs record and compare them."""

import contextlib
import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")

# JAX's names, one for each precision: "highest" is a synonym of "float32", and "high" of
# "tensorfloat32".
MATMUL_PRECISIONS = ("default", "tensorfloat32", "float32")

# Flags of XLA that change no number: the folder for dumped programs, and the number of devices of a
# CPU, which is recorded separately.
_HARMLESS = ("--xla_dump", "--xla_force_host_platform_device_count")


def numeric_settings() -> dict[str, str]:
    """Returns the settings of JAX, XLA and CUDA that change results, by name.

    They are taken from JAX's configuration and from the environment. Random numbers are not among
    them, because no setting changes those (see `rng`).

    Returns:
        "x64": "on" or "off", whether the default dtype has 64 bits; "matmul_precision": of products
        and convolutions in float32 ("default" means TF32 on recent GPUs); "xla_flags": sorted,
        "none" if there are none; "tf32_override": CUDA's variable NVIDIA_TF32_OVERRIDE, "none" if
        not set.
    """
    settings = jax.config.values
    given = os.environ.get("XLA_FLAGS", "").split()
    flags = sorted(flag for flag in given if not flag.startswith(_HARMLESS))
    return {
        "x64": "on" if settings["jax_enable_x64"] else "off",
        "matmul_precision": str(settings["jax_default_matmul_precision"] or "default"),
        "xla_flags": " ".join(flags) or "none",
        "tf32_override": os.environ.get("NVIDIA_TF32_OVERRIDE", "none"),
    }


def with_precision(function: Callable[P, T], precision: str) -> Callable[P, T]:
    """Wraps a function so that products and convolutions traced in it have a given precision.

    Args:
        function: of arrays; its derivatives must be taken inside of it.
        precision: one of `MATMUL_PRECISIONS`; "default" keeps the setting of JAX.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        is_default = precision == "default"
        with contextlib.nullcontext() if is_default else jax.default_matmul_precision(precision):
            return function(*args, **kwargs)

    return call
