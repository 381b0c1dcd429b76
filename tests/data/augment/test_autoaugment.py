"""AutoAugment against PIL, called as torchvision calls it, on the same drawn parameters."""

import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from purenoise_jax.data.augment import autoaugment as aa
from purenoise_jax.data.augment.autoaugment import Op, OpParams
from purenoise_jax.data.augment.compose import AUGMENTATIONS, make_augment
from purenoise_jax.data.pixels import to_float
from purenoise_jax.runtime.errors import DataError

pytestmark = pytest.mark.slow

# Name in the paper, name here.
NAMES = {
    "ShX": Op.SHEAR_X,
    "ShY": Op.SHEAR_Y,
    "TrX": Op.TRANSLATE_X,
    "TrY": Op.TRANSLATE_Y,
    "Rot": Op.ROTATE,
    "Bri": Op.BRIGHTNESS,
    "Col": Op.COLOR,
    "Con": Op.CONTRAST,
    "Sha": Op.SHARPNESS,
    "Pos": Op.POSTERIZE,
    "Sol": Op.SOLARIZE,
    "ACo": Op.AUTO_CONTRAST,
    "Equ": Op.EQUALIZE,
    "Inv": Op.INVERT,
}

# Operation, probability in tenths and level of both operations of the 25 sub-policies, as
# torchvision lists them; operations without a magnitude have no level.
POLICY = """
Inv 1 - Con 2 6 | Rot 7 2 TrX 3 9 | Sha 8 1 Sha 9 3 | ShY 5 8 TrY 7 9 | ACo 5 - Equ 9 -
ShY 2 7 Pos 3 7 | Col 4 3 Bri 6 7 | Sha 3 9 Bri 7 9 | Equ 6 - Equ 5 - | Con 6 7 Sha 6 5
Col 7 7 TrX 5 8 | Equ 3 - ACo 4 - | TrY 4 3 Sha 2 6 | Bri 9 6 Col 2 8 | Sol 5 2 Inv 0 -
Equ 2 - ACo 6 - | Equ 2 - Equ 6 - | Col 9 9 Equ 6 - | ACo 8 - Sol 2 8 | Bri 1 3 Col 7 0
Sol 4 5 ACo 9 - | TrY 9 9 TrY 7 9 | ACo 9 - Sol 8 3 | Equ 8 - Inv 1 - | TrY 7 9 ACo 9 -
"""

# torch.linspace(start, stop, 10).tolist() of torch 2.13, for images of 32 x 32.
LINSPACE = {
    "shear": [
        0.0, 0.03333333507180214, 0.06666667014360428, 0.10000000894069672, 0.13333334028720856,
        0.1666666716337204, 0.20000000298023224, 0.23333334922790527, 0.2666666805744171,
        0.30000001192092896,
    ],
    "enhance": [
        0.0, 0.09999999403953552, 0.19999998807907104, 0.29999998211860657, 0.3999999761581421,
        0.5, 0.6000000238418579, 0.699999988079071, 0.7999999523162842, 0.8999999761581421,
    ],
    "rotate": [
        0.0, 3.3333332538604736, 6.666666507720947, 10.0, 13.333333015441895, 16.666667938232422,
        20.0, 23.33333396911621, 26.66666603088379, 30.0,
    ],
    "translate": [
        0.0, 1.611279010772705, 3.22255802154541, 4.833837032318115, 6.44511604309082,
        8.056394577026367, 9.667673110961914, 11.278952598571777, 12.89023208618164,
        14.501510620117188,
    ],
    "solarize": [
        255.0, 226.6666717529297, 198.3333282470703, 170.0, 141.66665649414062,
        113.33333587646484, 85.0, 56.66666793823242, 28.33333396911621, 0.0,
    ],
}  # fmt: skip
RANGE_OF = (
    dict.fromkeys((Op.SHEAR_X, Op.SHEAR_Y), "shear")
    | dict.fromkeys((Op.TRANSLATE_X, Op.TRANSLATE_Y), "translate")
    | dict.fromkeys((Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS), "enhance")
    | {Op.ROTATE: "rotate", Op.SOLARIZE: "solarize"}
)
POSTERIZE_BITS = [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]

