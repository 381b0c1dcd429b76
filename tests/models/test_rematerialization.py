"""Rematerialisation against the same network without it: results, variables, kept activations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.config.identity import config_hash, fixed_fields
from purenoise_jax.models import MODELS, NORMS, REMATS
from purenoise_jax.models.dropout import without_dropout
from purenoise_jax.models.norm import BatchNorm
from purenoise_jax.models.norm_inputs import norm_inputs
from purenoise_jax.models.rematerialization import rematerialized, without_remat
from purenoise_jax.training import build as build_module
from tests.models.golden_values import QUICK
from tests.models.test_network_goldens import NARROW, shapes_of
from tests.tiny import tiny_config

ROWS, SIZE = 6, 12
NOISE, VALID = np.arange(ROWS) < 2, np.arange(ROWS) < ROWS - 1
SAVING = tuple(name for name in REMATS if name != "none")
# With dropout, a norm and a convolution outside of the blocks.
wide = partial(MODELS["wrn10_1"], num_classes=5)

QUICK_CASES = ("grouped", "wrn10_1")
CASES = [
    *QUICK_CASES,
    *(pytest.param(case, marks=pytest.mark.slow) for case in NARROW if case not in QUICK_CASES),
]


def network(remat, norm="dar_bn", make=wide):
    return make(norm=NORMS[norm], remat=remat)


@pytest.fixture(scope="module")
def variables():
    image = jnp.zeros((1, SIZE, SIZE, 3))
    return jax.jit(partial(network("none", "aux_bn").init, train=False), compiler_options=QUICK)(
        jax.random.key(0, impl="rbg"), image
    )


def images():
    normal = np.random.default_rng(0).standard_normal((ROWS, SIZE, SIZE, 3)).astype(np.float32)
    # Padding may hold anything.
    normal[~VALID] = np.nan
    return np.where(VALID[:, None, None, None], normal, 0)


def loss(net, params, stats, train=True):
    (logits, _), updated = net.apply(
        {"params": params, "batch_stats": stats},
        images(),
        NOISE,
        VALID,
        train=train,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(3)},
    )
    return jnp.where(VALID, jax.nn.logsumexp(logits, 1) - logits[:, 0], 0).sum(), updated


def results(net, variables, train=True):
    """The loss, the statistics after the step, and the gradient."""
    run = partial(jax.value_and_grad(partial(loss, net), has_aux=True), train=train)
    call = jax.jit(run, compiler_options=QUICK)
    (value, stats), grads = call(variables["params"], variables["batch_stats"])
    return np.asarray(value), jax.device_get(stats), jax.device_get(grads)


@pytest.mark.parametrize(
    "norm", ["dar_bn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bn", "aux_bn"))]
)
def test_a_norm_has_the_same_results(norm):
    """Its derivatives are written by hand, and are called when the forward pass is over."""
    x = np.random.default_rng(1).standard_normal((ROWS, 3, 3, 2)).astype(np.float32)
    made = [make(NORMS[norm])(relu=True) for make in (lambda kind: kind, rematerialized)]
    variables = made[0].init(jax.random.key(0), x)

    def run(layer):
        def total(params, x):
            every = {**variables, "params": params}
            y, updated = layer.apply(every, x, NOISE, VALID, mutable=["batch_stats"])
            return jnp.where(VALID[:, None, None, None], jnp.sin(y), 0).sum(), updated

        call = jax.jit(
            jax.value_and_grad(total, argnums=(0, 1), has_aux=True), compiler_options=QUICK
        )
        return call(variables["params"], x)

    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), *map(run, made))


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("norm", ["dar_bn", "aux_bn"])
def test_results_are_those_without(variables, norm, train):
    """The loss to the last bit, so dropout has the same keys; the gradient up to rounding."""
    if norm != "aux_bn":
        variables = {
            part: {k: _without_aux(v) for k, v in tree.items()} for part, tree in variables.items()
        }
    value, stats, grads = results(network("none", norm), variables, train)
    if train:
        dry, _, _ = results(without_dropout(network("none", norm)), variables)
        assert dry != value, "the loss depends on dropout"
    for remat in SAVING:
        found, *rest = results(network(remat, norm), variables, train)
        np.testing.assert_array_equal(found, value)
        assert np.isfinite(found)
        largest = max(np.abs(x).max() for x in jax.tree.leaves(grads))
        for actual, expected in zip(rest, (stats, grads), strict=True):
            jax.tree.map(
                partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6 * largest),
                actual,
                expected,
            )


def _without_aux(tree):
    if not isinstance(tree, dict):
        return tree
    return {k: _without_aux(v) for k, v in tree.items() if not k.startswith("aux_")}


@pytest.mark.parametrize("remat", SAVING)
@pytest.mark.parametrize("case", CASES)
def test_variables_have_the_same_names_and_shapes(case, remat):
    size, make = NARROW.get(case, (SIZE, MODELS["wrn10_1"]))
    nets = (make(num_classes=5, norm=NORMS["aux_bn"], remat=each) for each in (remat, "none"))
    shapes, expected = (shapes_of(net, size) for net in nets)
    assert {k: v.shape for k, v in shapes.items()} == {k: v.shape for k, v in expected.items()}


@pytest.mark.parametrize("case", CASES)
def test_each_norm_or_each_block_is_computed_again(case):
    size, make = NARROW.get(case, (SIZE, MODELS["wrn10_1"]))
    image = jax.ShapeDtypeStruct((ROWS, size, size, 3), jnp.float32)
    counts = {}
    for remat in REMATS:
        net = make(num_classes=5, norm=NORMS["dar_bn"], remat=remat)
        shapes = shapes_of(net, size)

        def forward(variables, x, net=net):
            keys = {"dropout": jax.random.key(0)}
            return net.apply(variables, x, train=True, mutable=["batch_stats"], rngs=keys)

        tree = {part: {} for part in ("params", "batch_stats")}
        for path, leaf in shapes.items():
            node = tree
            for name in path[:-1]:
                node = node.setdefault(name, {})
            node[path[-1]] = leaf
        jaxpr = jax.make_jaxpr(forward)(tree, image).jaxpr
        counts[remat] = sum(eqn.primitive.name in ("checkpoint", "remat2") for eqn in jaxpr.eqns)
    norms = sum(path[-1] == "mean" for path in shapes)
    blocks = {path[1] for path in shapes if "block" in path[1] or "transition" in path[1]}
    assert counts == {"none": 0, "norm": norms, "block": len(blocks)}


@pytest.mark.slow
def test_fewer_activations_are_kept(variables):
    """In the function that JAX returns for the backward pass."""
    params, stats = (
        {k: _without_aux(v) for k, v in variables[part].items()}
        for part in ("params", "batch_stats")
    )
    kept = {}
    for remat in REMATS:
        call = partial(loss, network(remat))
        backward = jax.eval_shape(
            lambda p, call=call: jax.vjp(lambda p: call(p, stats)[0], p)[1], params
        )
        kept[remat] = sum(leaf.size for leaf in jax.tree.leaves(backward))
    assert kept["block"] < kept["norm"] < kept["none"], kept


def test_inputs_of_norms_are_seen_without_it(variables):
    seen = {
        remat: norm_inputs(network(remat, "aux_bn"), variables, images(), train=False)
        for remat in ("none", "block")
    }
    assert list(seen["none"]) == list(seen["block"])
    for name, array in seen["none"].items():
        np.testing.assert_array_equal(array, seen["block"][name])
    net = network("block")
    assert without_remat(net) == network("none") and without_remat(network("none")).remat == "none"


def test_a_class_stays_one_class():
    again = rematerialized(BatchNorm)
    assert again is rematerialized(BatchNorm) and issubclass(again, BatchNorm)
    made = rematerialized(partial(partial(BatchNorm, relu=True), momentum=0.5))
    assert (made().relu, made().momentum) == (True, 0.5)


def test_the_field_reaches_the_network_and_belongs_to_the_definition_of_a_run(monkeypatch):
    given = {}
    monkeypatch.setattr(build_module, "create_model", lambda name, **each: given.update(each))
    plain, saving = (tiny_config("x", **{"model.remat": each}) for each in ("none", "block"))
    build_module.make_model(saving, 4)
    assert given["remat"] == "block"
    assert "model.remat" not in fixed_fields(plain)
    assert config_hash(plain) != config_hash(saving)
