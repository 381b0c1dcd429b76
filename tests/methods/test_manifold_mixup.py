"""Mixup and manifold mixup: losses against numpy, pairs of rows, places, and other methods."""

import itertools
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.config.fields import default_config
from purenoise_jax.config.validation import validate
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.class_balanced_weights import effective_weights
from purenoise_jax.methods.mixing import draw_partners, draw_share, mixed_loss
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Recipe, supervised
from purenoise_jax.models import create_model
from purenoise_jax.models.places import PLACES
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.train_step import Inputs
from tests.linear_step import (
    COUNTS,
    STATS,
    cross_entropy_gradient,
    data,
    run,
    softmax,
    state_of,
    step_of,
)
from tests.tiny import TinyNet, tiny_config, write_npz

VALID = np.arange(7) < 5
# The keys of the first step of a run with seed 0.
SHARE_KEY, PARTNER_KEY, _ = rng.split(rng.at(rng.stream(0, "objective"), 0), 3)


def batch_of(images, labels, valid, noise=None):
    batch = {
        "image": jnp.asarray(images, jnp.float32),
        "label": jnp.asarray(labels),
        "target": jnp.eye(3)[labels],
        "valid": jnp.asarray(valid),
    }
    return batch if noise is None else {**batch, "noise_mask": jnp.asarray(noise)}


def outcome(batch, kernel, recipe=None, place="input", **given):
    """Computes `mixed_loss` of the linear network."""
    recipe = recipe or Recipe()
    step, state = step_of(recipe), state_of(kernel, recipe)
    networks = step.networks(state.params, state, Inputs(None, None), batch)
    return mixed_loss(recipe, networks, batch, **{"places": (place,), "drawn": 0, **given})


def mixtures(images, labels, alpha, valid=VALID):
    """Computes by hand the valid rows' features, labels and partners' labels, and the share."""
    share = float(draw_share(SHARE_KEY, alpha))
    partner = np.asarray(draw_partners(PARTNER_KEY, {"valid": jnp.asarray(valid)}))
    features = images.reshape(len(images), -1) / 255
    mixed = share * features + (1 - share) * features[partner]
    return mixed[valid], labels[valid], labels[partner][valid], share


@pytest.mark.parametrize("method", ["mixup", "manifold_mixup"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_against_numpy(method, weighted):
    images, labels, kernel = data(rows=7)
    arguments = {"drw": {"beta": 0.9}, "mixup": {"alpha": 0.7}}
    # A linear network mixes features as it mixes images.
    arguments["manifold_mixup"] = {"alpha": 0.7, "places": ("features", "input")}
    names = ["drw", method] if weighted else [method]
    _, sums, grads = run(build_recipe(names, STATS, arguments), images, labels, kernel, VALID)
    mixed, own, other, share = mixtures(images, labels, 0.7)
    assert (own != other).any() and 0.5 <= share < 0.99
    of_class = effective_weights(COUNTS, 0.9) if weighted else np.ones(3)
    weights = np.concatenate([share * of_class[own], (1 - share) * of_class[other]])
    both = np.concatenate([mixed, mixed]), np.concatenate([own, other])
    expected = cross_entropy_gradient(*both, kernel, weights)
    np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-6)
    nll = -np.log(softmax(both[0] @ kernel))[np.arange(10), both[1]]
    np.testing.assert_allclose(sums.row_loss / 5, (nll * weights).sum() / weights.sum(), rtol=1e-5)
    assert sums.correct == ((mixed @ kernel).argmax(axis=1) == own).sum()


def test_a_share_of_one_is_the_default_objective():
    images, labels, kernel = data(rows=7)
    batch = batch_of(images / 255, labels, np.ones(7, bool))
    step, state = step_of(Recipe()), state_of(kernel, Recipe())
    networks = step.networks(state.params, state, Inputs(None, None), batch)
    expected = supervised(Recipe(), networks, batch, rng.root(0))
    found = outcome(batch, kernel, share=jnp.ones(()), partner=jnp.arange(7)[::-1])
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_mixture_is_that_of_its_partner_with_the_rest_of_the_share():
    """Because of this symmetry, `draw_share` may take the larger share."""
    images, labels, kernel = data(rows=7)
    batch = batch_of(images / 255, labels, np.ones(7, bool))
    recipe = build_recipe(["ldam", "drw"], STATS, {"drw": {"beta": 0.9}})
    partner = np.random.default_rng(1).permutation(7)
    one = outcome(batch, kernel, recipe, share=jnp.float32(0.8), partner=jnp.asarray(partner))
    inverse = jnp.asarray(np.argsort(partner))
    two = outcome(batch, kernel, recipe, share=jnp.float32(0.2), partner=inverse)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b[partner], rtol=1e-5, atol=1e-6)


