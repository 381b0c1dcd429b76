"""Temperature scaling, compared with SciPy's minimisation and with known temperatures."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

import purenoise_jax
from purenoise_jax import calibrate
from purenoise_jax.inference.deployment import for_prior, with_temperature
from purenoise_jax.inference.exports import write
from purenoise_jax.inference.temperature import fit_temperature
from purenoise_jax.methods.logit_adjustment import for_known_shares
from purenoise_jax.methods.recipe import identity
from purenoise_jax.runtime.errors import ConfigError, DataError
from tests.encoded import png16


def nll(temperature, logits, labels, shift=0.0):
    scaled = logits / temperature + shift
    return np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels])


def softmax(logits):
    return np.exp(logits - logsumexp(logits, axis=1, keepdims=True))


@pytest.fixture
def sampled():
    """Logits of which the probabilities at temperature 2.5 are those of the labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (4000, 5))
    labels = np.array([rng.choice(5, p=row) for row in softmax(logits / 2.5)])
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("shift", [0.0, np.log([0.5, 0.2, 0.1, 0.1, 0.1])])
def test_it_is_the_minimum_that_scipy_finds(sampled, shift):
    logits, labels = sampled
    found = fit_temperature(logits, labels, shift)
    wide = logits.astype(np.float64)
    expected = minimize_scalar(nll, (0.5, 3), args=(wide, labels, shift), options={"xtol": 1e-10})
    assert found.temperature == pytest.approx(expected.x, rel=1e-5)
    assert found.nll == pytest.approx([nll(1, wide, labels, shift), expected.fun], rel=1e-6)


def test_it_finds_the_temperature_that_made_the_labels(sampled):
    found = fit_temperature(*sampled)
    assert found.temperature == pytest.approx(2.5, rel=0.05) and found.images == 4000
    assert found.ece[0] > 0.1 > 0.02 > found.ece[1]


def test_the_calibration_error_is_that_of_fifteen_bins(sampled):
    logits, labels = sampled
    probabilities = softmax(logits.astype(np.float64))
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        expected += abs((confidence[inside] - right[inside]).sum()) / len(labels)
    assert fit_temperature(logits, labels).ece[0] == pytest.approx(expected, abs=1e-4)


def test_the_temperature_stays_1_without_errors_and_without_information():
    logits = np.array([[5.0, 0], [0, 3.0]])
    right = fit_temperature(logits, np.array([0, 1]))
    assert right.temperature == 1 and "classified right" in right.undetermined
    assert right.nll[0] == right.nll[1] > 0 and right.ece[0] == right.ece[1]
    wrong = fit_temperature(logits, np.array([1, 0]))
    assert wrong.temperature == 1 and "up to temperature 100" in wrong.undetermined
    # Logits so small that the best temperature is below the search.
    tiny = np.tile([[1e-5, 0.0]], (4, 1))
    found = fit_temperature(tiny, np.array([0, 0, 0, 1]))
    assert found.temperature == 1 and "down to temperature 0.01" in found.undetermined
    with pytest.raises(DataError, match="no labelled image"):
        fit_temperature(np.zeros((0, 2)), np.zeros(0, int))


def test_a_sure_network_without_errors_has_no_negative_zero():
    found = fit_temperature(np.array([[900.0, 0.0]]), np.array([0]))
    assert found.temperature == 1 and f"{found.nll[0]:.4f} {found.nll[1]:.4f}" == "0.0000 0.0000"


def test_one_error_is_enough_for_a_temperature():
    logits = np.array([[5.0, 0], [0, 3.0], [0.5, 0]])
    found = fit_temperature(logits, np.array([0, 1, 1]))
    expected = minimize_scalar(nll, (0.5, 3), args=(logits, np.array([0, 1, 1])))
    assert found.temperature == pytest.approx(expected.x, rel=1e-4) and not found.undetermined


def test_a_known_prior_is_added_after_the_division():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
    prior = np.array([0.6, 0.3, 0.1])
    for method, trained in ((for_known_shares, None), (identity, np.full(3, 1 / 3))):
        adapted = for_prior(with_temperature(method, 2.0), trained, prior)
        expected = softmax(np.asarray(logits, np.float64) / 2 + np.log(prior))
        np.testing.assert_allclose(softmax(np.asarray(adapted(logits))), expected, atol=1e-6)
    assert with_temperature(identity, 1.0) is identity
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="legal: finite, above 0"):
            with_temperature(identity, wrong)


def test_a_classifier_fits_and_takes_a_temperature(finished, classifier, tmp_path):
    found = classifier.fit_temperature(finished.images, finished.labels)
    expected = fit_temperature(finished.logits, finished.labels)
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-3)
    names = finished.labels.astype(str)
    warm = purenoise_jax.load(finished.run.path, temperature=found.temperature)
    assert warm.fit_temperature(finished.images, names).temperature == found.temperature
    seen = warm.predict_proba(finished.images)
    np.testing.assert_allclose(seen, softmax(finished.logits / found.temperature), atol=1e-5)
    np.testing.assert_array_equal(
        warm.predict(finished.images), classifier.predict(finished.images)
    )
    written = write.export(warm, "safetensors", tmp_path / "model.safetensors")
    assert written.difference <= 1e-5
    assert f"without the temperature {found.temperature:.4g}" in written.files[2].read_text()


