"""Average precision beside scikit-learn's, and the file with it and the bins of confidence."""

import json

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import average_precision_score

from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training import probabilities
from purenoise_jax.training.probabilities import Probabilities, average_precisions, load, save


@pytest.mark.parametrize("decimals", [8, 0])
def test_average_precision_is_that_of_scikit_learn_also_among_equals(decimals, monkeypatch):
    monkeypatch.setattr(probabilities, "ROWS", 64)
    rng = np.random.default_rng(0)
    labels = rng.choice(5, 150, p=[0.5, 0.3, 0.15, 0.05, 0])
    logits = (rng.normal(size=(150, 5)) + np.eye(5)[labels]).round(decimals).astype(np.float32)
    found = average_precisions(logits, labels)
    shares = log_softmax(logits.astype(np.float64), axis=1)
    assert found[4] is None
    for k in range(4):
        assert found[k] == pytest.approx(average_precision_score(labels == k, shares[:, k]))


def test_average_precision_by_hand():
    # The images of each class are first and third in the order of its probability.
    logits = np.array([[4, 0], [3, 0], [2, 0], [1, 0]], np.float32)
    labels = np.array([0, 1, 0, 1])
    assert average_precisions(logits, labels) == [pytest.approx((1 + 2 / 3) / 2)] * 2
    # All are alike: the precision is the share of the class.
    assert average_precisions(np.zeros((4, 2), np.float32), labels) == [0.5, 0.5]


def test_one_image_one_class_and_extreme_logits():
    assert average_precisions(np.ones((1, 1), np.float32), np.array([0])) == [1]
    largest = np.finfo(np.float32).max
    extreme = np.array([[largest, -largest], [-largest, largest]], np.float32)
    assert average_precisions(extreme, np.array([0, 1])) == [1, 1]
    extreme[0, 0] = np.inf
    assert average_precisions(extreme, np.array([0, 1])) == [None, None]


BINS = np.array([[3, 1.5, 2], [0, 0, 0]])


def test_the_file_gives_back_the_numbers(tmp_path):
    path = tmp_path / "probabilities_test.json"
    save(path, Probabilities(BINS, [0.25, None]), 7)
    found = load(path, 7, 2)
    assert found.bins.tolist() == BINS.tolist() and found.average_precision == [0.25, None]
    with pytest.raises(
        ConfigError, match=r"is that of step 7, and the newest evaluation .* step 8"
    ):
        load(path, 8, 2)
    with pytest.raises(ConfigError, match=r"test\.json is missing: it is written at the end"):
        load(tmp_path / "no" / path.name, 7, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"bins": [[1, 2]]},
        {"bins": "none"},
        {"bins": [[1, 2, None]]},
        {"average_precision": [0.5]},
        {"average_precision": [0.5, 2]},
        {"average_precision": None},
        {"step": "seven"},
    ],
)
def test_a_damaged_file_is_named(tmp_path, change):
    path = tmp_path / "probabilities_test.json"
    save(path, Probabilities(BINS, [0.25, None]), 7)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match=r"probabilities_test\.json is damaged"):
        load(path, 7, 2)
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ConfigError, match=r"probabilities_test\.json is damaged"):
        load(path, 7, 2)