ENHANCERS = {
    Op.BRIGHTNESS: ImageEnhance.Brightness,
    Op.COLOR: ImageEnhance.Color,
    Op.CONTRAST: ImageEnhance.Contrast,
    Op.SHARPNESS: ImageEnhance.Sharpness,
}

transform, transform_twice = jax.jit(aa.transform), jax.jit(aa.transform_twice)
autoaugment = jax.jit(aa.autoaugment)
sample = jax.jit(aa.sample_policy, static_argnums=1)


@pytest.fixture(autouse=True)
def no_rank_promotion() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield


# The reference


def inverse_affine(center, translate, shear_x, shear_y):
    """Map from target to source for a shear about a centre, then a translation; in degrees."""
    sx, sy = math.radians(shear_x), math.radians(shear_y)
    # Forwards [[p, q], [r, s]]; its determinant is one.
    p, r = math.cos(-sy) / math.cos(sy), math.sin(-sy) / math.cos(sy)
    q, s = -p * math.tan(sx), -r * math.tan(sx) + 1
    dx, dy = -center[0] - translate[0], -center[1] - translate[1]
    return (s, -q, s * dx - q * dy + center[0], -r, p, -r * dx + p * dy + center[1])


def pil_op(image: Image.Image, op: Op, level: int, negative: bool) -> Image.Image:
    """Applies one operation to a PIL image as torchvision does."""
    if op in ENHANCERS:
        m = LINSPACE["enhance"][level]
        return ENHANCERS[op](image).enhance(1.0 + (-m if negative else m))
    if op == Op.POSTERIZE:
        return ImageOps.posterize(image, POSTERIZE_BITS[level])
    if op == Op.SOLARIZE:
        return ImageOps.solarize(image, LINSPACE["solarize"][level])
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
    if op in (Op.TRANSLATE_X, Op.TRANSLATE_Y):
        axis = op == Op.TRANSLATE_Y
        m = LINSPACE["translate"][level] * image.size[axis] / 32
        translate[axis] = int(-m if negative else m)
    else:
        m = LINSPACE[RANGE_OF[op]][level]
        m = -m if negative else m
        if op == Op.ROTATE:
            return image.rotate(m, Image.Resampling.NEAREST, False, None, fillcolor=fill)
        shear[op == Op.SHEAR_Y] = math.degrees(math.atan(m))
        center = (0, 0)
    matrix = inverse_affine(center, translate, *shear)
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=fill
    )


def pil_apply(images: np.ndarray, op, level, negative) -> np.ndarray:
    out = np.empty_like(images)
    for i, image in enumerate(images):
        pil = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        out[i] = np.asarray(pil_op(pil, Op(int(op[i])), int(level[i]), bool(negative[i]))).reshape(
            image.shape
        )
    return out


def to_levels(images: jax.Array) -> np.ndarray:
    """Converts back to 8 bits; the values must be multiples of 1/255."""
    scaled = np.asarray(images) * 255
    np.testing.assert_allclose(scaled, np.round(scaled), rtol=0, atol=1e-4)
    return np.uint8(np.round(scaled))


# Images


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


def params(op, level, negative) -> OpParams:
    return OpParams(
        jnp.asarray(op, jnp.int32), jnp.asarray(level, jnp.int32), jnp.asarray(negative)
    )


# Operations


