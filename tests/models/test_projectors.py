"""Projectors: their outputs, the rows that enter their norms, and the network beside them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from purenoise_jax.config.fields import FIELDS, default_config
from purenoise_jax.config.identity import config_hash
from purenoise_jax.models import HEADS, MODELS, PROJECTORS, create_model
from purenoise_jax.models.network import Network
from purenoise_jax.models.projectors import VICReg
from purenoise_jax.runtime.errors import ConfigError

KEY = jax.random.key(0)
MADE = [name for name in PROJECTORS if name != "none"]
LAYERS = {
    "vicreg": {"fc1/kernel": (64, 8), "fc2/kernel": (8, 8), "fc3/kernel": (8, 8),
               "bn1/scale": (8,), "bn1/bias": (8,), "bn2/scale": (8,), "bn2/bias": (8,)},
    "simclr": {"fc1/kernel": (64, 2048), "fc1/bias": (2048,), "fc2/kernel": (2048, 8), "fc2/bias": (8,)},
    "glmc": {"projection/kernel": (64, 8), "projection/bias": (8,), "prediction/kernel": (8, 8),
             "prediction/bias": (8,), "plain_head/fc/kernel": (64, 3), "plain_head/fc/bias": (3,)},
}  # fmt: skip


class Flat(Network, kw_only=True):
    """The smallest network with the frame of all others."""

    places = ("input", "features")

    def stages(self, x, rows, norm, *, train, mix):
        x = nn.Conv(4, (2, 2), padding="VALID", use_bias=False, name="conv")(x)
        return norm(name="norm", relu=True)(x, *rows)


@pytest.fixture
def flat(monkeypatch):
    monkeypatch.setitem(MODELS, "flat", Flat)


def shapes_of(model, **masks):
    image = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32)
    call = partial(model.init_with_output, train=True)
    return jax.eval_shape(call, {"params": KEY, "dropout": KEY}, image, **masks)


@pytest.mark.parametrize("projector", MADE)
def test_the_outputs_and_parameters_of_a_projector(projector):
    plain_result, plain = shapes_of(create_model("resnet8", num_classes=3, dtype="bfloat16"))
    model = create_model(
        "resnet8", num_classes=3, dtype="bfloat16", projector=projector, projector_width=8
    )
    (logits, outputs), variables = shapes_of(model)
    params = dict(variables["params"])
    layers = flatten_dict(params.pop("projector"), sep="/")
    assert {name: leaf.shape for name, leaf in layers.items()} == LAYERS[projector]
    assert params == plain["params"] and logits == plain_result[0]
    assert outputs["projection"].shape == (4, 8)
    rest = set(outputs) - {"features", "projection"}
    assert rest == ({"prediction", "plain_logits"} if projector == "glmc" else set())
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, layers))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("projector", "width"), [("vicreg", 2048), ("simclr", 128), ("glmc", 128)])
def test_default_widths_and_the_head_of_the_second_classifier(projector, width):
    model = create_model("resnet8", num_classes=3, projector=projector, head="cosine")
    (_, outputs), variables = shapes_of(model)
    assert outputs["projection"].shape == (4, width)
    if projector == "glmc":
        assert list(variables["params"]["projector"]["plain_head"]) == ["kernel"]


@pytest.mark.slow
def test_a_network_begins_and_computes_as_without_a_projector(flat):
    x = jax.random.normal(KEY, (3, 4, 4, 3))
    results = []
    for projector in PROJECTORS:
        model = create_model("flat", num_classes=3, projector=projector)
        variables = model.init(KEY, x, train=False)
        (logits, outputs), updated = model.apply(variables, x, train=True, mutable=["batch_stats"])
        params, stats = dict(variables["params"]), dict(updated["batch_stats"])
        params.pop("projector", None)
        stats.pop("projector", None)
        results.append((params, stats, logits, outputs["features"]))
    for other in results[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, results[0])


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["bn", "aux_bn", "dar_bn"])
def test_noise_and_padding_enter_no_moment_of_a_projector(flat, norm):
    """The projections of natural rows are those of a batch of them alone, given their features."""
    features = jax.random.normal(KEY, (7, 6))
    natural = np.array([1, 0, 1, 1, 1, 0, 1], bool)
    layers = VICReg(head=HEADS["linear"], width=5)
    variables = layers.init(KEY, features, natural, train=True)
    call = partial(layers.apply, variables, train=True, mutable=["batch_stats"])
    expected, stats = call(features[natural], natural[natural])
    for fill in (50.0, np.nan):
        filled = jnp.where(natural[:, None], features, fill)
        found, updated = call(filled, natural)
        np.testing.assert_allclose(
            found["projection"][natural], expected["projection"], rtol=1e-4, atol=1e-6
        )
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), updated, stats)

        def loss(params, filled=filled):
            new = {**variables, "params": params}
            out, _ = layers.apply(new, filled, natural, train=True, mutable=["batch_stats"])
            return jnp.where(natural[:, None], out["projection"], 0).sum()

        grads = jax.grad(loss)(variables["params"])
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    # A network hands its masks on, and the projector has no auxiliary layers.
    model = create_model("flat", num_classes=3, norm=norm, projector="vicreg", projector_width=4)
    x = jax.random.normal(KEY, (7, 4, 4, 3))
    variables = model.init(KEY, x, train=False)
    noise, valid = np.arange(7) == 1, np.arange(7) != 5
    (_, one), new = model.apply(variables, x, noise, valid, train=True, mutable=["batch_stats"])
    projector = {name: variables[name]["projector"] for name in ("params", "batch_stats")}
    two, expected = VICReg(head=HEADS["linear"], width=4).apply(
        projector, one["features"], valid & ~noise, train=True, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(one["projection"], two["projection"], rtol=1e-5, atol=1e-6)
    found = new["batch_stats"]["projector"]
    jax.tree.map(np.testing.assert_array_equal, found, expected["batch_stats"])
    assert set(found) == {"bn1", "bn2"} and set(found["bn1"]) == {"mean", "var"}


def test_the_expander_against_numpy():
    draw = np.random.default_rng(0)
    features = draw.normal(0, 1, (6, 4))
    layers = VICReg(head=HEADS["linear"], width=3)
    variables = layers.init(KEY, jnp.asarray(features), np.ones(6, bool), train=True)
    params = jax.tree.map(lambda x: draw.normal(0.5, 1, x.shape), variables["params"])
    x = features
    for i in (1, 2):
        x = x @ params[f"fc{i}"]["kernel"]
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        x = np.maximum(x * params[f"bn{i}"]["scale"] + params[f"bn{i}"]["bias"], 0)
    variables = {**variables, "params": jax.tree.map(jnp.float32, params)}
    found, _ = layers.apply(
        variables, jnp.float32(features), np.ones(6, bool), train=True, mutable=["batch_stats"]
    )
    expected = x @ params["fc3"]["kernel"]
    np.testing.assert_allclose(found["projection"], expected, rtol=1e-4, atol=1e-5)


def test_illegal_projectors_are_refused():
    with pytest.raises(ConfigError, match=r"model\.projector='vicrge' is unknown; legal: none, v"):
        create_model("resnet8", num_classes=3, projector="vicrge")
    with pytest.raises(
        ConfigError, match=r"projector_width=9 has no effect with model\.projector="
    ):
        create_model("resnet8", num_classes=3, projector_width=9)


def test_runs_without_a_projector_keep_their_hash():
    for path, value in (("model.projector", "none"), ("model.projector_width", 0)):
        assert FIELDS[path].absent == FIELDS[path].default == value
    config = default_config()
    before = config_hash(config)
    config.model.projector = "glmc"
    assert config_hash(config) != before
