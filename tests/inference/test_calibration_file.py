"""Thresholds, beside those of scikit-learn, and the file that has them and the temperature."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_curve

import purenoise_jax
from purenoise_jax import calibrate
from purenoise_jax.analysis import html_report
from purenoise_jax.analysis.latest_evaluation import latest_evaluation
from purenoise_jax.inference.calibration_file import (
    NAME,
    read_scaled,
    read_temperature,
    write_calibration,
)
from purenoise_jax.inference.reliability import reliability, scaled
from purenoise_jax.inference.split_outputs import split_outputs
from purenoise_jax.inference.temperature import Calibration
from purenoise_jax.inference.thresholds import Threshold, best_thresholds
from purenoise_jax.runtime.errors import ConfigError
from tests.tiny_run import train_tiny


def test_thresholds_have_the_largest_f1_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    shares = rng.dirichlet(np.ones(4), 60)
    shares[np.arange(60), labels] += 0.5
    # Rounded, so that images share a probability.
    shares = (shares / 1.5).round(1)
    found = best_thresholds(shares, labels)
    assert found[3] is None
    for k in range(3):
        precision, recall, cuts = precision_recall_curve(labels == k, shares[:, k])
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        assert found[k].f1 == pytest.approx(f1.max())
        assert found[k].f1 == pytest.approx(f1_score(labels == k, shares[:, k] >= found[k][0]))
        assert found[k].probability in cuts and found[k].images == (labels == k).sum()


def test_a_class_apart_from_the_others_has_an_f1_of_one():
    shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    assert best_thresholds(shares, np.array([0, 0, 1])) == [(0.8, 1, 2), (0.7, 1, 1)]


def test_images_of_one_probability_are_on_the_same_side():
    found = best_thresholds(np.array([[0.5], [0.5], [0.1]]), np.array([0, 1, 1]))
    assert found[0].probability == 0.5 and found[0].f1 == pytest.approx(2 / 3)


LOGITS, LABELS = np.array([[2.0, 0], [0, 1], [0, 3]]), np.array([0, 1, 0])
SEEN = scaled(LOGITS, LABELS, 1.5, split="test", title="test images")


def written(folder, **changes):
    fit = Calibration(1.5, 3, (2.0, 1.0), (0.2, 0.1))
    path = write_calibration(
        folder, 6, "photos", ["a", "b"], fit, [Threshold(0.5, 1.0, 3), None], SEEN
    )
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(content))
    return content


def test_the_file_holds_what_was_fitted(tmp_path):
    content = written(tmp_path)
    assert read_temperature(tmp_path, 6) == 1.5
    assert content["thresholds"][1] == {"class": "b", "probability": None, "images": 0}
    assert content["nll"] == [2, 1] and content["images"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 3}, "is for the checkpoint of step 3, and this is that of step 6"),
        ({"temperature": 0}, r"damaged \(temperature 0\)"),
        ({"temperature": None}, "damaged"),
        ({"temperature": "x"}, "damaged"),
    ],
)
def test_a_file_of_another_checkpoint_or_a_damaged_one_is_refused(tmp_path, changes, message):
    written(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message):
        read_temperature(tmp_path, 6)


def test_the_file_gives_back_the_fit_before_and_after(tmp_path):
    assert read_scaled(tmp_path, 6) is None
    written(tmp_path)
    found = read_scaled(tmp_path, 6)
    assert found[:3] == ("test", "test images", 1.5)
    for each, temperature in ((found.before, 1), (found.after, 1.5)):
        expected = reliability(LOGITS / temperature, LABELS)
        assert each.bins.tolist() == expected.bins.tolist() and each[1:] == expected[1:]
    # That of another checkpoint, and of an earlier version, has nothing to say.
    assert read_scaled(tmp_path, 7) is None
    content = written(tmp_path)
    del content["reliability"]
    (tmp_path / NAME).write_text(json.dumps(content))
    assert read_scaled(tmp_path, 6) is None
    for damage in ({"reliability": 3}, {"step": None}, {"reliability": {"bins": 2}}):
        written(tmp_path, **damage)
        with pytest.raises(ConfigError, match=r"calibration\.json is damaged"):
            read_scaled(tmp_path, 6)


def test_without_a_file_there_is_no_fitted_temperature(tmp_path):
    with pytest.raises(ConfigError, match=r"has no calibration\.json; run python -m"):
        read_temperature(tmp_path, 6)


@pytest.mark.slow
def test_a_run_is_calibrated_on_its_own_validation_images(tmp_path, capsys):
    run = train_tiny(tmp_path, **{"data.val_per_class": 2})
    with pytest.raises(ConfigError, match="calibration"):
        purenoise_jax.load(run.path, temperature="fitted")
    with pytest.raises(ConfigError, match="temperature=hot is not legal"):
        purenoise_jax.load(run.path, temperature="hot")
    assert calibrate.main([str(run.path)]) == 0
    content = json.loads((run.path / NAME).read_text())
    assert content["images"] == 8 and content["fitted_on"] == "the validation images of the run"
    plain, warm = (purenoise_jax.load(run.path, temperature=t) for t in (1, "fitted"))
    dataset = run.experiment.dataset
    fitted = plain.fit_temperature(dataset.val_images, dataset.val_labels)
    assert warm.deployment.temperature == pytest.approx(fitted.temperature, rel=1e-3)
    assert content["nll"] == pytest.approx(fitted.nll, rel=1e-4)
    assert content["thresholds"][0]["images"] == 2
    # The fit is shown on the test images, at temperature 1 as the run has recorded it.
    seen, recorded = read_scaled(run.path, content["step"]), latest_evaluation(run)
    assert (seen.split, seen.before.bins[:, 0].sum()) == ("test", 40)
    assert seen.before.nll == pytest.approx(recorded.number("nll"), rel=1e-4)
    np.testing.assert_allclose(seen.before.bins, recorded.probabilities().bins, atol=1e-4)
    outputs = split_outputs(run)
    again = reliability(outputs.logits / content["temperature"], outputs.labels)
    assert seen.after.nll == pytest.approx(again.nll, rel=1e-4)
    out = capsys.readouterr().out
    assert f"negative log-likelihood {seen.before.nll:.4f} before, {seen.after.nll:.4f}" in out
    text = html_report.render([run])
    for words in ("After temperature scaling", "40 test images", f"{seen.after.nll:.3f}"):
        assert words in text


@pytest.mark.slow
def test_without_validation_images_the_command_asks_for_images(tmp_path, capsys):
    run = train_tiny(tmp_path)
    assert calibrate.main([str(run.path)]) == 2
    assert "trained without validation images" in capsys.readouterr().err