# By hand: 1/2 + E|x - 1/2|, which is 1/4 of a uniform number and 3/16 of Beta(2, 2).
@pytest.mark.parametrize(("alpha", "mean"), [(1.0, 0.75), (2.0, 0.6875), (0.001, 1.0), (1e38, 0.5)])
def test_the_distribution_of_shares(alpha, mean):
    keys = rng.split(rng.root(0), 4000)
    shares = np.asarray(jax.jit(jax.vmap(lambda key: draw_share(key, alpha)))(keys))
    assert shares.dtype == np.float32 and shares.min() >= 0.5 and shares.max() <= 1
    np.testing.assert_allclose(shares.mean(), mean, atol=0.01)


def test_partners_are_of_the_same_kind_in_all_permutations():
    noise = np.array([1, 0, 0, 1, 0, 0, 1, 1], bool)
    valid = np.array([1, 1, 1, 0, 1, 0, 1, 0], bool)
    kinds = [np.flatnonzero(k) for k in (valid & ~noise, valid & noise, ~valid)]
    draw = jax.jit(jax.vmap(lambda key: draw_partners(key, {"valid": valid, "noise_mask": noise})))
    drawn = np.asarray(draw(rng.split(rng.root(0), 1200)))
    for kind in kinds:
        orders, counts = np.unique(drawn[:, kind], axis=0, return_counts=True)
        assert orders.tolist() == [list(order) for order in itertools.permutations(kind)]
        np.testing.assert_allclose(counts, 1200 / len(orders), rtol=0.2)
    one = {"valid": np.ones(3, bool), "noise_mask": np.array([False, True, False])}
    assert all(draw_partners(rng.root(i), one)[1] == 1 for i in range(5)), "a row alone stays so"


@pytest.mark.slow
def test_noise_rows_pass_the_norms_as_noise():
    images, labels, _ = data(rows=7)
    model = TinyNet(num_classes=3)
    variables = model.init(rng.root(0), jnp.zeros((1, 2, 2, 3)), train=False)
    batch = batch_of(images / 255, labels, VALID, np.arange(7) % 2 == 1)
    networks = [
        Networks(model, lambda x: x, variables["params"], variables["batch_stats"],
                 valid=batch["valid"], dropout_key=rng.root(0))
        for _ in range(2)
    ]  # fmt: skip
    expected = supervised(Recipe(), networks[0], batch, rng.root(0))
    given = {"share": jnp.ones(()), "partner": draw_partners(rng.root(0), batch)}
    found = mixed_loss(Recipe(), networks[1], batch, places=("input",), drawn=0, **given)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    stats = [networks.batch_stats for networks in networks]
    jax.tree.map(np.testing.assert_array_equal, *stats)


class Recording:
    """Networks that record the input and the output of each place."""

    def __init__(self, model, variables, train=False):
        self.apply = partial(model.apply, variables, train=train)
        self.seen = {}

    def forward(self, images, noise_mask=None, *, mix):
        def record(place, x):
            self.seen[place] = (x, mix(place, x))
            return self.seen[place][1]

        return self.apply(images, noise_mask, None, mix=record)


@pytest.mark.parametrize(("name", "dtype"), [("resnet8", "float32"), ("wrn10_1", "bfloat16")])
def test_mixing_at_a_place_changes_only_later_places(name, dtype):
    model = create_model(name, num_classes=3, norm="bn", dtype=dtype)
    images = np.random.default_rng(0).uniform(0, 1, (4, 8, 8, 3))
    variables = jax.jit(partial(model.init, train=False))(rng.root(0), jnp.zeros((1, 8, 8, 3)))
    batch = batch_of(images, np.array([0, 1, 2, 0]), np.ones(4, bool))
    partner, share = jnp.array([2, 0, 3, 1]), jnp.float32(0.7)

    @jax.jit
    def look(drawn):
        networks = Recording(model, variables)
        given = {"share": share, "partner": partner, "places": model.places, "drawn": drawn}
        logits = mixed_loss(Recipe(), networks, batch, **given).logits
        assert list(networks.seen) == list(model.places), "in order"
        return logits, networks.seen

    plain_logits, plain = look(len(model.places))
    for drawn, chosen in enumerate(model.places):
        logits, seen = look(drawn)
        for i, place in enumerate(model.places):
            x, left = (np.asarray(a, np.float64) for a in seen[place])
            assert seen[place][0].dtype == seen[place][1].dtype
            np.testing.assert_equal((x == np.asarray(plain[place][0])).all(), i <= drawn, place)
            if place == chosen:
                rounding = 1e-2 if seen[place][0].dtype == jnp.bfloat16 else 1e-5
                by_hand = 0.7 * x + 0.3 * x[np.asarray(partner)]
                np.testing.assert_allclose(left, by_hand, rtol=rounding, atol=rounding)
            else:
                np.testing.assert_array_equal(left, x)
        assert (logits != plain_logits).any()


