"""The figures of the images of a split: scores, reliability and errors."""

import json

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from purenoise_jax.analysis import errors, reliability, scores
from purenoise_jax.analysis.figure_style import Options, save
from purenoise_jax.analysis.latest_evaluation import latest_evaluation
from purenoise_jax.inference import split_outputs as module
from purenoise_jax.inference.reliability import reliability as fit_of
from purenoise_jax.inference.split_outputs import SplitOutputs, split_outputs
from purenoise_jax.inference.temperature import fit_temperature
from purenoise_jax.runtime.errors import CheckpointError
from tests.tiny_run import train_tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("tiny"), **{"data.val_per_class": 2})


def draw(figure, run, tmp_path, **options):
    drawing = figure.draw([run], Options(**options))
    paths = save(drawing, tmp_path / "figures", "one")
    return drawing, json.loads(paths[2].read_text())[run.label]


def reliability_of(run):
    outputs = split_outputs(run)
    return fit_of(outputs.logits, outputs.labels)


@pytest.mark.slow
def test_scores_are_those_that_the_run_has_recorded(run, tmp_path):
    _, numbers = draw(scores, run, tmp_path)
    recorded = run.summary
    assert numbers["accuracy"] == recorded["test_accuracy"]
    assert numbers["nll"] == pytest.approx(recorded["test_nll"], rel=1e-5)
    assert numbers["ece"] == pytest.approx(recorded["test_ece"], abs=1e-5)
    assert numbers["recall"] == recorded["per_class_accuracy"]
    # So has the file of the bins, from another program of the same network.
    fit = latest_evaluation(run).probabilities()
    assert numbers["average_precision"] == pytest.approx(fit.average_precision)
    np.testing.assert_allclose(fit.bins, reliability_of(run).bins, atol=1e-4)
    low, high = numbers["accuracy_interval"]
    assert low <= numbers["accuracy"] <= high
    assert numbers["images"] == [10] * 4 and numbers["step"] == recorded["steps"]


@pytest.mark.slow
def test_the_pass_over_the_images_is_made_once(run, tmp_path, monkeypatch):
    split_outputs(run), split_outputs(run, "val")
    monkeypatch.setattr(module, "Network", None)
    _, numbers = draw(reliability, run, tmp_path)
    assert sum(numbers["images"]) == 40
    assert split_outputs(run) is split_outputs(run, "test", None)


@pytest.mark.slow
def test_errors_are_sorted_by_their_probability(run, tmp_path):
    _, numbers = draw(errors, run, tmp_path, images=5)
    found = split_outputs(run)
    shares = np.exp(found.logits) / np.exp(found.logits).sum(axis=1, keepdims=True)
    wrong = [row for row in range(40) if shares[row].argmax() != found.labels[row]]
    assert numbers["wrong"] == len(wrong)
    wanted = sorted(wrong, key=lambda row: -shares[row].max())[:5]
    assert [each["row"] for each in numbers["errors"]] == wanted
    for each in numbers["errors"]:
        assert each["label"] == run.class_names[found.labels[each["row"]]]
        assert each["probability"] == pytest.approx(shares[each["row"]].max(), rel=1e-5)


@pytest.mark.slow
def test_reliability_is_shown_again_at_the_temperature_of_the_validation_images(run, tmp_path):
    drawing, numbers = draw(reliability, run, tmp_path)
    held_out, test = split_outputs(run, "val"), split_outputs(run)
    fitted = fit_temperature(held_out.logits, held_out.labels)
    assert numbers["scaled"]["val"]["temperature"] == pytest.approx(fitted.temperature)
    assert numbers["scaled"]["val"]["images"] == 8 and len(drawing.figure.axes) == 4
    shares = softmax(test.logits / fitted.temperature, axis=1)
    assert numbers["scaled"]["nll"] == pytest.approx(log_loss(test.labels, shares), rel=1e-5)
    assert numbers["ece"] == pytest.approx(run.summary["test_ece"], abs=1e-5)


@pytest.mark.slow
def test_a_checkpoint_that_is_not_there_is_named(run):
    with pytest.raises(CheckpointError, match="no checkpoint after epoch 9"):
        split_outputs(run, epoch=9)


def test_without_errors_there_is_no_most_probable_one():
    outputs = SplitOutputs(np.eye(3, dtype=np.float32), np.arange(3), np.arange(3), 1)
    assert errors.most_probable_errors(outputs, 5).size == 0
