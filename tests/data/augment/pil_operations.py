"""PIL, called as torchvision's policies call it, and images to try all operations on."""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from purenoise_jax.data.augment.magnitudes import Op
from purenoise_jax.data.augment.operations import OpParams

GOLDENS = pathlib.Path(__file__).parents[2] / "goldens" / "magnitudes.npz"
NAMES = (
    dict.fromkeys((Op.SHEAR_X, Op.SHEAR_Y), "shear")
    | dict.fromkeys((Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS), "enhance")
    | {Op.ROTATE: "rotate", Op.SOLARIZE: "solarize", Op.POSTERIZE: "posterize"}
)
ENHANCERS = {
    Op.BRIGHTNESS: ImageEnhance.Brightness,
    Op.COLOR: ImageEnhance.Color,
    Op.CONTRAST: ImageEnhance.Contrast,
    Op.SHARPNESS: ImageEnhance.Sharpness,
}


@functools.cache
def _goldens() -> dict[str, np.ndarray]:
    with np.load(GOLDENS) as file:
        return dict(file)


def magnitudes(policy: str, op: Op, width: int, height: int) -> list[float] | None:
    """The magnitudes of an operation in torchvision; None for one that has none."""
    name = NAMES.get(op)
    if op in (Op.TRANSLATE_X, Op.TRANSLATE_Y):
        name = f"translate_{height if op == Op.TRANSLATE_Y else width}"
    return None if name is None else _goldens()[f"{policy}/{name}"].tolist()


def inverse_affine(center, translate, shear_x, shear_y):
    """Map from target to source for a shear about a centre, then a translation; in degrees."""
    sx, sy = math.radians(shear_x), math.radians(shear_y)
    # Forwards [[p, q], [r, s]]; its determinant is one.
    p, r = math.cos(-sy) / math.cos(sy), math.sin(-sy) / math.cos(sy)
    q, s = -p * math.tan(sx), -r * math.tan(sx) + 1
    dx, dy = -center[0] - translate[0], -center[1] - translate[1]
    return (s, -q, s * dx - q * dy + center[0], -r, p, -r * dx + p * dy + center[1])


def pil_op(policy: str, image: Image.Image, op: Op, level: int, negative: bool) -> Image.Image:
    """Applies one operation to a PIL image as torchvision does; AugMix interpolates."""
    sampling = Image.Resampling.BILINEAR if policy == "augmix" else Image.Resampling.NEAREST
    of_op = magnitudes(policy, op, *image.size)
    m = of_op[level] if of_op else 0.0
    if op in ENHANCERS:
        return ENHANCERS[op](image).enhance(1.0 + (-m if negative else m))
    if op == Op.POSTERIZE:
        # Older versions of PIL allow 0 bits, and give black.
        return ImageOps.posterize(image, int(m)) if m else image.point(lambda _: 0)
    if op == Op.SOLARIZE:
        return ImageOps.solarize(image, m)
    if op == Op.AUTO_CONTRAST:
        return ImageOps.autocontrast(image)
    if op == Op.EQUALIZE:
        return ImageOps.equalize(image)
    if op == Op.INVERT:
        return ImageOps.invert(image)
    if op == Op.IDENTITY:
        return image
    center, translate, shear = (image.width * 0.5, image.height * 0.5), [0, 0], [0.0, 0.0]
    fill = 0 if image.mode == "L" else (0, 0, 0)
    m = -m if negative else m
    if op == Op.ROTATE:
        return image.rotate(m, sampling, False, None, fillcolor=fill)
    if op in (Op.TRANSLATE_X, Op.TRANSLATE_Y):
        translate[op == Op.TRANSLATE_Y] = int(m)
    else:
        shear[op == Op.SHEAR_Y] = math.degrees(math.atan(m))
        center = (0, 0)
    matrix = inverse_affine(center, translate, *shear)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, sampling, fillcolor=fill)


def to_pil(image: np.ndarray) -> Image.Image:
    """A PIL image of u8[H, W, C]."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def pil_apply(policy: str, images: np.ndarray, op, level, negative) -> np.ndarray:
    """Applies one operation to each of u8[B, H, W, C]."""
    out = np.empty_like(images)
    for i, image in enumerate(images):
        done = pil_op(policy, to_pil(image), Op(int(op[i])), int(level[i]), bool(negative[i]))
        out[i] = np.asarray(done).reshape(image.shape)
    return out


def params(op, level, negative) -> OpParams:
    return OpParams(
        jnp.asarray(op, jnp.int32), jnp.asarray(level, jnp.int32), jnp.asarray(negative)
    )


def to_levels(images: jax.Array) -> np.ndarray:
    """Converts back to 8 bits; the values must be multiples of 1/255."""
    scaled = np.asarray(images) * 255
    np.testing.assert_allclose(scaled, np.round(scaled), rtol=0, atol=1e-4)
    return np.uint8(np.round(scaled))


@functools.cache
def gallery(height: int = 32, width: int = 32, channels: int = 3) -> np.ndarray:
    """Random, uniform, steep and two-coloured images and some of few levels, u8[N, H, W, C]."""
    rng = np.random.default_rng(0)
    shape = (height, width, channels)
    images = list(rng.integers(0, 256, (4, *shape)))
    images += [np.full(shape, value) for value in (0, 1, 127, 254, 255)]
    y, x = np.mgrid[:height, :width]
    for ramp in (x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 5 % 256):
        images.append(np.stack([ramp, 255 - ramp, ramp // 2][:channels], -1))
    images.append(np.where(rng.random(shape) < 0.5, 0, 255))
    images.append(np.where(rng.random(shape) < 0.01, 0, 255))
    images.append(np.where(rng.random(shape) < 0.01, 255, 0))
    images.append(np.where(rng.random(shape) < 0.3, 128, 127))
    # Few pixels below the brightest level, so the step of equalize is zero.
    images.append(np.where(rng.random(shape) < 0.1, rng.integers(0, 200, shape), 200))
    images.append(rng.choice([3, 40, 41, 250], shape, p=[0.7, 0.1, 0.1, 0.1]))
    one_flat = rng.integers(0, 256, shape)
    one_flat[..., 0] = 77
    images.append(one_flat)
    # Narrow and wide ranges, smooth and not.
    for _ in range(8):
        low, high = np.sort(rng.choice(256, 2, replace=False))
        images.append(rng.integers(low, high + 1, shape))
    waves = np.sin(x / 5)[..., None] * np.cos(y / 7)[..., None] * np.array([90, 60, 120][:channels])
    images.append(waves + 128)
    return np.stack(images).astype(np.uint8)
