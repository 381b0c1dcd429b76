"""Evaluation of the training images against predictions that numpy makes of the same state."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from purenoise_jax.data.decoded_images import DecodedImages
from purenoise_jax.data.mapped_images import MappedImages
from purenoise_jax.methods.recipe import identity
from purenoise_jax.runtime.console import Display
from purenoise_jax.training.build import build
from purenoise_jax.training.confusion import Confusion
from purenoise_jax.training.metrics import TRAINING_SET
from purenoise_jax.training.records import evaluate_all, make_summary
from tests.tiny import COUNTS, tiny_config, write_npz

KINDS = {"resident": np.ndarray, "mapped": MappedImages, "decoded": DecodedImages}


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def tree(npz, tmp_path_factory):
    """The same images as PNGs."""
    root, arrays = tmp_path_factory.mktemp("tree"), np.load(npz)
    for split in ("train", "test"):
        labels = arrays[f"{split}_labels"]
        for i, image in enumerate(arrays[f"{split}_images"]):
            path = root / split / f"class{labels[i]}" / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


@pytest.fixture(scope="module")
def variables(npz):
    """Random parameters, with a bias by which every class is predicted at least once."""
    state = build(tiny_config(npz)).init()
    params = jax.tree.map(np.array, state.params)
    params["head"]["kernel"] *= 3
    return {"params": params, "batch_stats": jax.device_get(state.batch_stats)}


def numpy_predictions(experiment, variables):
    """Predicted classes of the training images as they are stored."""
    stats, images = experiment.training.stats, experiment.training.images
    pixels = (images[np.arange(len(images))] / 255 - stats.normalize_mean) / stats.normalize_std
    with jax.disable_jit():
        logits, _ = experiment.model.apply(variables, jnp.float32(pixels), train=False)
    return np.asarray(logits).argmax(1)


@pytest.mark.parametrize(
    ("feed", "fields"),
    [
        ("resident", {"num_devices": 2}),
        pytest.param("mapped", {"data.workers": 2}, marks=pytest.mark.slow),
        pytest.param("decoded", {}, marks=pytest.mark.slow),
    ],
)
def test_counts_are_those_of_numpy_with_every_feed(npz, tree, variables, feed, fields, monkeypatch):
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(npz.parent / "cache"))
    if feed == "decoded":
        # Training images are cropped at random where they are decoded, evaluated ones are not.
        fields = {"data.source": "folder", "data.augment": ("random_crop", "flip")}
        fields |= {"data.resize_shorter": 10, "data.image_size": 8}
    path = tree if feed == "decoded" else npz
    experiment = build(tiny_config(path, **{"data.feed": feed, "eval.train": True, **fields}))
    assert isinstance(experiment.training.images, KINDS[feed])
    placed = jax.tree.map(experiment.placement.replicate, experiment.inputs())
    evaluators = experiment.evaluators(16, trained=placed)
    assert list(evaluators) == ["test", TRAINING_SET]
    predicted, sums, _ = evaluators[TRAINING_SET](variables, identity)
    expected, labels = numpy_predictions(experiment, variables), experiment.training.labels
    np.testing.assert_array_equal(predicted, expected)
    assert len(set(expected.tolist())) > 1, "otherwise the counts would show little"
    confusion = Confusion.of(labels, predicted, 4)
    assert confusion.by_predicted().tolist() == np.bincount(expected, minlength=4).tolist()
    assert confusion.by_true().tolist() == list(COUNTS)
    right = [int((expected[labels == k] == k).sum()) for k in range(4)]
    assert confusion.correct().tolist() == right
    assert sums.bins[:, 0].sum() == sum(COUNTS)
    for evaluator in evaluators.values():
        evaluator.close()


def test_images_on_the_devices_are_not_sent_there_again(npz):
    experiment = build(tiny_config(npz))
    placed = jax.tree.map(experiment.placement.replicate, experiment.inputs())
    evaluator = experiment.evaluators(16, trained=placed)[TRAINING_SET]
    assert evaluator._data[0] is placed.images
    assert list(experiment.evaluators(16)) == ["test"]


def test_records_have_accuracy_and_predicted_images_of_every_class(npz, variables):
    experiment = build(tiny_config(npz))
    placed = jax.tree.map(experiment.placement.replicate, experiment.inputs())
    evaluators = experiment.evaluators(16, trained=placed)
    state = experiment.init().replace(params=variables["params"])
    counts = experiment.training.stats.class_counts
    evaluated, matrices = evaluate_all(evaluators, state, experiment.phases[0], counts)
    found, expected = evaluated[TRAINING_SET], numpy_predictions(experiment, variables)
    labels = experiment.training.labels
    assert found["predicted_images"] == np.bincount(expected, minlength=4).tolist()
    shares = [float((expected[labels == k] == k).mean()) for k in range(4)]
    assert found["per_class_accuracy"] == pytest.approx(shares)
    assert found["accuracy"] == pytest.approx((expected == labels).mean())
    # Its matrix has a file, and shifted test sets are of the test images alone.
    assert not {"confusion_matrix", "shifted_accuracy"} & found.keys()
    assert matrices[TRAINING_SET].confusion.by_true().tolist() == list(COUNTS)
    assert "predicted_images" not in evaluated["test"]
    options = type("Options", (), {"seed": 0, "config_hash": "a"})
    summary = make_summary(options, experiment, state, evaluated)
    assert summary[TRAINING_SET] == found and summary["test_accuracy"] != found["accuracy"]
    del evaluated[TRAINING_SET]
    assert TRAINING_SET not in make_summary(options, experiment, state, evaluated)


def test_the_terminal_shows_training_accuracy_where_it_was_measured():
    screen = io.StringIO()
    display = Display(console=Console(file=screen, width=100))
    numbers = {"accuracy": 0.5, "balanced_accuracy": 0.25, "geometric_mean": 0.1, "ece": 0.0}
    numbers["per_class_accuracy"] = [0.5, 0.5]
    for evaluated in ({"test": numbers}, {TRAINING_SET: {"accuracy": 0.875}}):
        display.evaluated(3, 4, None, evaluated)
        display.table("run", numbers, ["a", "b"], fitted=evaluated.get(TRAINING_SET))
    first, second = screen.getvalue().split("training accuracy", 1)
    assert "test accuracy 50.0 %" in first and second.startswith(" 87.5 %")
    assert "training, balanced accuracy" in second
