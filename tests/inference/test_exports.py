"""Exported networks: what they compute, their descriptions and model cards."""

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import purenoise_jax
from purenoise_jax import export as command
from purenoise_jax.inference.exports import agreement, write
from purenoise_jax.inference.exports.stablehlo import PLATFORMS
from purenoise_jax.models import MODELS, create_model
from purenoise_jax.runtime.errors import StorageError
from purenoise_jax.training.intervals import accuracy_intervals
from purenoise_jax.training.metrics import ClassResults
from tests.tiny import COUNTS

# ONNX has a file of tests of its own, because its packages may not be there.
KINDS = ("stablehlo", "safetensors")


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The export of every kind, with a prior and costs: path and classifier by kind."""
    folder = tmp_path_factory.mktemp("export")
    costs = 1 - np.eye(4)
    classifier = purenoise_jax.load(finished.run.path, prior=[1, 1, 2, 4], costs=costs)
    return classifier, {
        kind: write.export(classifier, kind, folder / f"model{made.suffix}")
        for kind, made in write.KINDS.items()
        if kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_files_agree_with_the_run_at_any_number_of_images(kind, exported, finished):
    classifier, written = exported
    assert written[kind].difference <= 1e-5
    path, description, _ = written[kind].files
    reader = write.KINDS[kind].reader(path.read_bytes(), json.loads(description.read_text()))
    for size in (1, 7, 33, 40):
        images = finished.images[:size]
        np.testing.assert_allclose(reader(images), classifier.predict_proba(images), atol=1e-5)


@pytest.mark.slow
def test_a_stablehlo_file_needs_nothing_of_this_package(exported, finished, tmp_path):
    classifier, written = exported
    np.savez(tmp_path / "images.npz", images=finished.images[:9])
    program = (
        "import sys, jax, jax.export, numpy as np\n"
        "exported = jax.export.deserialize(bytearray(open(sys.argv[1], 'rb').read()))\n"
        "images = np.load(sys.argv[2])['images']\n"
        "np.save(sys.argv[3], exported.call(images))\n"
        "assert not any(name.startswith('purenoise') for name in sys.modules)\n"
    )
    paths = written["stablehlo"].files[0], tmp_path / "images.npz", tmp_path / "out.npy"
    subprocess.run([sys.executable, "-c", program, *map(str, paths)], check=True, cwd=tmp_path)
    seen = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(seen, classifier.predict_proba(finished.images[:9]), atol=1e-5)


def test_it_can_run_on_all_platforms(exported):
    content = exported[1]["stablehlo"].files[0].read_bytes()
    assert jax.export.deserialize(bytearray(content)).platforms == PLATFORMS


def test_weights_are_those_of_the_network_and_their_steps_are_written_out(exported, finished):
    from safetensors.numpy import load_file

    classifier, written = exported
    arrays = load_file(written["safetensors"].files[0])
    steps = json.loads(written["safetensors"].files[1].read_text())["weights"]
    assert set(arrays) == {
        *("params/conv/kernel", "params/head/bias", "params/head/kernel"),
        *("params/norm/bias", "params/norm/scale"),
        *("batch_stats/norm/mean", "batch_stats/norm/var"),
    }
    x = (finished.images / 255.0 - steps["mean"]) / steps["std"]
    norm = nn.BatchNorm(use_running_average=True, epsilon=1e-5)
    y = nn.Conv(8, (3, 3), use_bias=False).apply(
        {"params": {"kernel": arrays["params/conv/kernel"]}}, jnp.asarray(x, jnp.float32)
    )
    y = norm.apply(
        {
            "params": {k: arrays[f"params/norm/{k}"] for k in ("scale", "bias")},
            "batch_stats": {k: arrays[f"batch_stats/norm/{k}"] for k in ("mean", "var")},
        },
        y,
    )
    features = np.maximum(y, 0).reshape(40, 2, 4, 2, 4, 8).mean(axis=(2, 4)).reshape(40, -1)
    logits = features @ arrays["params/head/kernel"] + arrays["params/head/bias"]
    logits = steps["scale"] * logits + steps["shift"]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = classifier.predict_proba(finished.images)
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_description_says_what_goes_in_and_out(kind, exported, finished):
    path, description, _ = exported[1][kind].files
    told = json.loads(description.read_text())
    assert description.name == path.name + ".json" and told["kind"] == kind
    assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["input"]["shape"][1:] == [8, 8, 3] and told["output"]["shape"][1] == 4
    assert told["class_names"] == ["0", "1", "2", "3"] and told["class_counts"] == list(COUNTS)
    np.testing.assert_allclose(told["prior"], [1 / 8, 1 / 8, 1 / 4, 1 / 2])
    assert told["costs"] == (1 - np.eye(4)).tolist() and "least sum" in told["decision"]
    assert told["run"]["epoch"] == 2 and told["run"]["phases"][1] == {
        "start_epoch": 1,
        "methods": ["open"],
    }
    assert told["run"]["dataset_fingerprint"] == finished.run.summary["dataset_fingerprint"]
    assert str(finished.run.path.parent) not in description.read_text()


def test_the_card_has_data_results_and_limits(exported, finished):
    card = exported[1]["stablehlo"].files[2].read_text()
    summary = finished.run.summary
    correct = np.round(10 * np.array(summary["per_class_accuracy"])).astype(int)
    # As in the run's report.
    spread = accuracy_intervals(ClassResults(np.full(4, 10), correct))
    low, high = spread.accuracy
    assert f"| accuracy | {summary['test_accuracy']:.4g} | {low:.2f} to {high:.2f} |" in card
    intervals = spread.per_class
    for k, count in enumerate(COUNTS):
        recall, ends = summary["per_class_accuracy"][k], intervals[k]
        interval = f"{ends.low:.2f} to {ends.high:.2f}"
        prior = [0.125, 0.125, 0.25, 0.5][k]
        assert f"| {k} | {count} | {recall:.4g} | {interval} | 10 | {prior:.4g} |" in card
    assert summary["dataset_fingerprint"] in card and summary["dataset_content"] in card
    assert "45 images of 4 classes, from 24 to 3 a class" in card
    assert "Fewer than 20 training images: 1, 2, 3." in card
    assert "only the shares of the classes differ" in card
    assert str(finished.run.path.parent) not in card


def test_an_export_that_differs_from_the_run_is_not_written(classifier, tmp_path, monkeypatch):
    def skewed(content, _):
        return lambda images: classifier.probabilities(images) + np.float32(2e-5)

    made = write.KINDS["safetensors"]._replace(reader=skewed)
    monkeypatch.setitem(write.KINDS, "safetensors", made)
    with pytest.raises(StorageError, match=r"differ by up to 2\.0e-05 from those of the run"):
        write.export(classifier, "safetensors", tmp_path / "out" / "model.safetensors")
    assert not (tmp_path / "out").exists()
    with pytest.raises(StorageError, match="up to nan"):
        agreement.largest_difference(classifier, lambda images: np.full((len(images), 4), np.nan))
    with pytest.raises(StorageError, match=r"shape \[1, 3\] for 1 image,"):
        agreement.largest_difference(classifier, lambda images: np.zeros((len(images), 3)))


@pytest.mark.parametrize("taken", ["model.onnx", "model.onnx.json", "model.onnx.md"])
def test_an_export_is_refused_whole_before_work_if_a_folder_has_the_name_of_a_file(
    taken, tmp_path, capsys
):
    (tmp_path / taken).mkdir()
    arguments = ["no run", "--to", "onnx", "--out", str(tmp_path / "model.onnx")]
    assert command.main(arguments) == 2
    assert f"error: --out={tmp_path}/{taken} is a folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_an_export_that_cannot_be_written_leaves_nothing_behind(classifier, tmp_path, monkeypatch):
    def full(self, target):
        if str(target).endswith(".safetensors.md"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    replace = Path.replace
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write.export(classifier, "safetensors", tmp_path / "a/b/model.safetensors")
    assert not (tmp_path / "a").exists()


def test_a_class_that_cannot_occur_has_no_probability(finished, tmp_path):
    classifier = purenoise_jax.load(finished.run.path, prior=[1, 0, 1, 1])
    written = write.export(classifier, "safetensors", tmp_path / "model.safetensors")
    assert written.difference <= 1e-5
    assert (classifier.predict_proba(finished.images)[:, 1] == 0).all()


def test_the_command_writes_three_files(finished, tmp_path, capsys):
    out = tmp_path / "model.safetensors"
    arguments = [str(finished.run.path), "--to", "safetensors", "--out", str(out)]
    assert command.main([*arguments, "--prior", "uniform", "--epoch", "1"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == [str(out), f"{out}.json", f"{out}.md"] and "agrees with the run" in shown[3]
    card = (tmp_path / "model.safetensors.md").read_text()
    assert "trained for 1 epoch (erm from epoch 0)" in card
    assert command.main([*arguments[:2], "pickle"]) == 2
    assert "invalid choice: 'pickle'" in capsys.readouterr().err


# The names of networks whose parts are all in others.
REPEATED = ("resnet20", "resnet56", "resnet32_w64", "wrn16_4", "wrn28_10", "resnet34", "resnet101")
REPEATED += ("resnet152", "resnet50_cifar", "resnet101_cifar", "resnet152_cifar", "resnet34_cifar")
REPEATED += ("resnet10_cifar", "resnext50_32x4d_cifar", "densenet121", "wrn10_1", "tiny")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(MODELS) - set(REPEATED)))
@pytest.mark.parametrize("norm", ["dar_bn"])
def test_every_network_has_a_free_number_of_images(name, norm, monkeypatch):
    # With several devices no convolution looks at the number of images.
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    side = 64 if name.startswith("resnet") and not name.endswith("_cifar") else 32
    model = create_model(name, num_classes=3, norm=norm)
    image = jnp.zeros((1, side, side, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    (batch,) = jax.export.symbolic_shape("batch")

    def logits(variables, images):
        return model.apply(variables, images, train=False)[0]

    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    found = jax.export.export(jax.jit(logits))(variables, images)
    assert str(found.out_avals[0].shape) == "(batch, 3)"
