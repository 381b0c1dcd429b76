"""Figures about training images: classification ratio, feature deviation, t-SNE of two classes."""

import json

import numpy as np
import pytest

from purenoise_jax.analysis import curves, feature_deviation, run_tables
from purenoise_jax.analysis.feature_deviation import deviations
from purenoise_jax.analysis.figure_style import Options, save
from purenoise_jax.analysis.figures import FIGURES
from purenoise_jax.analysis.latest_evaluation import latest_evaluation
from purenoise_jax.analysis.train_test_tsne import pick_of_class
from purenoise_jax.checkpoint.digest import state_digest
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.confusion import FILES, load
from purenoise_jax.training.metrics import TRAINING_SET
from tests.fake_runs import diagonal, write_run
from tests.tiny import COUNTS
from tests.tiny_run import train_tiny

SIZES = [8, 4, 2]
EARLY = np.array([[8, 0, 0], [4, 0, 0], [2, 0, 0]])
LATE = np.array([[7, 1, 0], [1, 3, 0], [0, 1, 1]])
SHARES = [0.8, 0.5, 0.1]


def fake(path, **options):
    options = {"training": {2: EARLY, 4: LATE}, **options}
    evaluations = {2: diagonal(SHARES), 4: diagonal(SHARES)}
    return write_run(path, counts=SIZES, evaluations=evaluations, **options)


def draw(name, runs, tmp_path, **options):
    """Draws and saves a figure, so that warnings of matplotlib fail; returns the saved numbers."""
    drawing = FIGURES[name].draw(runs, Options(**options))
    *_, numbers = save(drawing, tmp_path / "figures", name)
    return drawing.figure, json.loads(numbers.read_text())


def test_the_classification_ratio_is_predicted_over_own_images(tmp_path):
    runs = load_runs([fake(tmp_path / "one"), fake(tmp_path / "two", finished=False)][:1])
    figure, numbers = draw("classification_ratio", runs, tmp_path)
    known = numbers["one"]
    assert known["epochs"] == [2, 4] and known["class_counts"] == SIZES
    # All 14 images fall into the first class, later 8, 5 and 1 into the three.
    np.testing.assert_allclose(known["ratio"], [[14 / 8, 0, 0], [1, 5 / 4, 1 / 2]])
    lines = figure.axes[0].get_lines()
    np.testing.assert_allclose(lines[1].get_ydata(), [0, 125])
    assert [line.get_label() for line in lines[:3]] == ["class 0 (8)", "class 1 (4)", "class 2 (2)"]


def test_of_many_classes_ten_are_drawn_with_the_first_and_the_last(tmp_path):
    counts = [5 + k for k in range(30)]
    matrix = np.diag(counts)
    path = write_run(
        tmp_path / "run", counts=counts, evaluations={4: diagonal([1.0] * 30)},
        training={4: matrix},
    )  # fmt: skip
    figure, numbers = draw("classification_ratio", load_runs([path]), tmp_path)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert len(names) == 10 and (names[0], names[-1]) == ("class 29 (34)", "class 0 (5)")
    assert np.shape(numbers["run"]["ratio"]) == (1, 30)


def test_a_run_without_these_evaluations_is_refused_in_one_line(tmp_path):
    runs = load_runs([fake(tmp_path / "run", training=None)])
    with pytest.raises(ConfigError, match=r"run has no evaluation.*eval\.train=True") as error:
        FIGURES["classification_ratio"].draw(runs, Options())
    assert "\n" not in str(error.value)


def test_report_and_curves_show_training_accuracy_where_it_was_measured(tmp_path):
    with_it, without = load_runs([fake(tmp_path / "a"), fake(tmp_path / "b", training=None)])
    rows = {row.name: row.text for row in run_tables.other_rows(latest_evaluation(with_it))}
    assert rows == {"training, accuracy": "78.6 %", "training, balanced accuracy": "70.8 %"}
    assert not run_tables.other_rows(latest_evaluation(without))
    figure, numbers = curves.draw([with_it], Options())
    assert numbers["a"][f"{TRAINING_SET}/accuracy"] == [[2, 4], [8 / 14, 11 / 14]]
    (line,) = [line for line in figure.axes[1].get_lines() if line.get_linestyle() == "-."]
    np.testing.assert_allclose(line.get_ydata(), [800 / 14, 1100 / 14])
    assert figure.axes[1].get_title().endswith("dash-dotted: training")
    plain, _ = curves.draw([without], Options())
    assert plain.axes[1].get_title() == "test accuracy (%)"


