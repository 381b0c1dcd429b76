"""`purenoise_jax.load`: a run as a function of images, without the data that it was trained on."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

import purenoise_jax
from purenoise_jax import calibrate, export, predict
from purenoise_jax.data.sources.resize import resize_square
from purenoise_jax.data.view import View
from purenoise_jax.inference import classifier as classifiers
from purenoise_jax.inference.classifier import Classifier
from purenoise_jax.inference.exports.describe import described
from purenoise_jax.inference.image_inputs import fit
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.inference.trained import load_trained
from purenoise_jax.runtime.errors import CheckpointError, ConfigError, DataError
from tests.encoded import png16
from tests.tiny import COUNTS
from tests.tiny_run import changed, train_tiny


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_a_run_without_a_best_checkpoint_says_why(finished):
    with pytest.raises(
        CheckpointError, match=r"records no best checkpoint: checkpoint.best is none"
    ):
        purenoise_jax.load(finished.run.path, epoch="best")
    with pytest.raises(
        ConfigError, match="epoch=last is not legal; legal: a number of epochs, or b"
    ):
        purenoise_jax.load(finished.run.path, epoch="last")


@pytest.mark.parametrize("program", [predict, export, calibrate])
def test_programs_take_a_number_of_epochs_or_best(program, capsys):
    more = {predict: ["images"], export: ["--to=stablehlo"], calibrate: []}[program]
    parse = program.parser().parse_args
    assert parse(["run", *more]).epoch is None
    assert parse(["run", *more, "--epoch=12"]).epoch == 12
    assert parse(["run", *more, "--epoch", "best"]).epoch == "best"
    assert program.main(["run", *more, "--epoch=bets"]) == 2
    assert "'bets' is not legal; legal: a number of epochs, or best" in capsys.readouterr().err


def test_it_computes_what_the_run_evaluates_with_its_data(finished, classifier):
    with pytest.raises(DataError):
        _ = load_runs([finished.run.path])[0].experiment
    seen = classifier.predict_proba(finished.images)
    assert seen.shape == (40, 4) and seen.dtype == np.float32
    np.testing.assert_allclose(seen, softmax(finished.logits), atol=1e-5)
    np.testing.assert_allclose(
        classifier.features(finished.images), finished.features, rtol=1e-4, atol=1e-5
    )
    right = classifier.predict(finished.images) == finished.labels.astype(str)
    assert right.mean() == finished.run.summary["test_accuracy"]


def test_it_has_the_facts_of_the_training_set(finished, classifier):
    assert classifier.class_names == ("0", "1", "2", "3")
    assert classifier.image_shape == (8, 8, 3)
    assert classifier.trained.class_counts.tolist() == list(COUNTS)
    assert classifier.trained.epoch == 2 and classifier.trained.phases == (
        (0, ("erm",)),
        (1, ("open",)),
    )


def test_a_warning_names_nearly_black_images_of_16_bits(finished, classifier, tmp_path):
    samples = np.random.default_rng(0).integers(0, 4096, (8, 8, 3), np.uint16)
    dark, bright = tmp_path / "dark.png", tmp_path / "bright.png"
    dark.write_bytes(png16(samples))
    bright.write_bytes(png16(samples * 16))
    others = sorted(finished.folder.rglob("*.png"))[:2]
    for call in (classifier.predict, classifier.predict_proba, classifier.features):
        with pytest.warns(UserWarning, match=r"image 2 \(.*dark\.png\): no .* hold 12 bits"):
            call([*others, dark])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier.predict([*others, dark, bright])


def test_paths_images_and_arrays_give_the_same(finished, classifier, monkeypatch):
    monkeypatch.setattr(classifiers, "BATCH_SIZE", 16)
    expected = classifier.predict_proba(finished.images)
    paths = sorted(finished.folder.rglob("*.png"))
    for given in (paths, list(map(str, paths)), map(Image.open, paths), list(finished.images)):
        np.testing.assert_allclose(classifier.predict_proba(given), expected, atol=1e-6)
    for single in (paths[0], str(paths[0]), Image.open(paths[0])):
        np.testing.assert_allclose(classifier.predict_proba(single), expected[:1], atol=1e-6)


def test_no_images_have_no_probabilities(classifier):
    assert classifier.predict_proba([]).shape == (0, 4)
    assert classifier.predict([]).shape == (0,)
    assert classifier.features(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, 32)


def test_an_image_of_another_size_is_resized_as_training_images_are(classifier, tmp_path):
    large = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    expected = classifier.predict_proba(resize_square(large, 8)[None])
    for given in ([large], [tmp_path / "large.png"], Image.fromarray(large)):
        np.testing.assert_array_equal(classifier.predict_proba(given), expected)


def test_the_centre_is_cut_out_where_the_evaluation_of_the_run_does_so(
    finished, classifier, tmp_path
):
    run = changed(finished.run, **{"data.image_size": 8, "data.resize_shorter": 10})
    cropping = Classifier(dataclasses.replace(classifier.trained, run=run))
    for size in ((30, 20), (8, 8)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "image.png")
        expected = classifier.predict_proba(View(8, 10)(image)[None])
        for given in ([tmp_path / "image.png"], Image.fromarray(image)):
            np.testing.assert_array_equal(cropping.predict_proba(given), expected)
        # An array of the network's own size is taken as it is.
        array = expected if size != (8, 8) else classifier.predict_proba([image])
        np.testing.assert_array_equal(cropping.predict_proba([image]), array)
    told = described(cropping, "onnx", b"")["input"]["resize"]
    assert told == (
        "the shorter side to 10 with Pillow's BILINEAR filter, the longer one in proportion, "
        "rounded down; of that the central 8 x 8"
    )


@pytest.mark.parametrize(
    ("how", "words"), [("crop", "largest square"), ("pad", "and black on both")]
)
def test_images_are_resized_as_the_run_does(how, words, finished, classifier, tmp_path):
    run = changed(finished.run, **{"data.image_size": 8, "data.resize": how})
    resizing = Classifier(dataclasses.replace(classifier.trained, run=run))
    image = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    expected = classifier.predict_proba(resize_square(image, 8, how)[None])
    for given in ([image], [tmp_path / "image.png"], Image.fromarray(image)):
        np.testing.assert_array_equal(resizing.predict_proba(given), expected)
    assert words in described(resizing, "onnx", b"")["input"]["resize"]


def test_grey_and_coloured_images_fit_networks_of_the_other_kind():
    grey = np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8)
    colours = np.repeat(grey, 3, axis=2)
    np.testing.assert_array_equal(fit(grey, (8, 8, 3)), colours)
    np.testing.assert_array_equal(fit(colours, (8, 8, 1)), grey)
    assert fit(grey, (8, 8, 1)) is grey
    with pytest.raises(DataError, match="is 8 x 8, and the network takes 8 x 6 only"):
        fit(colours, (8, 6, 3))


def test_all_images_that_cannot_be_read_are_named(classifier, finished, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    good = next(finished.folder.rglob("*.png"))
    given = [good, tmp_path / "text.png", tmp_path / "none.png", np.zeros((8, 8, 3)), 5]
    with pytest.raises(DataError) as caught:
        classifier.predict(given)
    message = str(caught.value)
    assert "4 faults" in message and "image 1: " in message and "text.png: cannot be" in message
    assert "none.png: cannot be read (No such file" in message
    assert "image 3: an array of float64" in message and "image 4: int is no image" in message
    with pytest.raises(DataError, match=r"shape \(8, 8, 3\) is no batch"):
        classifier.predict(np.zeros((8, 8, 3), np.uint8))


def test_another_epoch_has_its_own_checkpoint_and_phase(finished, classifier):
    first = purenoise_jax.load(finished.run.path, epoch=1)
    assert first.trained.epoch == 1 and first.trained.phases == ((0, ("erm",)),)
    seen = first.predict_proba(finished.images)
    assert np.abs(seen - classifier.predict_proba(finished.images)).max() > 1e-3
    with pytest.raises(CheckpointError, match="no checkpoint after epoch 7; legal: 1, 2"):
        purenoise_jax.load(finished.run.path, epoch=7)


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished.run.path, tmp_path / "run")
    return tmp_path / "run"


def test_a_checkpoint_without_class_names_takes_those_of_the_summary(copied, monkeypatch):
    (run,) = load_runs([copied])
    record = load_trained(run).record

    def without_names(checkpoints, step):
        return {name: value for name, value in record.items() if name != "class_names"}

    monkeypatch.setattr("purenoise_jax.checkpoint.manager.Checkpoints.record", without_names)
    assert load_trained(run).class_names == ("0", "1", "2", "3")
    (copied / "summary.json").unlink()
    with pytest.raises(CheckpointError, match="lacks the names of the classes; continue the run"):
        load_trained(load_runs([copied])[0])


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path, copied):
    with pytest.raises(ConfigError, match="is not the workdir of a run"):
        purenoise_jax.load(tmp_path)
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        purenoise_jax.load(copied)


def test_class_names_are_those_of_the_data(finished):
    record = json.loads((finished.run.path / "checkpoints/6/record.json").read_text())
    assert record["class_names"] == finished.run.summary["class_names"] == ["0", "1", "2", "3"]


@pytest.mark.slow
def test_averaged_parameters_and_scaled_logits_are_those_of_evaluation(tmp_path):
    fields = {"model.head": "cosine", "phases.deferred.methods": ("ema", "ldam")}
    run = train_tiny(tmp_path, **fields)
    network, images = Network(run), run.experiment.dataset.test_images
    expected = softmax(network.evaluate(network.images(images)).logits)
    (tmp_path / "tiny.npz").unlink()
    loaded = purenoise_jax.load(run.path)
    np.testing.assert_allclose(loaded.predict_proba(images), expected, atol=1e-5)
    assert loaded.trained.record["leaves"].keys() > {"extra/ema/params/conv/kernel"}
