"""Each layer as a replacement of `flax.linen.BatchNorm`, which is the oracle."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from purenoise_jax.models.norm import AuxBatchNorm, BatchNorm, DARBatchNorm
from purenoise_jax.runtime.errors import ConfigError, DataError

pytestmark = pytest.mark.slow

LAYERS = (BatchNorm, AuxBatchNorm, DARBatchNorm)
norms = pytest.mark.parametrize("norm", LAYERS)
close = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


def like_flax(norm, **arguments):
    """A layer with Flax's values of the two defaults that differ."""
    return norm(**{"momentum": 0.99, "unbiased": False, **arguments})


def draw(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(1, 2, shape).astype(dtype)


def without_aux(variables):
    """Variables without those of the auxiliary layer, which Flax lacks."""
    return {
        collection: {k: v for k, v in values.items() if not k.startswith("aux_")}
        for collection, values in variables.items()
    }


def outcome(layer, variables, x, cotangent, average, **call):
    """Output, statistics and gradients by parameters and input of one call."""

    def loss(params, x):
        y, new = layer.apply(
            {**variables, "params": params},
            x,
            use_running_average=average,
            mutable=["batch_stats"],
            **call,
        )
        return (y.astype(jnp.float32) * cotangent).sum(), (y, new["batch_stats"])

    params = variables.get("params", {})
    return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)


def compare(norm, x, average=False, tolerance=close, call=None, counts=None, **arguments):
    """Compares with Flax's layer, from the same random variables."""
    call = call or {}
    theirs, ours = nn.BatchNorm(**arguments), like_flax(norm, **arguments)
    first = ours.init(jax.random.key(0), x, **call)
    expected = theirs.init(jax.random.key(0), x, use_running_average=average, **call)
    found = without_aux(first)
    found = {k: v for k, v in found.items() if v}
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), found, expected)
    variables = jax.tree.map(
        lambda leaf: leaf + draw(*leaf.shape, seed=leaf.size).astype(leaf.dtype) ** 2, first
    )
    counts = np.broadcast_to(True if counts is None else counts, x.shape)
    cotangent = np.where(counts, draw(*x.shape, seed=9), 0)
    one = outcome(theirs, without_aux(variables), x, cotangent, average, **call)
    other = outcome(ours, variables, x, cotangent, average, **call)
    (params, to_x), (y, stats) = other
    (their_params, their_to_x), (their_y, their_stats) = one
    assert y.dtype == their_y.dtype
    tolerance(np.asarray(y, np.float32)[counts], np.asarray(their_y, np.float32)[counts])
    tolerance(np.asarray(to_x, np.float32), np.asarray(their_to_x, np.float32))
    ours_by_name = without_aux({"stats": stats, "params": params})
    for name, values in (("stats", their_stats), ("params", their_params)):
        assert set(ours_by_name[name]) == set(values)
        for key, value in values.items():
            assert ours_by_name[name][key].dtype == value.dtype
            tolerance(
                np.asarray(ours_by_name[name][key], np.float32),
                np.asarray(value, np.float32),
                rtol=1e-4,
            )


@norms
@pytest.mark.parametrize("average", [False, True], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((6, 4, 3), {}),
        ((6, 3), {"momentum": 0.7, "epsilon": 1e-2}),
        ((3, 5, 4), {"axis": 0}),
        ((5, 3, 2, 4), {"axis": 1}),
        ((5, 3, 2, 4), {"axis": (1, -1)}),
        ((5, 3, 2, 4), {"axis": (0, 2)}),
        ((6, 4, 3), {"use_bias": False}),
        ((6, 4, 3), {"use_scale": False}),
        ((6, 4, 3), {"use_scale": False, "use_bias": False}),
        ((6, 4, 3), {"use_fast_variance": False}),
    ],
    ids=str,
)  # fmt: skip
def test_arguments_mean_what_they_mean_in_flax(norm, shape, arguments, average):
    compare(norm, draw(*shape), average, **arguments)