def sets(counts, dimensions=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    return rng.normal(labels[:, None], 1, (len(labels), dimensions)).astype(np.float32), labels


def test_deviations_are_those_of_the_formula_in_another_form():
    training, test = sets([9, 6, 3]), sets([7, 7, 7], seed=1)
    found = deviations(training, test, classes=3, size=3, rounds=20, seed=4)
    # Weights of a round select its images; the distance is the root of a sum of squares.
    rng, expected = np.random.default_rng(4), []
    for k, count in enumerate([9, 6, 3]):
        distances = []
        for _ in range(20):
            weights = np.zeros(count)
            weights[rng.choice(count, 3, replace=False)] = 1 / 3
            apart = weights @ training[0][training[1] == k]
            apart = apart - test[0][test[1] == k].sum(axis=0) / 7
            distances.append(np.sqrt((apart**2).sum()))
        expected.append(sum(distances) / 20)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_equal_features_do_not_deviate_and_a_shift_is_measured():
    features, labels = sets([4, 4])
    options = {"classes": 2, "size": 4, "rounds": 3, "seed": 0}
    found = deviations((features, labels), (features, labels), **options)
    np.testing.assert_allclose(found, 0, atol=1e-6)
    shift = np.float32([3, 4, 0, 0, 0])
    found = deviations((features, labels), (features + shift, labels), **options)
    np.testing.assert_allclose(found, 5, rtol=1e-6)
    assert deviations((features, labels), (features[:4], labels[:4]), **options)[1] is None


def test_equal_sub_samples_take_the_size_of_a_class_out():
    """Means of fewer images are farther away, so that plain means would differ by size alone."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [3000, 30])
    features = rng.normal(0, 1, (3030, 16))
    test = np.zeros((2, 16)), np.array([0, 1])
    large, small = deviations((features, labels), test, classes=2, size=30, rounds=300, seed=0)
    whole = np.linalg.norm(features[labels == 0].mean(axis=0))
    assert whole < 0.2 * small and abs(large - small) < 0.3 * small


def test_two_classes_are_drawn_without_repeats():
    labels = np.repeat([0, 1, 2], [50, 5, 20])
    chosen = pick_of_class(labels, 0, 30, seed=1)
    assert len(set(chosen.tolist())) == 30 and (labels[chosen] == 0).all()
    assert pick_of_class(labels, 1, 30, seed=1).tolist() == [50, 51, 52, 53, 54]
    assert pick_of_class(labels, 0, 30, seed=2).tolist() != chosen.tolist()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    fields = {"eval.train": True, "eval.every_epochs": 1, "eval.test": "end"}
    return train_tiny(tmp_path_factory.mktemp("tiny"), **fields)


@pytest.mark.slow
def test_a_run_records_what_its_checkpoints_predict(run, tmp_path):
    training = run.experiment.training
    for epoch, record in zip((1, 2), run.metrics, strict=True):
        network = Network(run, epoch)
        logits = network.evaluate(network.images(training.images)).logits
        expected = logits.argmax(1)
        assert record["epoch"] == epoch and ("test/accuracy" in record) == (epoch == 2)
        counted = np.bincount(expected, minlength=len(COUNTS)).tolist()
        assert record[f"{TRAINING_SET}/predicted_images"] == counted
        right = [float((expected[training.labels == k] == k).mean()) for k in range(len(COUNTS))]
        assert record[f"{TRAINING_SET}/per_class_accuracy"] == pytest.approx(right)
    assert run.summary[TRAINING_SET]["predicted_images"] == counted
    matrix = load(run.path / FILES[TRAINING_SET], run.summary["steps"])
    assert matrix.by_predicted().tolist() == counted
    plain = train_tiny(tmp_path, **{"eval.every_epochs": 1})
    same = [state_digest(each.state()) for each in (run, plain)]
    assert same[0] == same[1] and TRAINING_SET not in plain.summary


@pytest.mark.slow
def test_the_figures_of_features_take_images_of_both_splits(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        feature_deviation, "deviations", lambda *a, **k: seen.append((a, k)) or deviations(*a, **k)
    )
    figure, numbers = draw("feature_deviation", [run], tmp_path, rounds=7, seed=3)
    ((training, test), options), label = seen[0], run.label
    assert options == {"classes": 4, "size": min(COUNTS), "rounds": 7, "seed": 3}
    network, data = Network(run), run.experiment
    for (features, labels), images in (
        (training, data.training.images), (test, data.dataset.test_images)
    ):  # fmt: skip
        expected = network.evaluate(network.images(images)).features
        np.testing.assert_allclose(features, expected, rtol=1e-5)
        assert len(labels) == len(images)
    values = numbers[label]["deviation"]
    assert min(values) > 0 and figure.axes[0].get_lines()[0].get_ydata().tolist() == values
    assert (numbers[label]["size"], numbers[label]["rounds"]) == (min(COUNTS), 7)
    with pytest.raises(ConfigError, match=r"--images=4, but the smallest class .* has 3"):
        FIGURES["feature_deviation"].draw([run], Options(images=4))
    figure, numbers = draw("train_test_tsne", [run], tmp_path, images=6)
    known = numbers[label]
    # The rarest class has three training images.
    assert known["classes"] == [0] * 12 + [3] * 9
    assert known["training"] == [True] * 6 + [False] * 6 + [True] * 3 + [False] * 6
    assert np.isfinite(known["points"]).all() and len(figure.axes[0].collections) == 4