@pytest.mark.parametrize("shape", [(32, 32, 3), (32, 32, 1), (20, 45, 3)])
@pytest.mark.parametrize("op", list(Op), ids=lambda op: op.name.lower())
def test_every_op_at_every_magnitude_equals_pil(op, shape):
    images = gallery(*shape)
    n = len(images)
    # Both signs of all levels in one batch, to detect parameters applied to another image.
    levels, negative = np.repeat(np.arange(20) // 2, n), np.repeat(np.arange(20) % 2 == 1, n)
    tiled = np.tile(images, (20, 1, 1, 1))
    ops = np.full(20 * n, op)
    result = transform(to_float(tiled), params(ops, levels, negative))
    assert result.dtype == jnp.float32 and result.shape == tiled.shape
    np.testing.assert_array_equal(to_levels(result), pil_apply(tiled, ops, levels, negative))


def test_ops_do_not_depend_on_the_other_images():
    images = gallery()
    rng = np.random.default_rng(1)
    n = 8 * len(images)
    op, level = rng.integers(0, len(Op), n), rng.integers(0, 10, n)
    negative = rng.random(n) < 0.5
    tiled = np.tile(images, (8, 1, 1, 1))
    result = transform(to_float(tiled), params(op, level, negative))
    np.testing.assert_array_equal(to_levels(result), pil_apply(tiled, op, level, negative))


def test_blend_equals_pil_for_all_greys():
    # All greys, blended with black and with a mean, which the other half of the image determines.
    grey = np.arange(256, dtype=np.uint8)
    means = np.arange(0, 256, 3, dtype=np.uint8)  # they come out as 64 to 191
    images = np.empty((len(means), 16, 32, 3), np.uint8)
    images[:, :8] = grey.reshape(8, 32, 1)
    images[:, 8:] = means[:, None, None, None]
    n = len(images)
    for op in (Op.BRIGHTNESS, Op.CONTRAST):
        for level in range(10):
            for negative in (False, True):
                args = (np.full(n, op), np.full(n, level), np.full(n, negative))
                result = to_levels(transform(to_float(images), params(*args)))
                np.testing.assert_array_equal(result, pil_apply(images, *args), f"{op} {level}")


def test_autocontrast_equals_pil_for_every_range():
    # Each image has the darkest and the brightest level and all between.
    low, high = np.triu_indices(256)
    levels = np.clip(np.arange(256)[None], low[:, None], high[:, None]).astype(np.uint8)
    tables = jax.jit(aa._auto_contrast_tables)(jnp.asarray(levels, jnp.int32)[..., None])
    result = np.take_along_axis(np.asarray(tables), levels.astype(np.int64), 1)
    scale = np.float64(255) / np.maximum(high - low, 1)[:, None]
    expected = np.int64(levels * scale + -low[:, None] * scale).clip(0, 255)
    expected = np.where((high > low)[:, None], expected, levels)
    np.testing.assert_array_equal(result, expected)
    # The installed version of PIL uses the formula above.
    some = np.random.default_rng(2).choice(len(levels), 300, replace=False)
    for i in some:
        pil = ImageOps.autocontrast(Image.fromarray(levels[i][None]))
        np.testing.assert_array_equal(np.asarray(pil)[0], expected[i])


def test_images_of_a_few_pixels():
    rng = np.random.default_rng(3)
    for shape in ((1, 1), (1, 5), (2, 3), (3, 3), (4, 2)):
        images = rng.integers(0, 256, (60, *shape, 3)).astype(np.uint8)
        ops = np.resize(list(Op), 60)
        level, negative = rng.integers(0, 10, 60), rng.random(60) < 0.5
        result = transform(to_float(images), params(ops, level, negative))
        np.testing.assert_array_equal(to_levels(result), pil_apply(images, ops, level, negative))


# Tables


def test_policy_table():
    rows = [row.split() for line in POLICY.strip().splitlines() for row in line.split("|")]
    assert len(rows) == len(aa.POLICY) == 25
    for row, steps in zip(rows, aa.POLICY, strict=True):
        for (name, tenths, level), step in zip((row[:3], row[3:]), steps, strict=True):
            has_level = NAMES[name] not in (Op.INVERT, Op.AUTO_CONTRAST, Op.EQUALIZE)
            assert has_level == (level != "-")
            assert step == (NAMES[name], int(tenths) / 10, int(level) if has_level else 0)


def test_magnitudes_are_those_of_torch():
    for op in Op:
        expected = POSTERIZE_BITS if op == Op.POSTERIZE else [0] * 10
        expected = LINSPACE[RANGE_OF[op]] if op in RANGE_OF else expected
        result = aa.magnitudes(op, 32, 32)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, np.float32(expected), op.name)
    assert aa.magnitudes(Op.TRANSLATE_X, 32, 331)[9] == 150
    assert aa.magnitudes(Op.TRANSLATE_Y, 331, 32)[9] == 150