def test_every_place_is_drawn_and_no_other():
    images, labels, kernel = data(rows=7)
    batch, counts = batch_of(images / 255, labels, np.ones(7, bool)), {}
    # "stage1" is no place of the linear network, and is drawn in a third of the steps.
    for places in (("features",), ("input", "stage1", "features")):
        recipe = build_recipe(["manifold_mixup"], STATS, {"manifold_mixup": {"places": places}})
        assert recipe.places == places
        model = step_of(recipe).model
        kernels = {"params": {"head": {"kernel": jnp.asarray(kernel)}}}
        counts[places] = {"input": 0, "features": 0}
        for i in range(30):
            networks = Recording(model, kernels)
            recipe.objective(recipe, networks, batch, rng.root(i))
            for place, (x, left) in networks.seen.items():
                counts[places][place] += bool((x != left).any())
    assert counts[("features",)] == {"input": 0, "features": 30}
    assert all(4 <= n <= 16 for n in counts[("input", "stage1", "features")].values())


@pytest.mark.parametrize("weights", [None, "drw"])
@pytest.mark.parametrize("name", ["sam_a", "imbsam"])
def test_an_ascent_by_class_weighs_both_labels(name, weights):
    images, labels, kernel = data(rows=7)
    arguments = {"sam_a": {"rho": 0.4}, "imbsam": {"rho": 0.4, "eta": 10}, "mixup": {"alpha": 1.0}}
    methods = [name, "mixup", *([weights] if weights else [])]
    _, _, grads = run(build_recipe(methods, STATS, arguments), images, labels, kernel, VALID)
    mixed, own, other, share = mixtures(images, labels, 1.0)
    both = np.concatenate([mixed, mixed]), np.concatenate([own, other])
    shares = np.repeat([share, 1 - share], 5)
    of_class = effective_weights(COUNTS, 0.9999) if weights else np.ones(3)
    rows = shares * of_class[both[1]]

    def gradient(kernel, factors):
        found = cross_entropy_gradient(*both, kernel, rows * factors)
        return found * (rows * factors).sum() / rows.sum()

    if name == "sam_a":
        up = cross_entropy_gradient(*both, kernel, shares * (COUNTS.max() / COUNTS)[both[1]])
        expected = gradient(kernel + 0.4 * up / np.linalg.norm(up), 1)
    else:
        tail = both[1] > 0
        up = gradient(kernel, tail)
        expected = gradient(kernel, ~tail) + gradient(kernel + 0.4 * up / np.linalg.norm(up), tail)
    np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-6)


def test_another_objective_is_refused_by_name():
    message = "methods mixup and manifold_mixup both set objective of a step"
    with pytest.raises(ConfigError, match=message):
        build_recipe(["mixup", "drw", "manifold_mixup"], STATS, {})


def test_the_networks_have_the_places_that_a_config_may_name():
    for name in ("resnet8", "wrn10_1"):
        places = create_model(name, num_classes=3).places
        assert places == tuple(place for place in PLACES if place != "stage4")
    for name in ("resnet18", "densenet121_cifar", "resnet12"):
        assert create_model(name, num_classes=3).places == PLACES
    config = default_config()
    config.phases.initial.methods = ("manifold_mixup",)
    validate(config)
    config.method.manifold_mixup.places = ("stage5",)
    with pytest.raises(ConfigError, match=r"method\.manifold_mixup\.places=\('stage5',\) is not"):
        validate(config)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def test_a_network_without_a_named_place_is_refused(npz, monkeypatch):
    config = tiny_config(npz, **{"phases.deferred.methods": ("manifold_mixup",)})
    message = (
        "model.name=tiny has no place stage1, stage2, where the phase of manifold_mixup from epoch "
        "2 mixes activations; its places: input, features"
    )
    with pytest.raises(ConfigError) as error:
        build(config)
    assert str(error.value) == message
    config.method.manifold_mixup.places = ("features", "input")
    assert build(config).phases[1].recipe.places == ("features", "input")
    monkeypatch.setattr(
        "purenoise_jax.training.build.create_model", lambda *_, **__: SimpleNamespace()
    )
    with pytest.raises(ConfigError, match="its places: none"):
        build(config)


@pytest.mark.slow
def test_it_trains_with_other_methods_and_resumes_bitwise(npz, tmp_path):
    methods = ("ldam", "drw", "open", "manifold_mixup", "sam", "ema")
    config = tiny_config(
        npz,
        **{"model.head": "cosine", "phases.deferred.methods": methods, "num_epochs": 3,
           "optimizer.milestones": (), "checkpoint.every_steps": 1, "checkpoint.keep": 9,
           "method.manifold_mixup.places": ("input", "features")},
    )  # fmt: skip
    validate(config)
    whole = train_and_evaluate(config, tmp_path / "run")
    for step in ("8", "9"):
        (tmp_path / "run/checkpoints" / step).rename(tmp_path / step)
    again = train_and_evaluate(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    config.method.manifold_mixup.alpha = 0.0
    other = train_and_evaluate(config, tmp_path / "other")
    assert (other.params["conv"]["kernel"] != whole.params["conv"]["kernel"]).any()
