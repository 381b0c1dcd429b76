"""Writes augment.npz: torchvision outputs that tests/data/augment/test_augment.py compares with.

Needs numpy, torch and torchvision, which the package itself does not depend on. The committed file
was made with torch 2.13.0 and torchvision 0.28.0 on CPU:

    python tests/goldens/make_augment_goldens.py

The images are synthetic, six of 32x32x3 from a seeded generator, quantised to 8 bits so that the
file stays small; for the same reason only some rows of the float outputs are stored (`ROWS`: both
borders and a few inner rows; every colour operation is pointwise apart from one mean per image).
"""

import pathlib

import numpy as np
import torch
from torchvision.transforms.v2 import functional as tvf

ROWS = (0, 1, 2, 13, 30, 31)
POINTWISE_ROWS = (1, 10, 19, 28)
FACTORS = (0.0, 0.6, 1.4, 2.5)
HUES = (-0.5, -0.1, 0.03, 0.1, 0.5)
SIGMAS = (0.1, 0.7, 2.0)
OPS = (tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue)


def make_images() -> np.ndarray:
    """Six u8[32, 32, 3] images: two gradients with noise, saturated, grey, dark, nearly white."""
    rng = np.random.default_rng(2022)
    y, x = np.mgrid[0:32, 0:32] / 31.0
    first = np.stack([x, y, 0.5 + 0.4 * np.sin(3 * (x + y))], -1) + rng.normal(0, 0.05, (32, 32, 3))
    second = np.stack([0.6 - 0.5 * x * y, 0.4 + 0 * x, y**2], -1) + rng.normal(0, 0.2, (32, 32, 3))
    # 8x8 patches of every colour with channels in {0, 1/2, 1}: all ties of the hue formula.
    levels = rng.permutation(27)[:16].reshape(4, 4).repeat(8, 0).repeat(8, 1)
    saturated = np.stack([levels // 9, levels // 3 % 3, levels % 3], -1) / 2
    grey = np.repeat((0.8 * x * y + 0.1)[..., None], 3, -1)
    grey[16:] += rng.integers(-1, 2, (16, 32, 3)) / 255
    dark = np.zeros((32, 32, 3))
    dark[rng.integers(0, 32, 40), rng.integers(0, 32, 40)] = rng.random((40, 3))
    white = np.ones((32, 32, 3)) - rng.integers(0, 3, (32, 32, 3)) / 255 * (x > 0.5)[..., None]
    images = np.stack([first, second, saturated, grey, dark, white])
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


def main() -> None:
    """Runs every operation of torchvision and stores parameters and outputs."""
    images = make_images()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    out: dict[str, np.ndarray] = {
        "images": images,
        "rows": np.array(ROWS),
        "pointwise_rows": np.array(POINTWISE_ROWS),
        "factors": np.array(FACTORS, np.float32),
        "hues": np.array(HUES, np.float32),
        "sigmas": np.array(SIGMAS, np.float32),
    }

    def to_numpy(tensor: torch.Tensor, rows: tuple[int, ...]) -> np.ndarray:
        return tensor.permute(0, 2, 3, 1)[:, list(rows)].numpy()

    def to_bytes(tensor: torch.Tensor) -> np.ndarray:
        return (tensor.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()

    out["flip"] = to_bytes(tvf.horizontal_flip(pixels))

    top, left = np.array([0, 8, 4, 1, 3, 6]), np.array([0, 8, 4, 7, 2, 5])
    out["top"], out["left"] = top, left

    def crop(image: torch.Tensor, i: int) -> torch.Tensor:
        return tvf.crop(tvf.pad(image, [4]), int(top[i]), int(left[i]), 32, 32)

    out["crop"] = to_bytes(torch.stack([crop(pixels[i], i) for i in range(6)]))

    center_y, center_x = np.array([0, 31, 16, 7, 25, 8]), np.array([0, 31, 16, 30, 3, 24])
    out["center_y"], out["center_x"] = center_y, center_x

    def cutout(image: torch.Tensor, i: int) -> torch.Tensor:
        y0, y1 = np.clip(center_y[i] + np.array([-8, 8]), 0, 32).tolist()
        x0, x1 = np.clip(center_x[i] + np.array([-8, 8]), 0, 32).tolist()
        return tvf.erase(image, y0, x0, y1 - y0, x1 - x0, torch.zeros(3, 1, 1))

    out["cutout"] = to_bytes(torch.stack([cutout(pixels[i], i) for i in range(6)]))

    for op, name in zip(OPS[:3], ("brightness", "contrast", "saturation"), strict=True):
        results = [to_numpy(op(pixels, factor), POINTWISE_ROWS) for factor in FACTORS]
        out[name] = np.stack(results)
    out["hue"] = np.stack([to_numpy(tvf.adjust_hue(pixels, f), POINTWISE_ROWS) for f in HUES])
    gray = tvf.rgb_to_grayscale(pixels, num_output_channels=3)
    out["gray"] = to_numpy(gray, POINTWISE_ROWS)
    out["blur"] = np.stack([to_numpy(tvf.gaussian_blur(pixels, [3, 3], [s]), ROWS) for s in SIGMAS])
    out["blur5"] = to_numpy(tvf.gaussian_blur(pixels[:2], [5, 5], [1.3]), ROWS)

    # One channel: the grey version of the first two images.
    single = tvf.rgb_to_grayscale(pixels[:2])
    out["single_contrast"] = to_numpy(tvf.adjust_contrast(single, 1.4), POINTWISE_ROWS)

    rng = np.random.default_rng(7)
    order = np.stack([rng.permutation(4) for _ in range(6)])
    jitter = np.concatenate([rng.uniform(0.6, 1.4, (3, 6)), rng.uniform(-0.1, 0.1, (1, 6))])
    jitter = jitter.astype(np.float32)
    do_flip, do_gray = np.array([1, 0, 1, 0, 1, 0], bool), np.array([0, 0, 1, 0, 0, 1], bool)
    do_blur, sigma = np.array([1, 1, 0, 1, 0, 1], bool), np.linspace(0.3, 1.8, 6, dtype=np.float32)
    chain = []
    for i in range(6):
        image = tvf.horizontal_flip(pixels[i]) if do_flip[i] else pixels[i]
        image = cutout(crop(image, i), i)
        for op in order[i]:
            image = OPS[op](image, float(jitter[op, i]))
        image = tvf.rgb_to_grayscale(image, num_output_channels=3) if do_gray[i] else image
        chain.append(tvf.gaussian_blur(image, [3, 3], [float(sigma[i])]) if do_blur[i] else image)
    out["chain"] = to_numpy(torch.stack(chain), ROWS)
    out |= {
        "chain_order": order,
        "chain_jitter": jitter,
        "chain_flip": do_flip,
        "chain_gray": do_gray,
        "chain_blur": do_blur,
        "chain_sigma": sigma,
    }
    np.savez_compressed(pathlib.Path(__file__).with_name("augment.npz"), **out)


if __name__ == "__main__":
    main()