def test_labels_must_be_classes_and_as_many(finished, classifier):
    for labels, message in (
        (["0", "cat"], "no class of the run"),
        ([0, 4], "no class of the run"),
        ([0], r"shape \(1,\); legal: one for each of 2"),
        ([0.0, 1.0], "legal: one for each of 2"),
    ):
        with pytest.raises(DataError, match=message):
            classifier.fit_temperature(finished.images[:2], labels)


def test_the_command_tells_the_temperature(finished, classifier, tmp_path, capsys):
    assert calibrate.main([str(finished.run.path), str(finished.folder)]) == 0
    shown, warned = capsys.readouterr()
    shown = shown.splitlines()
    assert warned.splitlines() == [
        "warning: fitted on 40 images; with fewer than 50 a temperature is mostly chance"
    ]
    found = classifier.fit_temperature(finished.images, finished.labels)
    assert shown == [
        f"temperature {found.temperature:.4g}, fitted on 40 images",
        f"negative log-likelihood {found.nll[0]:.4f} before, {found.nll[1]:.4f} after",
        f"expected calibration error {found.ece[0]:.4f} before, {found.ece[1]:.4f} after",
        str(finished.run.path / "calibration.json"),
    ]
    (tmp_path / "empty").mkdir()
    assert calibrate.main([str(finished.run.path), str(tmp_path / "empty")]) == 3
    assert "error: there is no image to fit a temperature on" in capsys.readouterr().err
    path = finished.folder / "0/00.png"
    (tmp_path / "empty/one.png").write_bytes(path.read_bytes())
    assert calibrate.main([str(finished.run.path), str(tmp_path / "empty")]) == 3
    assert "error: no image lies in a folder named after a class" in capsys.readouterr().err


def of_class(classifier, finished, right):
    """A test image that the run classifies right, or wrong, and its class."""
    predicted = classifier.predict(finished.images)
    row = int(np.flatnonzero((predicted == finished.labels.astype(str)) == right)[0])
    label = str(finished.labels[row])
    return finished.folder / label / f"{row:02}.png", label


def test_without_errors_the_command_keeps_temperature_1_and_says_so(
    finished, classifier, tmp_path, capsys, monkeypatch
):
    saved = {}
    monkeypatch.setattr(calibrate, "write_calibration", lambda *given: saved.update(given=given))
    image, _ = of_class(classifier, finished, right=True)
    assert calibrate.main([str(finished.run.path), str(image)]) == 0
    shown = capsys.readouterr()
    first, likelihood, _, _ = shown.out.splitlines()
    assert first.startswith("temperature 1 is kept: 1 image, and every image is classified right")
    assert "before" not in likelihood and saved["given"][4].temperature == 1
    assert not shown.err


def test_damaged_images_are_named_and_left_out(finished, tmp_path, capsys, monkeypatch):
    saved = {}
    monkeypatch.setattr(calibrate, "write_calibration", lambda *given: saved.update(given=given))
    photos = tmp_path / "photos"
    shutil.copytree(finished.folder, photos)
    whole = (photos / "1/10.png").read_bytes()
    (photos / "1/10.png").write_bytes(whole[: len(whole) // 2])
    assert calibrate.main([str(finished.run.path), str(photos), str(tmp_path / "nowhere")]) == 3
    shown = capsys.readouterr()
    assert "fitted on 39 images" in shown.out and saved["given"][4].images == 39
    lines = shown.err.splitlines()
    assert sum(f"{photos}/1/10.png: " in line for line in lines) == 1
    assert f"{tmp_path}/nowhere: there is no such file or folder" in lines
    assert lines[-1] == "error: 2 images were left out; the fit is on all others"


def test_nearly_black_images_are_named_and_left_out(finished, tmp_path, capsys, monkeypatch):
    saved = {}
    monkeypatch.setattr(calibrate, "write_calibration", lambda *given: saved.update(given=given))
    photos = tmp_path / "photos"
    shutil.copytree(finished.folder, photos)
    (photos / "1/dark.png").write_bytes(png16(np.full((8, 8, 3), 900, np.uint16)))
    assert calibrate.main([str(finished.run.path), str(photos)]) == 3
    assert saved["given"][4].images == 40
    lines = capsys.readouterr().err.splitlines()
    assert sum(f"{photos}/1/dark.png: no 16-bit image" in line for line in lines) == 1
    assert lines[-1] == "error: 1 image was left out; the fit is on all others"


def test_a_missing_path_is_named(finished, tmp_path, capsys):
    assert calibrate.main([str(finished.run.path), str(tmp_path / "nowhere")]) == 3
    missing, error = capsys.readouterr().err.splitlines()
    assert missing == f"{tmp_path}/nowhere: there is no such file or folder"
    assert error == "error: there is no image to fit a temperature on"
