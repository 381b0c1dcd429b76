"""Writes policies.json: torchvision's augmentation policies, for test_policy_goldens.py.

Needs numpy, torch and torchvision, which the package itself does not depend on, and a CPU with fused
products and sums, see make_magnitude_goldens.py. The committed file was made with torch 2.14.1,
torchvision 0.29.1 and Pillow 13.0 on such a CPU:

    python tests/goldens/make_policy_goldens.py

It calls torchvision for everything, and states nothing of it again:

    policies    the sub-policies of AutoAugment: name, probability and level of two operations
    defaults    the arguments of every class
    spaces      magnitudes and sign of every operation; by height x width if they depend on it
    images      hash of the random image of each size
    operations  hashes of the image after an operation, for every level in "levels"; after the
                positive magnitude and, for an operation with a sign, after the negative one

Hashes are the first 16 digits of SHA-256 of the bytes u8[H, W, 3]. The images are PIL's, also those
of AugMix, which makes tensors of them; interpolation and fill are the defaults of the classes.
"""

import hashlib
import inspect
import json
import pathlib
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import autoaugment as tv
from torchvision.transforms.autoaugment import AutoAugmentPolicy

CLASSES = {
    "autoaugment": tv.AutoAugment,
    "randaugment": tv.RandAugment,
    "trivialaugment": tv.TrivialAugmentWide,
    "augmix": tv.AugMix,
}
POLICIES = {"cifar10": AutoAugmentPolicy.CIFAR10, "imagenet": AutoAugmentPolicy.IMAGENET}
SIZES = ((32, 32), (224, 224), (32, 224))
SIDES = (32, 224)
# Of 31 levels, a few, among them the default of RandAugment.
LEVELS = {10: range(10), 31: (0, 4, 9, 15, 16, 22, 27, 30)}


def make_image(side: int) -> np.ndarray:
    """A random image u8[side, side, 3] of few bright pixels, so that no operation leaves it as is.

    The arithmetic is in integers, so the image is the same everywhere. The mean grey, which contrast
    rounds, is 61.6 of 32x32 and 61.4 of 224x224.
    """
    rng = np.random.default_rng(side)
    first, second = rng.integers(0, 256, (2, side, side, 3))
    return (first * second // np.array([300, 400, 500]) + np.array([6, 20, 40])).astype(np.uint8)


def digest(image: np.ndarray) -> str:
    """The hash of an image u8[H, W, 3]."""
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]


def number(value: float) -> float:
    """The shortest number whose float32 is the value."""
    return float(str(np.float32(value)))


def space_of(name: str, size: tuple[int, int]) -> dict[str, tuple[torch.Tensor, bool]]:
    """The space of a class for images of a size, with the arguments that its forward pass gives."""
    transform, spaces = CLASSES[name](), []
    inner = transform._augmentation_space

    def recording(*arguments: Any) -> dict[str, tuple[torch.Tensor, bool]]:
        spaces.append(inner(*arguments))
        return spaces[-1]

    transform._augmentation_space = recording
    transform(Image.fromarray(np.zeros((*size, 3), np.uint8)))
    return spaces[0]


def stored_space(name: str) -> dict[str, dict[str, Any]]:
    """Magnitudes, a list or lists by size, and sign of every operation of a class."""
    spaces = {f"{h}x{w}": space_of(name, (h, w)) for h, w in SIZES}
    found: dict[str, dict[str, Any]] = {}
    for op, (_, signed) in spaces["32x32"].items():
        by_size = {
            size: [number(x) for x in space[op][0].reshape(-1).tolist()]
            for size, space in spaces.items()
        }
        same = all(values == by_size["32x32"] for values in by_size.values())
        found[op] = {"signed": signed, "magnitudes": by_size["32x32"] if same else by_size}
    return found


def applied(transform: Any, image: Image.Image, op: str, magnitude: float) -> np.ndarray:
    """The image u8[H, W, 3] after an operation, with the settings of a class."""
    settings = {"interpolation": transform.interpolation, "fill": transform.fill}
    if op == "Posterize" and not magnitude:
        # Pillow refuses zero bits, with which AugMix calls the operation on a tensor.
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return tv._apply_op(tensor, op, magnitude, **settings).permute(1, 2, 0).numpy()
    return np.asarray(tv._apply_op(image, op, magnitude, **settings))


def operations(name: str, side: int) -> tuple[list[int], dict[str, list[list[str]]]]:
    """The levels, and the hashes after every operation by level and sign."""
    transform, image = CLASSES[name](), Image.fromarray(make_image(side))
    space = space_of(name, (side, side))
    levels = list(LEVELS[max(magnitudes.numel() for magnitudes, _ in space.values())])
    found: dict[str, list[list[str]]] = {}
    for op, (magnitudes, signed) in space.items():
        found[op] = []
        for level in levels if magnitudes.ndim else [0]:
            magnitude = float(magnitudes.reshape(-1)[level].item())
            results = []
            for sign in (1.0, -1.0) if signed else (1.0,):
                results.append(digest(applied(transform, image, op, sign * magnitude)))
            found[op].append(results)
    return levels, found


def defaults(kind: type) -> dict[str, Any]:
    """The default arguments of a class; enumerations by value."""
    found = {k: v.default for k, v in inspect.signature(kind).parameters.items()}
    return {k: getattr(v, "value", v) for k, v in found.items()}


def main() -> None:
    """Asks torchvision, and stores the answers, one operation a line."""
    hashes = {name: {side: operations(name, side) for side in SIDES} for name in CLASSES}
    found: dict[str, Any] = {
        "policies": {
            name: tv.AutoAugment(policy)._get_policies(policy) for name, policy in POLICIES.items()
        },
        "defaults": {name: defaults(kind) for name, kind in CLASSES.items()},
        "spaces": {name: stored_space(name) for name in CLASSES},
        "images": {side: digest(make_image(side)) for side in SIDES},
        "levels": {name: by_side[32][0] for name, by_side in hashes.items()},
        "operations": {
            name: {side: by_side[side][1] for side in SIDES} for name, by_side in hashes.items()
        },
    }
    path = pathlib.Path(__file__).with_name("policies.json")
    path.write_text(lines_of(found, depth=3) + "\n")


def lines_of(tree: Any, depth: int) -> str:
    """JSON with a line for each entry of the upper levels."""
    if not depth or not isinstance(tree, dict):
        return json.dumps(tree)
    entries = (f"{json.dumps(str(k))}: {lines_of(v, depth - 1)}" for k, v in tree.items())
    return "{\n" + ",\n".join(entries) + "\n}"


if __name__ == "__main__":
    main()
