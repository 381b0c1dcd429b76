"""Settings outside of the config that change the numbers of a run: recorded, and compared later."""

import os

import jax

# Flags of XLA that change no number: where it writes its programs, and how many devices a CPU has,
# which is recorded on its own.
_HARMLESS = ("--xla_dump", "--xla_force_host_platform_device_count")


def numeric_settings() -> dict[str, str]:
    """The settings of JAX, XLA and CUDA that change results, by name.

    They are taken from JAX's configuration and from the environment. Random numbers are not among
    them, because no setting changes those (see `rng`).

    Returns:
      "x64": "on" or "off", whether the default dtype has 64 bits; "matmul_precision": of products
      and convolutions in float32 ("default" means TF32 on recent GPUs); "xla_flags": sorted, "none"
      if there are none; "tf32_override": CUDA's variable NVIDIA_TF32_OVERRIDE, "none" if not set.
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
