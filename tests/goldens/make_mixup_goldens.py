"""Writes mixup.npz: mixtures of torchvision's MixUp, for tests/methods/test_mixup.py.

Needs numpy, torch and torchvision, which the package itself does not depend on. The committed file
was made with torch 2.14.1 and torchvision 0.29.1 on CPU:

    python tests/goldens/make_mixup_goldens.py

torchvision mixes each row with the one before it; "permuted" is the same with other partners, by
the formula. The loss is PyTorch's cross-entropy of a linear network and the mixed targets, in
float64, with its gradient to the kernel.
"""

import pathlib
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torchvision.transforms import v2

SHARE = 0.7
# One row is its own partner.
PARTNERS = (3, 0, 5, 1, 4, 2)


class Given(v2.MixUp):
    """MixUp with a given share."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"lam": SHARE}


def main() -> None:
    """Mixes one batch in both ways, and stores it with the results."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 2, 2, 3), dtype=np.uint8)
    labels = np.array([0, 1, 2, 0, 2, 0], np.int32)
    kernel = rng.normal(0, 1, (12, 3)).astype(np.float32)
    x = torch.tensor(images / 255).permute(0, 3, 1, 2)
    y = torch.tensor(labels, dtype=torch.long)
    one_hot, partner = functional.one_hot(y, 3).double(), torch.tensor(PARTNERS)
    mixed, target = Given(num_classes=3)(x, y)
    cases = {
        "torchvision": (np.roll(np.arange(6), 1), mixed, target.double()),
        "permuted": (
            np.array(PARTNERS),
            SHARE * x + (1 - SHARE) * x[partner],
            SHARE * one_hot + (1 - SHARE) * one_hot[partner],
        ),
    }
    found = {"images": images, "labels": labels, "kernel": kernel, "share": np.float32(SHARE)}
    for name, (partners, mixed, target) in cases.items():
        w = torch.tensor(kernel, dtype=torch.float64, requires_grad=True)
        pixels = mixed.permute(0, 2, 3, 1).flatten(1)
        loss = functional.cross_entropy(pixels @ w, target)
        loss.backward()
        found |= {
            f"{name}/partners": partners,
            f"{name}/pixels": pixels.numpy(),
            f"{name}/target": target.numpy(),
            f"{name}/loss": loss.detach().numpy(),
            f"{name}/grad": w.grad.numpy(),
        }
    np.savez_compressed(pathlib.Path(__file__).with_name("mixup.npz"), **found)


if __name__ == "__main__":
    main()
