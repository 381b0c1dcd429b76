"""Trees of generated JPEGs, like photos in size and in the work of decoding them."""

from pathlib import Path

import numpy as np
from PIL import Image

from purenoise_jax.data.longtail import long_tail_counts


def write_tree(
    root: Path, count: int, classes: int, sides: tuple[int, int] = (256, 500), distinct: int = 64
) -> list[Path]:
    """Writes a long tail of JPEGs below `root/train`, and ten below `root/test`.

    Args:
        root: a new folder.
        count: images in all, at least one a class.
        classes: number of classes.
        sides: shortest and longest side in pixels.
        distinct: different images; the others are copies, because drawing them takes long.

    Returns:
        The files of the training split.
    """
    rng = np.random.default_rng(0)
    contents = [_encoded(root, rng, sides) for _ in range(min(distinct, count))]
    shares = long_tail_counts(1_000_000, classes, imbalance_ratio=100.0)
    labels = rng.choice(classes, count, p=shares / shares.sum())
    labels[:classes] = np.arange(classes)
    paths = [root / f"train/{label:04d}/{i:06d}.jpg" for i, label in enumerate(labels)]
    tests = [root / f"test/{label:04d}/{label}.jpg" for label in range(classes)]
    for parent in {path.parent for path in (*paths, *tests)}:
        parent.mkdir(parents=True)
    for i, path in enumerate((*paths, *tests)):
        path.write_bytes(contents[i % len(contents)])
    return paths


def _encoded(root: Path, rng: np.random.Generator, sides: tuple[int, int]) -> bytes:
    """Smooth patches of colour with grain."""
    width, height = (int(side) for side in rng.integers(*sides, 2, endpoint=True))
    coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grain = np.asarray(smooth) + rng.normal(0, 12, (height, width, 1))
    root.mkdir(parents=True, exist_ok=True)
    file = root / "drawn.jpg"
    Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    content = file.read_bytes()
    file.unlink()
    return content