@norms
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("x_dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.bfloat16])
def test_dtypes_promote_as_in_flax(norm, scale, x_dtype, dtype, param_dtype):
    arguments = {"dtype": dtype, "param_dtype": param_dtype, "use_scale": scale, "use_bias": scale}
    x = jnp.asarray(draw(6, 4, 3) * 4, x_dtype)
    ours, theirs = (
        jax.eval_shape(partial(layer.init_with_output, use_running_average=False), jax.random.key(0), x)
        for layer in (like_flax(norm, **arguments), nn.BatchNorm(**arguments))
    )  # fmt: skip
    found = {k: v for k, v in without_aux(ours[1]).items() if v}
    assert (ours[0], found) == (theirs[0], dict(theirs[1]))


@norms
def test_reductions_in_bfloat16(norm):
    arguments = {"param_dtype": jnp.bfloat16, "force_float32_reductions": False}
    x = jnp.asarray(draw(6, 4, 3), jnp.bfloat16)

    def rough(a, b, rtol=0):
        np.testing.assert_allclose(a, b, rtol=0, atol=0.03 * np.abs(b).max())

    compare(norm, x, tolerance=rough, **arguments)


@norms
@pytest.mark.parametrize("average", [False, True], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("axis", "shape"), [(-1, (4, 3, 1)), (-1, (4, 3, 2)), (-1, (4, 1, 1)), (1, (4, 1, 2))]
)
def test_a_mask_of_elements_selects_the_elements_of_the_moments(norm, average, axis, shape):
    mask = np.random.default_rng(3).random(shape) < 0.6
    mask[0] = True  # Flax returns NaN for a feature without an element.
    x = draw(4, 3, 2)
    compare(norm, x, average, axis=axis, call={"mask": mask}, counts=mask)


@norms
def test_masked_out_elements_may_be_nan(norm):
    mask = np.random.default_rng(3).random((4, 3, 1)) < 0.6
    x = np.where(mask, draw(4, 3, 2), np.nan)
    layer = like_flax(norm, use_running_average=False)
    y, variables = layer.init_with_output(jax.random.key(0), x, mask=mask)
    where = np.broadcast_to(mask, x.shape)
    close(np.mean(y, (0, 1), where=where), 0, atol=1e-5)
    close(np.var(y, (0, 1), where=where), 1, rtol=1e-4)
    _, new = layer.apply(variables, x, mask=mask, mutable=["batch_stats"])
    close(new["batch_stats"]["mean"], 0.01 * np.mean(x, (0, 1), where=where))
    close(new["batch_stats"]["var"], 0.99 + 0.01 * np.var(x, (0, 1), where=where))


@norms
@pytest.mark.parametrize("unbiased", [False, True])
def test_a_mask_combines_with_noise_and_padding(norm, unbiased):
    """Compares with the moments of the remaining elements, computed with numpy."""
    x, rng = draw(8, 3, 2), np.random.default_rng(4)
    mask, noise, valid = rng.random((8, 3, 2)) < 0.7, np.arange(8) % 2 == 1, np.arange(8) != 5
    layer = norm(use_running_average=False, unbiased=unbiased)
    variables = layer.init(jax.random.key(0), x)
    y, new = layer.apply(variables, x, noise, valid, mask=mask, mutable=["batch_stats"])
    kinds = [noise | ~noise] if norm is BatchNorm else [~noise, noise]
    for kind, prefix in zip(kinds, ("", "aux_"), strict=False):
        chosen = mask & (valid & kind)[:, None, None]
        for channel in range(2):
            values = x[..., channel][chosen[..., channel]].astype(np.float64)
            expected = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
            close(y[..., channel][chosen[..., channel]], expected)
            if prefix + "mean" in new["batch_stats"]:
                close(new["batch_stats"][prefix + "mean"][channel], 0.1 * values.mean())
                var = values.var(ddof=int(unbiased))
                close(new["batch_stats"][prefix + "var"][channel], 0.9 + 0.1 * var)


DEVICES, GROUPS = 4, [[0, 1], [2, 3]]


def over_devices(how, function):
    """Maps a function over the leading axis of its arguments, one slice per device."""
    if how == "vmap":
        return jax.vmap(function, axis_name="devices")
    if how == "pmap":
        return jax.pmap(function, axis_name="devices", devices=jax.devices()[:DEVICES])
    mesh = jax.make_mesh(
        (DEVICES,), ("devices",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:DEVICES]
    )

    def of_one(*arguments):
        results = function(*jax.tree.map(lambda a: a[0], arguments))
        return jax.tree.map(lambda a: a[None], results)

    spec = PartitionSpec("devices")
    return jax.jit(jax.shard_map(of_one, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))


def divided(layer, variables, x, cotangent, **masks):
    def of_one(x, cotangent, masks):
        return outcome(layer, variables, x, cotangent, False, **masks)

    return of_one, (x, cotangent, masks)


@norms
@pytest.mark.parametrize("how", ["vmap", "pmap", "shard_map"])
def test_moments_along_a_named_axis_are_those_of_flax(norm, how):
    x, cotangent = draw(DEVICES, 4, 3, 2), draw(DEVICES, 4, 3, 2, seed=1)
    results = []
    for layer in (like_flax(norm, axis_name="devices"), nn.BatchNorm(axis_name="devices")):
        variables = layer.init(jax.random.key(0), x[0], use_running_average=False)
        function, arguments = divided(layer, variables, x, cotangent)
        results.append(over_devices(how, function)(*arguments))
    ((params, to_x), (y, stats)), ((their_params, their_to_x), (their_y, their_stats)) = results
    close(y, their_y)
    close(to_x, their_to_x)
    for ours, theirs in ((stats, their_stats), (params, their_params)):
        for name, value in theirs.items():
            close(ours[name], value, rtol=1e-4, atol=1e-4)


@norms
@pytest.mark.parametrize("how", ["vmap", "pmap", "shard_map"])
@pytest.mark.parametrize("masked", [False, True])
def test_devices_with_different_rows_share_the_moments_of_all(norm, how, masked):
    """One device has no natural row, one no noise, one only padding."""
    shape = (DEVICES, 4, 3, 2)
    x, cotangent = draw(*shape), draw(*shape, seed=1)
    noise = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]], bool)
    valid = np.array([[1, 1, 1, 0], [1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    masks = {"noise_mask": noise, "valid": valid}
    if masked:
        masks["mask"] = np.random.default_rng(5).random((DEVICES, 4, 3, 1)) < 0.7
    cotangent = np.where(valid[..., None, None], cotangent, 0)
    layer = norm(axis_name="devices")
    variables = layer.init(jax.random.key(0), x[0])
    together = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (x, cotangent, masks))
    (params, to_x), (y, stats) = outcome(
        norm(), variables, together[0], together[1], False, **together[2]
    )
    function, arguments = divided(layer, variables, x, cotangent, **masks)
    (their_params, their_to_x), (their_y, their_stats) = over_devices(how, function)(*arguments)
    real = valid.reshape(-1)
    close(np.reshape(their_y, y.shape)[real], y[real])
    close(np.reshape(their_to_x, y.shape), to_x)
    for name, value in stats.items():
        close(their_stats[name], np.broadcast_to(value, (DEVICES, 2)))
    for name, value in params.items():
        close(np.sum(their_params[name], axis=0), value, rtol=1e-4, atol=1e-4)


@norms
def test_groups_along_a_named_axis_share_moments_among_themselves(norm):
    x, cotangent = draw(DEVICES, 4, 3, 2), draw(DEVICES, 4, 3, 2, seed=1)
    results = []
    for layer in (like_flax(norm), nn.BatchNorm()):
        layer = layer.clone(axis_name="devices", axis_index_groups=GROUPS)
        variables = layer.init(jax.random.key(0), x[0], use_running_average=False)
        function, arguments = divided(layer, variables, x, cotangent)
        results.append(over_devices("pmap", function)(*arguments)[1])
    (y, stats), (their_y, their_stats) = results
    close(y, their_y)
    for name, value in their_stats.items():
        close(stats[name], value)
    assert not np.allclose(stats["mean"][0], stats["mean"][2])
    close(stats["mean"][0], stats["mean"][1])


@norms
def test_without_a_name_every_device_has_its_own_moments(norm):
    """As in Flax, only the name makes moments global."""
    x = draw(2, 4, 3, 2)
    layer = norm()
    variables = layer.init(jax.random.key(0), x[0])
    apply = partial(layer.apply, variables, mutable=["batch_stats"])
    _, new = jax.vmap(apply, axis_name="devices")(x)
    close(new["batch_stats"]["mean"], 0.1 * x.mean((1, 2)))


@norms
def test_initialisation_needs_no_named_axis_even_if_a_layer_is_called_twice(norm):
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = norm(name="norm", use_running_average=False, axis_name="devices")
            x = layer(x)
            return x, layer(x)

    (once, twice), _ = Twice().init_with_output(jax.random.key(0), draw(16, 4))
    close(once, twice, rtol=0.005)


@norms
def test_the_call_signature_is_that_of_flax(norm):
    x = draw(6, 4, 3)
    layer = norm(None, -1, 0.99)
    assert (layer.use_running_average, layer.axis, layer.momentum) == (None, -1, 0.99)
    variables = layer.init(jax.random.key(0), x)
    close(layer.apply(variables, x, use_running_average=True), x, rtol=1e-4)
    with pytest.raises(DataError, match=r"^noise_mask must be bool\[6\], got bool\[\]"):
        layer.apply(variables, x, True)


@norms
@pytest.mark.parametrize("axis", [3, -4, (0, 1, 2), (0, 3), ()])
def test_illegal_axes_are_refused(norm, axis):
    with pytest.raises(ConfigError, match=r"^axis=.* must name feature axes of x\[6, 4, 3\]"):
        norm(axis=axis).init(jax.random.key(0), draw(6, 4, 3))


@norms
def test_illegal_inputs_are_refused(norm):
    with pytest.raises(DataError, match=r"^x must be real, got complex64\[6, 4, 3\]"):
        norm().init(jax.random.key(0), draw(6, 4, 3, dtype=np.complex64))
    with pytest.raises(ConfigError, match=r"axis=-1 .* x\[6\] and leave one for its rows"):
        norm().init(jax.random.key(0), draw(6))
    for mask in (np.ones(6, bool), np.ones((6, 4, 3)), np.ones((6, 4, 2), bool), np.array(True)):
        with pytest.raises(DataError, match=r"^mask must be bool with an axis for each of x\[6, 4"):
            norm().init(jax.random.key(0), draw(6, 4, 3), mask=mask)
