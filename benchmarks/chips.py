"""Peak rates of chips by their data sheets, and limits of a step."""

from typing import Any

# Dense matrix products in FLOP/s and memory in byte/s, from NVIDIA's data sheets; of several forms,
# the SXM one. In float32, XLA lets convolutions use TF32.
PEAKS: dict[str, dict[str, float]] = {
    "H200": {"bfloat16": 989e12, "float32": 494e12, "memory": 4.8e12},
    "H100": {"bfloat16": 989e12, "float32": 494e12, "memory": 3.35e12},
    "A100": {"bfloat16": 312e12, "float32": 156e12, "memory": 2.0e12},
    "L40S": {"bfloat16": 362e12, "float32": 183e12, "memory": 0.86e12},
    "L4": {"bfloat16": 121e12, "float32": 60e12, "memory": 0.3e12},
    "T4": {"float32": 8.1e12, "memory": 0.32e12},
}


def chip_of(device_kind: str) -> str | None:
    """The key of `PEAKS` for JAX's name of a device; None if there is none."""
    words = device_kind.replace("-", " ").split()
    return next((name for name in PEAKS if name in words), None)


def peak_of(device_kind: str) -> dict[str, float]:
    """The entry of `PEAKS` for JAX's name of a device; empty if there is none."""
    chip = chip_of(device_kind)
    return PEAKS[chip] if chip else {}


def limits(
    flops: float, traffic: float | None, dtype: str, device_kind: str, ms: float
) -> dict[str, Any]:
    """The arithmetic and memory limits beside a measured time.

    Args:
        flops: FLOPs of a step, counted from the model.
        traffic: bytes that the compiled step reads and writes; None = not known.
        dtype: dtype of the activations.
        device_kind: JAX's name of the device.
        ms: measured milliseconds per step.

    Returns:
        "arithmetic_ms", "memory_ms" and "utilisation" (fraction of the peak arithmetic) if the
        chip is in `PEAKS`; the rate "tflops" always.
    """
    found: dict[str, Any] = {"tflops": flops / ms / 1e9}
    peak = peak_of(device_kind)
    if dtype in peak:
        found["arithmetic_ms"] = flops / peak[dtype] * 1000
        found["utilisation"] = found["arithmetic_ms"] / ms
    if traffic and peak:
        found["memory_ms"] = traffic / peak["memory"] * 1000
    return found
