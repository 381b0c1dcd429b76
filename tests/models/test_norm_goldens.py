"""The normalisation layers against arrays made with PyTorch (`goldens/make_torch_goldens.py`)."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from purenoise_jax.models.norm import AuxBatchNorm, BatchNorm, DARBatchNorm

GOLDENS = dict(np.load(Path(__file__).parents[1] / "goldens" / "dar_bn.npz"))
MASKS = ("none", "one", "some", "one_natural", "all")
NOISE_GRADS = ("full_stop", "affine_stop", "none")
# Stored key -> (collection, variable).
VARIABLES = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
close = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


def variables_of(module: nn.Module) -> dict[str, dict[str, np.ndarray]]:
    variables: dict[str, dict[str, np.ndarray]] = {"params": {}, "batch_stats": {}}
    for prefix in ("", "aux_") if isinstance(module, AuxBatchNorm) else ("",):
        for key, (collection, name) in VARIABLES.items():
            variables[collection][prefix + name] = GOLDENS[prefix + key]
    return variables


def run(
    module: nn.Module,
    train: bool,
    variables: dict[str, Any],
    x: jax.Array,
    cotangent: jax.Array,
    noise: jax.Array | None,
    valid: jax.Array | None,
) -> tuple[jax.Array, Any, Any, jax.Array]:
    """Returns output, new statistics, and the gradients of sum(out * cotangent)."""

    def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        out, updated = module.apply(
            {**variables, "params": params},
            x,
            noise_mask=noise,
            valid=valid,
            use_running_average=not train,
            mutable=["batch_stats"],
        )
        return (out * cotangent).sum(), (out, updated["batch_stats"])

    grad = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (g_params, g_x), (out, stats) = grad(variables["params"], x)
    return out, stats, g_params, g_x


def run_sharded(
    module: nn.Module, train: bool, variables: Any, *rows: jax.Array | None
) -> tuple[jax.Array, Any, Any, jax.Array]:
    """Runs with one row per device, so a shard has only a natural row, only noise or padding."""
    mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    placed = jax.tree.map(lambda leaf: jax.device_put(leaf, split), rows)
    result = RUNNERS["jit"](module, train, variables, *placed)
    assert len(result[0].sharding.device_set) == 8
    return result


RUNNERS = {"eager": run, "jit": jax.jit(run, static_argnums=(0, 1)), "sharded": run_sharded}


def call(
    module: nn.Module,
    noise: np.ndarray | None,
    *,
    mode: str = "jit",
    train: bool = True,
    suffix: str = "",
    x: np.ndarray | None = None,
    cotangent: np.ndarray | None = None,
    valid: np.ndarray | None = None,
) -> tuple[Any, Any, Any, Any]:
    x = GOLDENS["x" + suffix] if x is None else x
    if cotangent is None:
        cotangent = GOLDENS["cotangent" + (suffix if suffix == "_1x1" else "")]
    arrays = jax.tree.map(jnp.asarray, (variables_of(module), x, cotangent, noise, valid))
    result = RUNNERS[mode](module, train, *arrays)
    for leaf in jax.tree.leaves(result):
        assert np.isfinite(leaf).all()
    return result


def compare(
    result: tuple[Any, Any, Any, Any],
    values: str,
    grads: str,
    prefixes: tuple[str, ...] = ("",),
    atol_x: float = 2e-5,
) -> None:
    """Compares with the outputs and statistics of one stored case and the gradients of another."""
    out, stats, g_params, g_x = result
    close(out, GOLDENS[f"{values}/out"])
    close(g_x, GOLDENS[f"{grads}/gx"], atol=atol_x)
    for prefix in prefixes:
        close(stats[prefix + "mean"], GOLDENS[f"{values}/{prefix}mean"])
        close(stats[prefix + "var"], GOLDENS[f"{values}/{prefix}var"])
        # These are sums over up to 240 positions of both signs.
        close(g_params[prefix + "scale"], GOLDENS[f"{grads}/{prefix}gw"], atol=2e-4)
        close(g_params[prefix + "bias"], GOLDENS[f"{grads}/{prefix}gb"], atol=2e-4)


@pytest.mark.every(4)
@pytest.mark.parametrize("mode", RUNNERS)
@pytest.mark.parametrize("noise_grad", NOISE_GRADS)
@pytest.mark.parametrize("mask", MASKS)
def test_dar_bn_train(mask: str, noise_grad: str, mode: str) -> None:
    result = call(DARBatchNorm(noise_grad=noise_grad), GOLDENS[f"mask/{mask}"], mode=mode)
    compare(result, f"dar_bn/{mask}", f"dar_bn/{mask}/{noise_grad}")
    close(result[0], GOLDENS[f"dar_bn/{mask}/out_f64"])
    close(result[1]["var"], GOLDENS[f"dar_bn/{mask}/var_f64"])


@pytest.mark.parametrize("noise_grad", NOISE_GRADS)
def test_dar_bn_without_natural_rows_keeps_the_statistics(noise_grad: str) -> None:
    _, stats, g_params, g_x = call(DARBatchNorm(noise_grad=noise_grad), GOLDENS["mask/all"])
    np.testing.assert_array_equal(stats["mean"], GOLDENS["running_mean"])
    np.testing.assert_array_equal(stats["var"], GOLDENS["running_var"])
    if noise_grad != "none":
        assert not np.any(g_params["scale"]) and not np.any(g_params["bias"])
    assert np.any(g_x) == (noise_grad != "full_stop")


@pytest.mark.parametrize("noise_grad", NOISE_GRADS)
def test_dar_bn_single_noise_row_of_one_pixel_gives_the_bias(noise_grad: str) -> None:
    result = call(DARBatchNorm(noise_grad=noise_grad), GOLDENS["mask/one"], suffix="_1x1")
    # The noise row's gradient is a difference of equal terms, 1 / sqrt(epsilon) = 316 times the
    # cotangent, so float32 leaves a few 1e-5 of the exact zero.
    compare(result, "dar_bn_1x1/one", f"dar_bn_1x1/one/{noise_grad}", atol_x=2e-4)
    close(result[0][5, 0, 0], GOLDENS["bias"], atol=1e-6)


@pytest.mark.parametrize("noise_grad", NOISE_GRADS)
@pytest.mark.parametrize("noisy", [True, False])
def test_dar_bn_one_row_of_one_pixel(noisy: bool, noise_grad: str) -> None:
    # The listing cannot do this (no unbiased variance of one value); here it must stay finite.
    out, stats, _, g_x = call(
        DARBatchNorm(noise_grad=noise_grad),
        np.array([noisy]),
        x=GOLDENS["x_1x1"][:1],
        cotangent=GOLDENS["cotangent_1x1"][:1],
    )
    close(out[0, 0, 0], GOLDENS["bias"], atol=1e-6)
    close(g_x, np.zeros_like(g_x), atol=2e-4)
    assert np.all(stats["var"] > 0)


@pytest.mark.parametrize("mask", MASKS)
def test_dar_bn_eval(mask: str) -> None:
    result = call(DARBatchNorm(noise_grad="none"), GOLDENS[f"mask/{mask}"], train=False)
    compare(result, f"dar_bn_eval/{mask}", f"dar_bn_eval/{mask}")
    np.testing.assert_array_equal(result[1]["mean"], GOLDENS["running_mean"])
    np.testing.assert_array_equal(result[1]["var"], GOLDENS["running_var"])


@pytest.mark.parametrize("noise_grad", NOISE_GRADS)
def test_dar_bn_with_a_large_mean(noise_grad: str) -> None:
    case = "dar_bn_large/some"
    out, stats, _, g_x = call(
        DARBatchNorm(noise_grad=noise_grad), GOLDENS["mask/some"], suffix="_large"
    )
    # One float32 step at 1e3 is 6e-5, so this is the accuracy of the input's own mean.
    close(out, GOLDENS[f"{case}/out_f64"], rtol=0, atol=3e-4)
    close(stats["mean"], GOLDENS[f"{case}/mean_f64"], rtol=1e-6)
    close(stats["var"], GOLDENS[f"{case}/var_f64"], rtol=2e-5)
    close(g_x, GOLDENS[f"{case}/{noise_grad}/gx"], rtol=1e-3, atol=3e-4)


@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_dar_bn_of_bfloat16_activations_has_moments_of_float32(mean: float) -> None:
    x = jnp.asarray(GOLDENS["x"] + np.float32(mean), jnp.bfloat16)
    noise = GOLDENS["mask/some"]
    variables = variables_of(DARBatchNorm())

    def apply(dtype: Any) -> np.ndarray:
        layer = DARBatchNorm(dtype=dtype)
        y, _ = layer.apply(variables, x, jnp.asarray(noise), mutable=["batch_stats"])
        assert y.dtype == dtype
        return np.asarray(y.astype(jnp.float32))

    exact = np.asarray(x.astype(jnp.float32), np.float64)
    expected = np.empty_like(exact)
    for rows in (noise, ~noise):
        centred = exact[rows] - exact[rows].mean((0, 1, 2))
        var = np.square(centred).mean((0, 1, 2))
        expected[rows] = centred / np.sqrt(var + 1e-5) * GOLDENS["weight"] + GOLDENS["bias"]
    close(apply(jnp.float32), expected)
    # The only error of bfloat16 is the rounding of the result.
    np.testing.assert_allclose(apply(jnp.bfloat16), expected, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("mode", RUNNERS)
@pytest.mark.parametrize("mask", MASKS)
def test_aux_bn_train(mask: str, mode: str) -> None:
    result = call(AuxBatchNorm(), GOLDENS[f"mask/{mask}"], mode=mode)
    compare(result, f"aux_bn/{mask}", f"aux_bn/{mask}", ("", "aux_"))


def test_aux_bn_eval() -> None:
    result = call(AuxBatchNorm(), GOLDENS["mask/some"], train=False)
    compare(result, "aux_bn_eval/some", "aux_bn_eval/some", ("", "aux_"))


@pytest.mark.every(3)
@pytest.mark.parametrize("mode", RUNNERS)
@pytest.mark.parametrize("train", [True, False])
def test_plain_bn(train: bool, mode: str) -> None:
    case = "bn/train" if train else "bn/eval"
    result = call(BatchNorm(), GOLDENS["mask/some"], train=train, mode=mode)
    compare(result, case, case)


LAYERS: list[nn.Module] = [
    BatchNorm(),
    AuxBatchNorm(),
    *(DARBatchNorm(noise_grad=noise_grad) for noise_grad in NOISE_GRADS),
    *(norm(noise_grad=g) for norm in (BatchNorm, AuxBatchNorm) for g in NOISE_GRADS[:2]),
]
layers = pytest.mark.parametrize(
    "module", LAYERS, ids=[f"{type(m).__name__}-{m.noise_grad}" for m in LAYERS]
)


@pytest.mark.every(4)
@layers
def test_no_mask_is_a_mask_without_noise(module: nn.Module) -> None:
    without = call(module, None)
    with_false = call(module, GOLDENS["mask/none"])
    jax.tree.map(partial(close, rtol=1e-6, atol=1e-6), without[:3], with_false[:3])
    close(without[3], with_false[3], rtol=1e-6, atol=1e-6)


@pytest.mark.every(4)
@layers
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("mask", MASKS)
def test_padding_has_no_influence(mask: str, train: bool, module: nn.Module) -> None:
    noise, rows = GOLDENS[f"mask/{mask}"], 8
    # The padding's own noise flag must not matter either, so there is one row of each kind.
    garbage = np.full((2, *GOLDENS["x"].shape[1:]), 1e3, np.float32)
    garbage[:, ::2] *= -1
    padded = call(
        module,
        np.append(noise, [True, False]),
        x=np.concatenate([GOLDENS["x"], garbage]),
        cotangent=np.concatenate([GOLDENS["cotangent"], np.zeros_like(garbage)]),
        valid=np.arange(rows + 2) < rows,
        train=train,
    )
    bare = call(module, noise, train=train)
    close(padded[0][:rows], bare[0], rtol=1e-6, atol=5e-6)
    jax.tree.map(partial(close, rtol=1e-6, atol=1e-6), padded[1], bare[1])
    jax.tree.map(partial(close, rtol=1e-5, atol=5e-5), padded[2], bare[2])
    close(padded[3][:rows], bare[3], rtol=1e-5, atol=5e-6)
    assert not np.any(padded[3][rows:])


@pytest.mark.every(4)
@layers
def test_a_batch_of_padding_changes_nothing(module: nn.Module) -> None:
    _, stats, g_params, g_x = call(
        module,
        GOLDENS["mask/some"],
        cotangent=np.zeros_like(GOLDENS["x"]),
        valid=np.zeros(8, bool),
    )
    before = variables_of(module)["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, dict(stats), before)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((g_params, g_x)))


@layers
def test_permuting_rows_permutes_outputs(module: nn.Module) -> None:
    order = np.array([3, 7, 0, 5, 1, 6, 2, 4])
    noise = GOLDENS["mask/some"]
    plain = call(module, noise)
    permuted = call(
        module, noise[order], x=GOLDENS["x"][order], cotangent=GOLDENS["cotangent"][order]
    )
    close(permuted[0], plain[0][order], atol=5e-6)
    close(permuted[3], plain[3][order], atol=5e-6)
    jax.tree.map(close, permuted[1], plain[1])


@pytest.mark.parametrize("noise_grad", NOISE_GRADS)
def test_natural_rows_do_not_depend_on_the_noise(noise_grad: str) -> None:
    module, noise = DARBatchNorm(noise_grad=noise_grad), GOLDENS["mask/some"]
    rows = noise.reshape(-1, 1, 1, 1)
    cotangent = np.where(rows, 0, GOLDENS["cotangent"])
    first = call(module, noise, cotangent=cotangent)
    other = call(module, noise, cotangent=cotangent, x=GOLDENS["x"] + np.where(rows, 7.0, 0.0))
    np.testing.assert_array_equal(first[0][~noise], other[0][~noise])
    np.testing.assert_array_equal(first[3], other[3])
    assert not np.any(first[3][noise])
    jax.tree.map(np.testing.assert_array_equal, first[1:3], other[1:3])


@pytest.mark.parametrize("norm", [BatchNorm, AuxBatchNorm, DARBatchNorm])
def test_the_gradient_from_noise_rows_follows_noise_grad(norm: type[BatchNorm]) -> None:
    """The forward pass, and the gradient from natural rows, do not depend on it."""
    noise = GOLDENS["mask/some"]
    rows = noise.reshape(-1, 1, 1, 1)
    results = {}
    for reading in NOISE_GRADS:
        module = norm(noise_grad=reading)
        of_noise = call(module, noise, cotangent=np.where(rows, GOLDENS["cotangent"], 0))
        natural = call(module, noise, cotangent=np.where(rows, 0, GOLDENS["cotangent"]))
        results[reading] = (of_noise, natural)
    for reading in NOISE_GRADS[:2]:
        for (y, stats, *_), (y_all, stats_all, *_) in zip(
            results[reading], results["none"], strict=True
        ):
            jax.tree.map(partial(close, rtol=1e-6, atol=1e-6), (y, stats), (y_all, stats_all))
        jax.tree.map(partial(close, rtol=1e-6, atol=1e-6), results[reading][1], results["none"][1])

    def learns(reading: str) -> tuple[dict[str, bool], bool]:
        _, _, g_params, g_x = results[reading][0]
        return {name: bool(np.any(g)) for name, g in g_params.items()}, bool(np.any(g_x))

    names = results["none"][0][2]
    own = {n for n in names if n.startswith("aux_") == (norm is AuxBatchNorm)}
    assert learns("none") == ({n: n in own for n in names}, True)
    assert learns("affine_stop") == (dict.fromkeys(names, False), True)
    assert learns("full_stop") == (dict.fromkeys(names, False), False)


@pytest.mark.every(4)
@pytest.mark.parametrize(
    "mask", [np.zeros(7, bool), np.zeros(8, int), np.zeros((8, 1), bool), [0.0] * 8]
)
@pytest.mark.parametrize("which", ["noise_mask", "valid"])
def test_masks_of_another_shape_or_dtype_are_refused(which: str, mask: Any) -> None:
    module = DARBatchNorm()
    with pytest.raises(ValueError, match=rf"^{which} must be bool\[8\], got"):
        module.init(jax.random.key(0), jnp.zeros((8, 2, 2, 3)), **{which: mask})
    module.init(jax.random.key(0), jnp.zeros((8, 2, 2, 3)), **{which: [True] * 8})
