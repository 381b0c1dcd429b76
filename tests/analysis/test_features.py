"""Features of natural images, other images and noise, and the figures that show them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.analysis import noise_features, predictions, tsne
from purenoise_jax.analysis.classes import NAMED, by_frequency, class_colors
from purenoise_jax.analysis.features import noise_inputs, training_batches
from purenoise_jax.analysis.figure_style import Options, save
from purenoise_jax.analysis.ood import ood_images
from purenoise_jax.data.sources.cifar import LAYOUTS, load_cifar
from purenoise_jax.inference import network as inference_network
from purenoise_jax.inference.network import Network
from purenoise_jax.methods import build_recipe
from purenoise_jax.runtime.errors import CheckpointError, ConfigError, DataError
from tests import cifar_files as files
from tests.tiny import COUNTS, write_npz
from tests.tiny_run import changed, train_tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def network(run):
    return Network(run)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another data set of the same shape: three classes, 30 test images."""
    return write_npz(tmp_path_factory.mktemp("other") / "other.npz", counts=(5, 4, 3))


@pytest.mark.slow
def test_features_and_logits_are_those_of_the_model(run, network, monkeypatch):
    # 40 images: two full passes and a padded one.
    monkeypatch.setattr(inference_network, "BATCH_SIZE", 16)
    images = run.experiment.dataset.test_images
    inputs = network.images(images)
    stats = run.experiment.training.stats
    expected = (images / np.float32(255) - stats.normalize_mean) / stats.normalize_std
    np.testing.assert_allclose(inputs, expected, atol=1e-5)
    seen = network.evaluate(inputs)
    logits, extra = run.experiment.model.apply(
        network.variables, jnp.asarray(expected), train=False
    )
    assert seen.features.shape == (40, 32) and seen.logits.shape == (40, 4)
    np.testing.assert_allclose(seen.features, extra["features"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen.logits, logits, rtol=1e-4, atol=1e-4)


def test_no_images_have_no_features(network):
    seen = network.evaluate(np.zeros((0, 8, 8, 3), np.float32))
    assert seen.features.shape == (0, 32) and seen.logits.shape == (0, 4)


def test_the_epoch_chooses_the_checkpoint(run, network):
    first = Network(run, 1)
    assert (int(first.state.step), int(network.state.step)) == (3, 6)
    with pytest.raises(CheckpointError, match="no checkpoint after epoch 7"):
        Network(run, 7)


def test_noise_in_pixel_space_is_normalised_with_the_images(run):
    unclipped = Network(changed(run, **{"method.open.clip": False}))
    noise = noise_inputs(unclipped, 2000, 0)
    assert noise.shape == (2000, 8, 8, 3) and noise.dtype == np.float32
    np.testing.assert_allclose(noise.mean(axis=(0, 1, 2)), 0, atol=0.01)
    np.testing.assert_allclose(noise.std(axis=(0, 1, 2)), 1, atol=0.01)
    assert (noise_inputs(unclipped, 2000, 0) == noise).all()
    assert (noise_inputs(unclipped, 2000, 1) != noise).any()


def test_clipped_noise_is_an_image(run, network):
    stats = run.experiment.training.stats
    pixels = noise_inputs(network, 500, 0) * stats.normalize_std + stats.normalize_mean
    assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5
    wide = changed(
        run,
        **{"method.open.noise_stats": "explicit", "method.open.mean": (0.5,) * 3,
           "method.open.std": (2.0,) * 3},
    )  # fmt: skip
    pixels = noise_inputs(Network(wide), 500, 0) * stats.normalize_std + stats.normalize_mean
    # Within 0.25 deviations of the mean a normal number lies with probability 0.1974.
    inside = (pixels > 1e-4) & (pixels < 1 - 1e-4)
    np.testing.assert_allclose(inside.mean(), 0.1974, atol=0.005)


def test_raw_noise_enters_the_network_as_drawn(run):
    raw = changed(
        run,
        **{"method.open.space": "raw", "method.open.noise_stats": "explicit",
           "method.open.mean": (0.3, 0.5, 0.7), "method.open.std": (0.05, 0.1, 0.02)},
    )  # fmt: skip
    noise = noise_inputs(Network(raw), 2000, 0)
    np.testing.assert_allclose(noise.mean(axis=(0, 1, 2)), [0.3, 0.5, 0.7], atol=0.002)
    np.testing.assert_allclose(noise.std(axis=(0, 1, 2)), [0.05, 0.1, 0.02], rtol=0.02)


@pytest.mark.slow
def test_batches_of_a_method_that_takes_stored_images_are_not_augmented(run):
    training = run.experiment.training
    stored = {image.tobytes() for image in training.images}
    for method, found in (("erm", False), ("ncm", True)):
        (batch,) = training_batches(run, (method,), 1, seed=0)
        levels = np.rint(np.asarray(batch["image"]) * 255).astype(np.uint8)
        assert all(image.tobytes() in stored for image in levels) == found, method


@pytest.mark.slow
def test_batches_with_and_without_noise_share_their_natural_rows(run):
    without, with_noise = (training_batches(run, (m,), 4, seed=3) for m in ("rs", "open"))
    assert len(without) == len(with_noise) == 4  # more than the three of an epoch
    noise_rows = 0
    for a, b in zip(without, with_noise, strict=True):
        noise = np.asarray(b["noise_mask"])
        assert not a["noise_mask"].any()
        np.testing.assert_array_equal(a["label"], b["label"])
        np.testing.assert_array_equal(a["image"][~noise], b["image"][~noise])
        differ = (np.asarray(a["image"]) != np.asarray(b["image"])).any(axis=(1, 2, 3))
        np.testing.assert_array_equal(differ, noise)
        noise_rows += noise.sum()
    assert noise_rows > 0
    assert [int(batch["valid"].sum()) for batch in without] == [16, 16, 13, 16]
    again = training_batches(run, ("open",), 1, seed=4)[0]
    assert (np.asarray(again["image"]) != np.asarray(with_noise[0]["image"])).any()


def test_every_batch_draws_new_noise(run):
    most = changed(run, **{"method.open.delta": 1.0})
    first, second = training_batches(most, ("open",), 2, 0)
    both = np.asarray(first["noise_mask"] & second["noise_mask"])
    assert both.any()
    a, b = (np.asarray(batch["image"])[both] for batch in (first, second))
    assert (a != b).any(axis=(1, 2, 3)).all()


def test_noise_images_have_the_distribution_of_the_noise_in_training(run):
    """The figures show the noise that the method trains on."""
    raw = changed(
        run,
        **{"method.open.space": "raw", "method.open.delta": 1.0, "method.open.clip": False,
           "method.open.noise_stats": "full_train"},
    )  # fmt: skip
    stats = raw.experiment.training.stats
    recipe = build_recipe(("open",), stats, raw.config.method.to_dict())
    labels = jnp.full(2000, 3)
    batch = {"image": jnp.zeros((2000, 8, 8, 3)), "label": labels}
    drawn = recipe.transforms[0](jax.random.key(0), batch)
    image = np.asarray(drawn["image"])[np.asarray(drawn["noise_mask"])]
    trained_on = (image - stats.normalize_mean) / stats.normalize_std
    shown = noise_inputs(Network(raw), 2000, 0)
    for moment in (np.mean, np.std):
        np.testing.assert_allclose(
            moment(shown, axis=(0, 1, 2)), moment(trained_on, axis=(0, 1, 2)), atol=0.005
        )


# Out-of-distribution images


def test_other_images_come_from_a_named_file(run, other):
    images = ood_images(run, Options(ood_path=str(other)))
    assert images.shape == (30, 8, 8, 3) and images.dtype == np.uint8
    assert ood_images(run, Options(ood_name="none")).shape == (0, 8, 8, 3)


def test_missing_or_unsuitable_other_images_are_refused(run, other, tmp_path):
    with pytest.raises(ConfigError, match="give --ood and --ood_data"):
        ood_images(run, Options())
    with pytest.raises(DataError, match=r"gone\.npz"):
        ood_images(run, Options(ood_path=str(tmp_path / "gone.npz")))
    with pytest.raises(ConfigError, match="--ood is missing"):
        ood_images(run, Options(ood_path=str(tmp_path)))
    with pytest.raises(DataError, match=r"are 16 x 16 x 1, but the images of .* are 8 x 8 x 3"):
        ood_images(run, Options(ood_name="digits"))


def test_the_other_cifar_is_found_beside_the_runs_own(run, tmp_path, monkeypatch):
    for name in ("cifar10", "cifar100"):
        layout = files.small_layout(name)
        monkeypatch.setitem(LAYOUTS, name, layout)
        folder = files.write_folder(tmp_path, layout.forms[0], files.binary_files(layout))
    beside = changed(run, **{"data.source": "cifar_dir", "data.name": "cifar10"})
    stats = dataclasses.replace(run.experiment.training.stats, image_shape=(32, 32, 3))
    training = dataclasses.replace(run.experiment.training, stats=stats)
    experiment = dataclasses.replace(run.experiment, training=training)
    monkeypatch.setitem(beside.__dict__, "experiment", experiment)
    expected = load_cifar(name="cifar100", path=str(folder)).test_images
    for path in (folder.parent / "cifar-10-batches-bin", folder.parent):
        beside.config.data.path = str(path)
        np.testing.assert_array_equal(ood_images(beside, Options()), expected)
    beside.config.data.path = str(tmp_path / "nowhere" / "cifar")
    with pytest.raises(DataError, match=r"no out-of-distribution images .*give --ood_data"):
        ood_images(beside, Options())
    options = Options(ood_path=str(folder.parent))
    np.testing.assert_array_equal(ood_images(beside, options), expected)


# t-SNE


def test_images_of_each_class_are_drawn_with_replacement():
    labels = np.array([2, 0, 1, 2, 0, 2])
    chosen = tsne.pick(labels, 50, seed=0)
    assert labels[chosen].tolist() == [0] * 50 + [1] * 50 + [2] * 50
    assert set(chosen) == set(range(6))
    assert (tsne.pick(labels, 50, seed=0) == chosen).all()
    assert (tsne.pick(labels, 50, seed=1) != chosen).any()


def test_tsne_keeps_clusters_apart_and_repeats_itself():
    rng = np.random.default_rng(0)
    cluster = np.repeat([0, 1, 2], 15)
    data = (rng.normal(size=(45, 8)) + 20 * np.eye(3, 8)[cluster]).astype(np.float32)
    placed = tsne.embed(data, 0)
    assert placed.shape == (45, 2)
    distances = np.linalg.norm(placed[:, None] - placed[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (cluster[distances.argmin(axis=1)] == cluster).all()
    assert (tsne.embed(data, 0) == placed).all()


def test_the_tsne_figure_has_a_point_for_each_image(run, other, tmp_path):
    drawing = tsne.draw([run, run], Options(images=5, ood_path=str(other)))
    (numbers,) = drawing.numbers.values()
    assert np.shape(numbers["points"]) == (4 * 5 + 5 + 5, 2)
    assert np.bincount(np.array(numbers["labels"]) + 2).tolist() == [5] * 6
    scattered = [len(c.get_offsets()) for axes in drawing.figure.axes for c in axes.collections]
    assert scattered == [5] * 12
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend == [f"{k} ({n})" for k, n in enumerate(COUNTS)] + ["OOD", "noise"]
    for path in save(drawing, tmp_path, "tsne"):
        assert path.stat().st_size > 0
    assert json.loads((tmp_path / "tsne.json").read_text()) == drawing.numbers
    without = tsne.draw([run], Options(images=5, ood_name="none"))
    assert set(without.numbers["run"]["labels"]) == {0, 1, 2, 3, tsne.NOISE}
    assert "OOD" not in [t.get_text() for t in without.figure.legends[0].get_texts()]


def test_every_class_has_a_distinct_color():
    for classes in (1, 4, NAMED, NAMED + 1, 100):
        assert len(set(class_colors(classes))) == classes
    assert by_frequency(np.array([3, 9, 9, 1])).tolist() == [1, 2, 0, 3]


# Predictions


def test_predictions_are_counted_by_class():
    logits = np.array([[0, 3, 1], [5, 3, 1], [0, 3, 1], [0, 1, 0.5]])
    assert predictions.count_predictions(logits).tolist() == [1, 3, 0]
    assert predictions.rare_share(np.array([1, 2, 3, 4]), np.array([5, 50, 9, 2])) == 0.5
    assert predictions.rare_share(np.array([1, 2, 3]), np.array([9, 5, 1])) == 0.5
    assert predictions.rare_share(np.zeros(2, int), np.array([9, 5])) is None


def test_the_predictions_figure_counts_every_image(run, network, other):
    drawing = predictions.draw([run], Options(images=20, ood_path=str(other), seed=5))
    numbers = drawing.numbers["run"]
    logits = network.evaluate(noise_inputs(network, 20, 5)).logits
    assert numbers["noise"] == np.bincount(logits.argmax(1), minlength=4).tolist()
    assert sum(numbers["ood"]) == 20
    every = predictions.draw([run], Options(ood_path=str(other))).numbers["run"]
    assert sum(every["noise"]) == 1000 and sum(every["ood"]) == 30
    heights = [[bar.get_height() for bar in axes.patches] for axes in drawing.figure.axes]
    np.testing.assert_allclose(heights, np.array([numbers["noise"], numbers["ood"]]) * 5)
    without = predictions.draw([run, run], Options(images=20, ood_name="none"))
    assert "ood" not in without.numbers["run"] and len(without.figure.axes) == 2


# Noise features


def test_cosine_and_spread_by_hand():
    a, b = np.array([3.0, 4.0]), np.array([4.0, 3.0])
    assert noise_features.cosine(a, b) == pytest.approx(24 / 25)
    assert noise_features.cosine(a, -2 * a) == pytest.approx(-1)
    assert noise_features.cosine(a, 0 * a) is None
    # The mean is (3, 4); both are at a distance of 1 from it.
    assert noise_features.relative_spread(np.array([[3.0, 5], [3, 3]])) == pytest.approx(1 / 5)
    assert noise_features.relative_spread(np.array([[1.0, 2], [1, 2]])) == 0
    assert noise_features.relative_spread(np.array([[1.0, 0], [-1, 0]])) is None
    nothing = noise_features.compare(np.ones((2, 3)), np.ones((0, 3)))
    assert nothing["cosine"] is None and nothing["noise_images"] == 0


def test_the_noise_figure_against_numpy(run, network):
    drawing = noise_features.draw([run], Options(images=30))
    numbers = drawing.numbers["run"]
    images = run.experiment.dataset.test_images
    chosen = np.random.default_rng(0).permutation(40)[:30]
    model, variables = run.experiment.model, network.variables
    natural, noise = (
        np.asarray(model.apply(variables, x, train=False)[1]["features"], np.float64)
        for x in (network.images(images[chosen]), noise_inputs(network, 30, 0))
    )
    means = natural.mean(0), noise.mean(0)
    lengths = [np.sqrt((m**2).sum()) for m in means]
    seen = numbers["evaluation"]
    assert (seen["natural_images"], seen["noise_images"]) == (30, 30)
    assert seen["cosine"] == pytest.approx((means[0] * means[1]).sum() / np.prod(lengths), rel=1e-4)
    spread = np.sqrt(((natural - means[0]) ** 2).sum(1).mean()) / lengths[0]
    assert seen["natural_spread"] == pytest.approx(spread, rel=1e-4)
    trained = numbers["training"]
    rows = sum(int(b["valid"].sum()) for b in training_batches(run, ("open",), 8, 0))
    assert trained["natural_images"] + trained["noise_images"] == rows


def test_in_training_noise_rows_have_separate_moments(run, network):
    """The features of natural rows do not depend on the pixels of noise rows."""
    (batch,) = training_batches(run, ("open",), 1, 0)
    noise = np.asarray(batch["noise_mask"])
    brighter = jnp.where(noise[:, None, None, None], 9.0, batch["image"])
    first = network.train(batch, 0).features
    second = network.train({**batch, "image": brighter}, 0).features
    assert noise.any()
    np.testing.assert_array_equal(first[~noise], second[~noise])
    assert (first[noise] != second[noise]).any()
    pooled = network.train({**batch, "noise_mask": jnp.zeros_like(batch["noise_mask"])}, 0).features
    assert not np.allclose(first[~noise], pooled[~noise], atol=1e-3)
