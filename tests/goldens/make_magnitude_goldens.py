"""Stores the magnitudes of torchvision's policies, computed with torch as its sources do.

Run with torch installed, on a CPU with fused products and sums (on x86: AVX2 or AVX-512); without
them, torch.linspace has another last bit here and there:

    python tests/goldens/make_magnitude_goldens.py

Keys of the arrays f32[levels]: policy/shear, /rotate, /enhance, /solarize, /posterize, and
/translate_N for a side of N pixels.
"""

import pathlib
from collections.abc import Callable

import numpy as np
import torch

# Those of the images in the tests.
SIDES = (1, 2, 3, 4, 5, 20, 32, 45, 331)


def space(
    bins: int, shear: float, rotate: float, enhance: float, posterize: torch.Tensor,
    translate: Callable[[int], float],
) -> dict[str, torch.Tensor]:  # fmt: skip
    ends = {"shear": (0.0, shear), "rotate": (0.0, rotate), "enhance": (0.0, enhance)}
    ends |= {"solarize": (255.0, 0.0)}
    ends |= {f"translate_{side}": (0.0, translate(side)) for side in SIDES}
    found = {name: torch.linspace(*pair, bins) for name, pair in ends.items()}
    return found | {"posterize": posterize}


def fewer_bits(first: int, lost: int, bins: int) -> torch.Tensor:
    return first - (torch.arange(bins) / ((bins - 1) / lost)).round().int()


POLICIES = {
    "autoaugment": space(
        10, 0.3, 30.0, 0.9, fewer_bits(8, 4, 10), lambda side: 150.0 / 331.0 * side
    ),
    "randaugment": space(
        31, 0.3, 30.0, 0.9, fewer_bits(8, 4, 31), lambda side: 150.0 / 331.0 * side
    ),
    "trivialaugment": space(31, 0.99, 135.0, 0.99, fewer_bits(8, 6, 31), lambda _: 32.0),
    "augmix": space(10, 0.3, 30.0, 0.9, fewer_bits(4, 4, 10), lambda side: side / 3.0),
}

if __name__ == "__main__":
    arrays = {
        f"{policy}/{name}": values.numpy().astype(np.float32)
        for policy, spaces in POLICIES.items()
        for name, values in spaces.items()
    }
    path = pathlib.Path(__file__).with_name("magnitudes.npz")
    np.savez_compressed(path, **arrays)
    print(path, torch.__version__, torch.backends.cpu.get_cpu_capability())