# Random form


def test_whole_images_equal_pil_on_the_drawn_parameters():
    images = np.resize(gallery(), (1024, 32, 32, 3))
    key = jax.random.key(0)
    result = to_levels(autoaugment(key, to_float(images)))
    drawn = jax.tree.map(np.asarray, sample(key, len(images)))
    expected = images
    for slot in range(2):
        args = (values[slot] for values in drawn)
        expected = pil_apply(expected, *args)
    np.testing.assert_array_equal(result, expected)
    changed = (result != images).any((1, 2, 3))
    assert 0.6 < changed.mean() < 0.95


def test_two_ops_are_applied_in_their_order():
    images = gallery()
    n = len(images)
    ops = np.repeat([[Op.POSTERIZE], [Op.ROTATE]], n, 1)
    level, negative = np.full((2, n), 9), np.zeros((2, n), bool)
    result = to_levels(transform_twice(to_float(images), params(ops, level, negative)))
    expected = images
    for slot in range(2):
        expected = pil_apply(expected, ops[slot], level[slot], negative[slot])
    np.testing.assert_array_equal(result, expected)


def test_every_sub_policy_op_and_sign_has_its_frequency():
    n = 50_000
    drawn = jax.tree.map(np.asarray, sample(jax.random.key(1), n))
    expected: dict[tuple[int, int, int], float] = {}
    for steps in aa.POLICY:
        for slot, (op, p, level) in enumerate(steps):
            expected[slot, op, level] = expected.get((slot, op, level), 0) + p / 25
    for slot in range(2):
        applied = drawn.op[slot] != Op.IDENTITY
        of_applied = (values[slot][applied].tolist() for values in (drawn.op, drawn.level))
        seen = set(zip(*of_applied, strict=True))
        of_slot = {k[1:]: p for k, p in expected.items() if k[0] == slot and p > 0}
        assert seen == set(of_slot)
        for (op, level), p in of_slot.items():
            hits = (drawn.op[slot] == op) & (drawn.level[slot] == level)
            assert abs(hits.mean() - p) < 4.5 * np.sqrt(p * (1 - p) / n), (slot, op, level)
            negative = drawn.negative[slot][hits].mean()
            assert abs(negative - 0.5) < 4.5 * 0.5 / np.sqrt(hits.sum()), (slot, op, level)
    # Both operations of a sub-policy occur together, with independent probabilities and signs.
    pairs = (
        (Op.SHEAR_Y, Op.TRANSLATE_Y, 0.35 / 25),
        (Op.CONTRAST, Op.SHARPNESS, 0.36 / 25),
        (Op.COLOR, Op.BRIGHTNESS, 0.24 / 25),
    )
    for first, second, p in pairs:
        hits = (drawn.op[0] == first) & (drawn.op[1] == second)
        assert abs(hits.mean() - p) < 4.5 * np.sqrt(p / n), (first, second)
    allowed = {(a[0], b[0]) for a, b in aa.POLICY}
    both = (drawn.op != Op.IDENTITY).all(0)
    assert set(zip(*drawn.op[:, both].tolist(), strict=True)) <= allowed
    assert abs(np.corrcoef(drawn.negative)[0, 1]) < 4.5 / np.sqrt(n)


def test_jit_equals_eager_and_keys_differ():
    images = to_float(gallery())
    key = jax.random.key(2)
    result = to_levels(autoaugment(key, images))
    np.testing.assert_array_equal(to_levels(aa.autoaugment(key, images)), result)
    np.testing.assert_array_equal(to_levels(autoaugment(key, images)), result)
    assert (to_levels(autoaugment(jax.random.key(3), images)) != result).any((1, 2, 3)).mean() > 0.5


