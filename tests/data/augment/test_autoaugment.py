"""AutoAugment against PIL, called as torchvision calls it, on the same drawn parameters."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.augment import autoaugment as aa
from purenoise_jax.data.augment.compose import AUGMENTATIONS, make_augment
from purenoise_jax.data.augment.magnitudes import Op
from purenoise_jax.data.pixels import to_float
from purenoise_jax.runtime.errors import DataError
from tests.data.augment.pil_operations import gallery, pil_apply, to_levels

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
CIFAR10 = """
Inv 1 - Con 2 6 | Rot 7 2 TrX 3 9 | Sha 8 1 Sha 9 3 | ShY 5 8 TrY 7 9 | ACo 5 - Equ 9 -
ShY 2 7 Pos 3 7 | Col 4 3 Bri 6 7 | Sha 3 9 Bri 7 9 | Equ 6 - Equ 5 - | Con 6 7 Sha 6 5
Col 7 7 TrX 5 8 | Equ 3 - ACo 4 - | TrY 4 3 Sha 2 6 | Bri 9 6 Col 2 8 | Sol 5 2 Inv 0 -
Equ 2 - ACo 6 - | Equ 2 - Equ 6 - | Col 9 9 Equ 6 - | ACo 8 - Sol 2 8 | Bri 1 3 Col 7 0
Sol 4 5 ACo 9 - | TrY 9 9 TrY 7 9 | ACo 9 - Sol 8 3 | Equ 8 - Inv 1 - | TrY 7 9 ACo 9 -
"""
IMAGENET = """
Pos 4 8 Rot 6 9 | Sol 6 5 ACo 6 - | Equ 8 - Equ 6 - | Pos 6 7 Pos 6 6 | Equ 4 - Sol 2 4
Equ 4 - Rot 8 8 | Sol 6 3 Equ 6 - | Pos 8 5 Equ 10 - | Rot 2 3 Sol 6 8 | Equ 6 - Pos 4 6
Rot 8 8 Col 4 0 | Rot 4 9 Equ 6 - | Equ 0 - Equ 8 - | Inv 6 - Equ 10 - | Col 6 4 Con 10 8
Rot 8 8 Col 10 2 | Col 8 8 Sol 8 7 | Sha 4 7 Inv 6 - | ShX 6 5 Equ 10 - | Col 4 0 Equ 6 -
Equ 4 - Sol 2 4 | Sol 6 5 ACo 6 - | Inv 6 - Equ 10 - | Col 6 4 Con 10 8 | Equ 8 - Equ 6 -
"""
TABLES = {"cifar10": (CIFAR10, aa.CIFAR10_POLICY), "imagenet": (IMAGENET, aa.IMAGENET_POLICY)}

autoaugment, autoaugment_imagenet = jax.jit(aa.autoaugment), jax.jit(aa.autoaugment_imagenet)
sample = jax.jit(aa.sample_policy, static_argnums=(1, 2))


@pytest.fixture(autouse=True)
def no_rank_promotion() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.mark.parametrize("name", TABLES)
def test_policy_table(name):
    text, policy = TABLES[name]
    rows = [row.split() for line in text.strip().splitlines() for row in line.split("|")]
    assert len(rows) == len(policy) == 25
    for row, steps in zip(rows, policy, strict=True):
        for (name, tenths, level), step in zip((row[:3], row[3:]), steps, strict=True):
            has_level = NAMES[name] not in (Op.INVERT, Op.AUTO_CONTRAST, Op.EQUALIZE)
            assert has_level == (level != "-")
            assert step == (NAMES[name], int(tenths) / 10, int(level) if has_level else 0)


# Random form


@pytest.mark.parametrize("name", TABLES)
def test_whole_images_equal_pil_on_the_drawn_parameters(name):
    images = np.resize(gallery(), (1024, 32, 32, 3))
    key = jax.random.key(0)
    augment = {"cifar10": autoaugment, "imagenet": autoaugment_imagenet}[name]
    result = to_levels(augment(key, to_float(images)))
    drawn = jax.tree.map(np.asarray, sample(key, len(images), TABLES[name][1]))
    expected = images
    for slot in range(2):
        args = (values[slot] for values in drawn)
        expected = pil_apply("autoaugment", expected, *args)
    np.testing.assert_array_equal(result, expected)
    changed = (result != images).any((1, 2, 3))
    assert 0.6 < changed.mean() < 0.95


@pytest.mark.parametrize("name", TABLES)
def test_every_sub_policy_op_and_sign_has_its_frequency(name):
    n = 50_000
    policy = TABLES[name][1]
    drawn = jax.tree.map(np.asarray, sample(jax.random.key(1), n, policy))
    expected: dict[tuple[int, int, int], float] = {}
    for steps in policy:
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
    pairs = {
        "cifar10": (
            (Op.SHEAR_Y, Op.TRANSLATE_Y, 0.35 / 25),
            (Op.CONTRAST, Op.SHARPNESS, 0.36 / 25),
            (Op.COLOR, Op.BRIGHTNESS, 0.24 / 25),
        ),
        "imagenet": (
            (Op.POSTERIZE, Op.POSTERIZE, 0.36 / 25),
            (Op.SHARPNESS, Op.INVERT, 0.24 / 25),
            (Op.COLOR, Op.CONTRAST, 1.2 / 25),
        ),
    }
    for first, second, p in pairs[name]:
        hits = (drawn.op[0] == first) & (drawn.op[1] == second)
        assert abs(hits.mean() - p) < 4.5 * np.sqrt(p / n), (first, second)
    allowed = {(a[0], b[0]) for a, b in policy}
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
    assert AUGMENTATIONS["autoaugment_imagenet"] is aa.autoaugment_imagenet
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
