"""Writes cutmix.npz: boxes of torchvision's CutMix, for tests/methods/test_cutmix.py.

Needs numpy, torch and torchvision, which the package itself does not depend on. The committed file
was made with torch 2.13.0 and torchvision 0.28.0 on CPU:

    python tests/goldens/make_cutmix_goldens.py

Every row is one draw of torchvision. Its random numbers are drawn a second time from the same seed,
in the same order, to store them beside the box.
"""

import pathlib

import numpy as np
import torch
from torchvision.transforms import v2

# (height, width): even, odd, and long.
SHAPES = ((32, 32), (7, 5), (4, 64))
DRAWS = 40


def main() -> None:
    """Draws boxes for each shape and stores their parameters."""
    rows = []
    cutmix = v2.CutMix(num_classes=10, alpha=1.0)
    for height, width in SHAPES:
        images = torch.zeros(2, 3, height, width)
        for seed in range(DRAWS):
            torch.manual_seed(seed)
            params = cutmix.make_params([images])
            torch.manual_seed(seed)
            ratio = float(cutmix._dist.sample(()))
            column, row = (int(torch.randint(size, (1,))) for size in (width, height))
            left, top, right, bottom = params["box"]
            rows.append(
                (
                    height,
                    width,
                    ratio,
                    row,
                    column,
                    top,
                    bottom,
                    left,
                    right,
                    params["lam_adjusted"],
                )
            )
    names = ["height", "width", "ratio", "row", "column", "top", "bottom", "left", "right", "share"]
    columns = {name: np.array(x) for name, x in zip(names, zip(*rows, strict=True), strict=True)}
    np.savez_compressed(pathlib.Path(__file__).parent / "cutmix.npz", **columns)


if __name__ == "__main__":
    main()