def test_rows_are_independent_and_differ():
    images = to_float(gallery())
    key = jax.random.key(4)
    out = np.asarray(autoaugment(key, images))
    others = autoaugment(key, jnp.asarray(images)[::-1].at[5].set(images[5]))
    np.testing.assert_array_equal(others[5], out[5])
    # Each row has its own parameters, so the same image in every row gives different results.
    same = np.asarray(autoaugment(key, jnp.broadcast_to(images[:1], images.shape)))
    np.testing.assert_array_equal(same[0], out[0])
    assert len({row.tobytes() for row in same}) > len(same) / 2


def test_devices_share_a_batch_without_communication():
    images, key = jnp.asarray(to_float(np.resize(gallery(), (64, 32, 32, 3)))), jax.random.key(7)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("batch"))
    shared = jax.jit(aa.autoaugment, out_shardings=split)
    shards = jax.device_put(images, split)
    np.testing.assert_array_equal(shared(key, shards), autoaugment(key, images))
    program = shared.lower(key, shards).compile().as_text()
    for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert f" {word}(" not in program, word


@pytest.mark.parametrize("shape", [(16, 32, 32, 3), (16, 32, 32, 1), (1, 9, 17, 3)])
def test_shapes_ranges_and_grid(shape):
    # Pixels are first clipped to [0, 1] and rounded to multiples of 1/255.
    noise = np.random.default_rng(4).normal(0.5, 0.5, shape).astype(np.float32)
    levels = np.uint8(np.round(noise.clip(0, 1) * 255))
    for seed in range(3):
        out = autoaugment(jax.random.key(seed), jnp.asarray(noise))
        assert out.shape == shape and out.dtype == jnp.float32
        assert out.min() >= 0 and out.max() <= 1
        same = autoaugment(jax.random.key(seed), to_float(levels))
        np.testing.assert_array_equal(to_levels(out), to_levels(same))


def test_images_without_an_operation_do_not_change():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    identity = params([Op.IDENTITY], [0], [False])

    def both(levels: jax.Array) -> tuple[jax.Array, jax.Array]:
        images = to_float(levels)
        return images, aa.transform(images, identity)

    before, after = jax.jit(both)(levels)
    np.testing.assert_array_equal(after, before)


def test_double_precision_mode_draws_and_computes_the_same():
    images = np.resize(gallery(), (256, 32, 32, 3))
    key = jax.random.key(5)
    single = to_levels(autoaugment(key, to_float(images)))
    with jax.enable_x64(True):
        same = autoaugment(key, to_float(images))
        assert same.dtype == jnp.float32
        double = autoaugment(key, jnp.asarray(images / 255))
        assert double.dtype == jnp.float64
        drawn = sample(key, 256)
        assert (drawn.op.dtype, drawn.level.dtype) == (jnp.int32, jnp.int32)
    np.testing.assert_array_equal(to_levels(same), single)
    np.testing.assert_array_equal(to_levels(double), single)


def test_autoaugment_combines_with_the_other_augmentations():
    assert AUGMENTATIONS["autoaugment"] is aa.autoaugment
    images, key = to_float(gallery()), jax.random.key(6)

    def run(*names: str) -> np.ndarray:
        augment: Callable[..., jax.Array] = jax.jit(make_augment(names))
        return np.asarray(augment(key, images))

    alone = run("autoaugment")
    assert (alone != np.asarray(images)).any((1, 2, 3)).mean() > 0.5
    # Flipping changes neither the levels nor the draws.
    both, flipped = run("autoaugment", "flip"), run("flip")
    mirrored = (flipped != np.asarray(images)).any((1, 2, 3))
    np.testing.assert_array_equal(both[mirrored], alone[mirrored][:, :, ::-1])
    # The colours give pixels between the levels, which autoaugment rounds.
    to_levels(run("simclr", "autoaugment"))


def test_wrong_shapes_are_refused():
    with pytest.raises(DataError, match="shape"):
        aa.autoaugment(jax.random.key(0), jnp.zeros((2, 8, 8, 4)))
    with pytest.raises(DataError, match="shape"):
        aa.transform(jnp.zeros((8, 8, 3)), params([0], [0], [False]))
