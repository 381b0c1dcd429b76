"""ONNX models compared with JAX; needs the extra "onnx"."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenoise_jax
from purenoise_jax import export as command
from purenoise_jax.inference.classifier import Classifier
from purenoise_jax.inference.exports import onnx
from purenoise_jax.inference.exports.agreement import largest_difference
from purenoise_jax.models import create_model

ALL_NETWORKS = ("resnet8", "resnet10", "resnet12", "resnet18_cifar", "wrn10_1")


def test_without_the_packages_the_command_says_how_to_install_them(finished, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jax2onnx", None)
    assert command.main([str(finished.run.path), "--to", "onnx"]) == 2
    assert "needs jax2onnx and onnxruntime: pip install 'jax2onnx" in (capsys.readouterr().err)
    assert not (finished.run.path / "export").exists()


@pytest.mark.slow
def test_the_model_agrees_with_the_run(finished, tmp_path, capsys):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    out = tmp_path / "model.onnx"
    arguments = [str(finished.run.path), "--to", "onnx", "--out", str(out)]
    assert command.main([*arguments, "--prior", "train"]) == 0
    told = json.loads((tmp_path / "model.onnx.json").read_text())
    session = runtime.InferenceSession(str(out))
    (images,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (images.name, probabilities.name) == (told["input_name"], told["output_name"])
    assert images.type == "tensor(uint8)" and images.shape[1:] == [8, 8, 3]
    expected = purenoise_jax.load(finished.run.path, prior="train")
    for size in (1, 7, 33):
        (seen,) = session.run(None, {images.name: finished.images[:size]})
        np.testing.assert_allclose(seen, expected.predict_proba(finished.images[:size]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_networks_are_converted(name, classifier, monkeypatch):
    pytest.importorskip("jax2onnx")
    side = 64 if name == "resnet10" else 32
    model = create_model(name, num_classes=4)
    image = jnp.zeros((1, side, side, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(0), image, train=False))()
    shape = (side, side, 3)
    trained = dataclasses.replace(
        classifier.trained, model=model, variables=variables, image_shape=shape
    )
    other = Classifier(trained)
    assert largest_difference(other, onnx.reader(onnx.serialized(other)), (1, 7)) <= 1e-5
