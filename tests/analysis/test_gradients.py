"""The figures of activations around a norm and of gradients by class, with and without noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.analysis import activations, gradients, noise_features
from purenoise_jax.analysis.features import training_batches
from purenoise_jax.analysis.figure_style import Options
from purenoise_jax.analysis.figures import FIGURES
from purenoise_jax.analysis.gradients import Directions, row_gradient
from purenoise_jax.data.pixels import normalize
from purenoise_jax.inference.network import Network
from purenoise_jax.models import create_model
from purenoise_jax.models.norm_inputs import norm_inputs
from purenoise_jax.runtime.errors import ConfigError
from tests.tiny_run import changed, train_tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def network(run):
    return Network(run)


@pytest.fixture(scope="module")
def batches(run):
    found = training_batches(run, ("open",), 3, 0)
    assert any(batch["noise_mask"].any() for batch in found)
    return found


@pytest.mark.parametrize(
    ("model", "second", "channels"),
    [("resnet8", "stage1_block0/bn1", 16), ("wrn10_2", "stage1_block0/bn2", 32)],
)
def test_the_inputs_of_all_norms_are_captured(model, second, channels):
    net = create_model(model, num_classes=3)
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = net.init(jax.random.key(1), images, train=False)
    seen = norm_inputs(net, variables, images, train=False)
    assert activations.layer_of(list(seen)) == second and seen[second].shape == (4, 8, 8, channels)
    assert len(seen) == len(jax.tree.leaves(variables["batch_stats"])) / 2
    # The first norm of either net reads the first convolution.
    kernel = variables["params"]["conv0"]["kernel"]
    conv = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(seen[next(iter(seen))], conv, atol=1e-4)


def test_both_norms_standardise_all_rows_or_each_kind():
    rng = np.random.default_rng(0)
    noise = np.arange(24) % 3 == 0
    x = rng.normal(2, 3, (24, 6, 6, 5)).astype(np.float32)
    x[noise] = rng.normal(-4, 0.5, (8, 6, 6, 5))
    bn, dar = (
        np.asarray(y) for y in activations.normalize_both(jnp.asarray(x), jnp.asarray(noise))
    )
    over = (0, 1, 2)
    np.testing.assert_allclose(bn.mean(over), 0, atol=1e-4)
    np.testing.assert_allclose(bn.std(over), 1, atol=1e-4)
    assert (bn[noise].mean(over) < -0.5).all()
    for rows in (noise, ~noise):
        np.testing.assert_allclose(dar[rows].mean(over), 0, atol=1e-4)
        np.testing.assert_allclose(dar[rows].std(over), 1, atol=1e-4)
    seen = activations.summarize(activations.Stages(x, bn, dar, noise))
    assert seen["before"]["noise"]["mean"] == pytest.approx(x[noise].mean(), abs=1e-4)
    assert seen["before"]["natural"]["std"] == pytest.approx(x[~noise].std(), abs=1e-4)
    shift = np.abs(x[noise].mean(over) - x[~noise].mean(over)) / x.std(over)
    assert seen["shift"]["median"] == pytest.approx(np.median(shift), rel=1e-3)
    assert seen["shift"]["largest"] == pytest.approx(shift.max(), rel=1e-3)


def test_the_activations_figure(run, network):
    drawing = activations.draw([run, run], Options(seed=1))
    numbers = drawing.numbers["run"]
    assert numbers["layer"] == "norm" and sum(numbers["rows"].values()) == 16
    assert numbers["rows"]["noise"] > 0
    for kind in ("natural", "noise"):
        assert numbers["dar_bn"][kind]["mean"] == pytest.approx(0, abs=1e-3)
        assert numbers["dar_bn"][kind]["std"] == pytest.approx(1, abs=1e-2)
    share = {kind: rows / 16 for kind, rows in numbers["rows"].items()}
    pooled = sum(share[kind] * numbers["bn"][kind]["mean"] for kind in share)
    assert pooled == pytest.approx(0, abs=1e-3)
    squares = {k: numbers["bn"][k]["mean"] ** 2 + numbers["bn"][k]["std"] ** 2 for k in share}
    assert sum(share[k] * squares[k] for k in share) == pytest.approx(1, abs=1e-2)
    # The input of the layer is the convolution of the network's input.
    (batch,) = training_batches(run, ("open",), 1, 1)
    batch_builder = run.experiment.batch_builder
    x = jax.lax.conv_general_dilated(
        normalize(batch["image"], batch_builder.mean, batch_builder.std),
        network.state.params["conv"]["kernel"], (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    noise = np.asarray(batch["noise_mask"])
    assert numbers["before"]["noise"]["mean"] == pytest.approx(float(x[noise].mean()), abs=1e-4)
    assert len(drawing.figure.axes) == 6


def test_activations_without_noise_have_no_noise_numbers():
    x = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype(np.float32)
    numbers = activations.summarize(activations.Stages(x, x, x, np.zeros(4, bool)))
    assert numbers["dar_bn"]["noise"] == {"mean": None, "std": None} and "shift" not in numbers


@pytest.mark.parametrize("figure", [activations, gradients, noise_features])
def test_a_comparison_without_noise_rows_is_refused(run, figure):
    none = changed(run, **{"method.open.delta": 0.0})
    with pytest.raises(ConfigError, match=r"open puts no noise into \d batches"):
        figure.draw([none], Options())


def test_runs_with_additive_noise_have_no_images_of_pure_noise(run):
    added = changed(run, **{"method.open.additive_std": 0.3})
    with pytest.raises(ConfigError, match=r"additive_std=0.3, so this run adds noise to images"):
        noise_features.draw([added], Options())
    # Their training batches have rows with noise, which can be compared.
    assert gradients.draw([added], Options()).numbers["run"]["with"]["noise"]["all"] > 0


def test_appended_noise_is_compared_with_the_same_batches_without(tmp_path):
    appended = train_tiny(tmp_path, **{"phases.deferred.methods": ("append",)})
    numbers = gradients.draw([appended], Options(epoch=1)).numbers["run"]
    assert numbers["with"]["noise"]["head"] > 0
    assert numbers["ratio"]["head"]["magnitude"] != pytest.approx(1, abs=1e-3)
    seen = noise_features.draw([appended], Options()).numbers["run"]["training"]
    # A quarter of 16, and of the last batch's 13, rounded down: (4 + 4 + 3) in three batches.
    rows = sum(int(b["valid"].sum()) for b in training_batches(appended, ("append",), 8, 0))
    assert seen["natural_images"] + seen["noise_images"] == rows
    assert seen["noise_images"] == 4 + 4 + 3 + 4 + 4 + 3 + 4 + 4
    assert activations.draw([appended], Options()).numbers["run"]["dar_bn"]["noise"]["std"]


# Gradients


def test_direction_variance_is_0_for_one_direction_and_1_for_opposite_ones():
    def measured(*vectors):
        found = Directions()
        for x, y in vectors:
            found.add({"a": jnp.array([x]), "b": {"c": jnp.array([y])}})
        return found.magnitude, found.variance

    assert measured((3.0, 4.0), (6.0, 8.0)) == (7.5, pytest.approx(0, abs=1e-6))
    assert measured((3.0, 4.0), (-6.0, -8.0)) == (7.5, pytest.approx(1))
    # Two unit vectors at a right angle: their mean is 1 / sqrt(2) long.
    assert measured((5.0, 0.0), (0.0, 1.0)) == (3, pytest.approx(0.5))
    assert measured((0.0, 0.0), (3.0, 4.0)) == (2.5, None), "zero has a size, but no direction"
    zero_first = measured((0.0, 0.0), (3.0, 4.0), (6.0, 8.0))
    assert zero_first == (5, pytest.approx(0, abs=1e-6))
    assert measured() == (None, None)


def test_variance_is_that_of_the_unit_vectors():
    vectors = np.random.default_rng(0).normal(1, 1, (7, 5))
    found = Directions()
    for vector in vectors:
        found.add(jnp.asarray(vector, jnp.float32))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert found.variance == pytest.approx(units.var(axis=0).sum(), rel=1e-5)
    assert found.magnitude == pytest.approx(np.linalg.norm(vectors, axis=1).mean(), rel=1e-5)


def test_the_class_components_add_up_to_the_gradient_of_a_step(run, network, batches):
    batch, gradient = batches[2], row_gradient(network, 0)
    assert not batch["valid"].all(), "padding is part of what is tested"
    parts = [
        gradient(batch, (batch["label"] == label).astype(jnp.float32), 2) for label in range(4)
    ]
    total = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    batch_builder = run.experiment.batch_builder

    def mean_loss(params):
        (logits, _), _ = run.experiment.model.apply(
            {"params": params, "batch_stats": network.state.batch_stats},
            normalize(batch["image"], batch_builder.mean, batch_builder.std), batch["noise_mask"], batch["valid"],
            train=True, mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(jax.random.key(0), 2)},
        )  # fmt: skip
        log_probs = jax.nn.log_softmax(logits)[jnp.arange(16), batch["label"]]
        return -log_probs[:13].mean()

    expected = jax.grad(mean_loss)(network.state.params)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for name, leaf in jax.tree_util.tree_leaves_with_path(expected):
        seen = total
        for entry in name:
            seen = seen[entry.key]
        np.testing.assert_allclose(seen, leaf, atol=1e-5 * largest)


def test_measured_numbers_equal_numpys(network, batches):
    gradient, labels = row_gradient(network, 0), np.array([1, 3])
    numbers = gradients.measure(batches, gradient, [labels, np.array([0])])
    vectors = []
    for i, batch in enumerate(batches):
        rows = np.isin(np.asarray(batch["label"]), labels) & np.asarray(batch["valid"])
        tree = gradient(batch, jnp.asarray(rows, jnp.float32), i)
        leaves = [np.asarray(x).ravel() for x in jax.tree.leaves(tree["head"])]
        vectors.append(np.concatenate(leaves))
    sizes = np.linalg.norm(vectors, axis=1)
    assert numbers["head"]["magnitude"][0] == pytest.approx(sizes.mean(), rel=1e-5)
    units = np.array(vectors) / sizes[:, None]
    assert numbers["head"]["variance"][0] == pytest.approx(units.var(axis=0).sum(), rel=1e-4)
    for part in ("all", "backbone", "head"):
        assert len(numbers[part]["variance"]) == 2
        assert all(0 <= value <= 1 for value in numbers[part]["variance"])
    assert numbers["all"]["magnitude"][0] > numbers["head"]["magnitude"][0]


@pytest.mark.parametrize("noise_grad", ["affine_stop", "full_stop", "none"])
def test_under_full_stop_noise_reaches_only_the_head(run, noise_grad):
    stopped = changed(run, **{"model.noise_grad": noise_grad})
    numbers = gradients.draw([stopped], Options()).numbers["run"]
    assert numbers["noise_grad"] == noise_grad
    seen = numbers["with"]["noise"]
    assert seen["head"] > 0
    assert (seen["backbone"] == 0) is (noise_grad == "full_stop")
    assert numbers["without"]["noise"] == {"all": None, "backbone": None, "head": None}


def test_the_gradients_figure(run):
    drawing = gradients.draw([run, run], Options(epoch=1))
    numbers = drawing.numbers["run"]
    assert numbers["epoch"] == 1 and numbers["classes"] == [[0], [1], [2], [3]]
    for part in ("all", "backbone", "head"):
        for name in ("magnitude", "variance"):
            below, above = (np.array(numbers[r][part][name]) for r in ("without", "with"))
            expected = pytest.approx(above.mean() / below.mean())
            assert numbers["ratio"][part][name] == expected
    heights = [bar.get_height() for bar in drawing.figure.axes[1].patches]
    shown = [*numbers["without"]["head"]["magnitude"], *numbers["with"]["head"]["magnitude"]]
    np.testing.assert_allclose(heights, shown)
    assert len(drawing.figure.axes) == 8


def test_without_noise_both_recipes_are_the_same(run, network):
    none = changed(run, **{"method.open.delta": 0.0})
    gradient, sets = row_gradient(network, 0), gradients.class_sets(np.ones(4))
    below, above = (
        gradients.measure(training_batches(none, (method,), 3, 0), gradient, sets)
        for method in ("rs", "open")
    )
    ratio = gradients.compare(below, above)
    for part in ("all", "backbone", "head"):
        assert ratio[part] == pytest.approx({"magnitude": 1, "variance": 1}, rel=1e-4)


def test_ratios_use_classes_that_both_recipes_have():
    below, above = [None, 0.1, 0.3], [0.5, 0.9, None]
    first = {p: {"magnitude": [1.0, 3.0, 0.0], "variance": below} for p in gradients.PARTS}
    second = {p: {"magnitude": [2.0, 6.0, 0.0], "variance": above} for p in gradients.PARTS}
    ratio = gradients.compare(first, second)["head"]
    assert ratio == pytest.approx({"magnitude": 2, "variance": 9})
    nothing = {p: {"magnitude": [0.0] * 3, "variance": [None] * 3} for p in gradients.PARTS}
    assert gradients.compare(nothing, second)["all"] == {"magnitude": None, "variance": None}


def test_many_classes_are_measured_in_groups():
    counts = np.arange(100, 0, -1)
    groups = gradients.class_sets(counts)
    assert [len(group) for group in groups] == [20] * 5
    assert groups[0].min() == 80 and groups[-1].max() == 19
    assert len(gradients.class_sets(counts[:20])) == 20


def test_the_figures_of_features_are_registered():
    assert {"tsne", "predictions", "noise_features", "activations", "gradients"} <= set(FIGURES)
