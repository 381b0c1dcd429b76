"""Records and files of an evaluation of many classes: their content, and their size."""

import json

import numpy as np
import pytest

from purenoise_jax.methods.recipe import identity
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training import records
from purenoise_jax.training.confusion import FILES, Confusion, load, save
from purenoise_jax.training.evaluation import ECE_BINS, Counts, Sums
from purenoise_jax.training.shifted_tests import NAMES

RNG = np.random.default_rng(0)


class Recipe:
    postprocess = staticmethod(identity)

    @staticmethod
    def evaluated(state):
        return state


class Phase:
    recipe = Recipe


def evaluated(classes, images=3, share=0.5):
    """An evaluation of `images` of each class, of which about `share` are right."""
    labels = np.repeat(np.arange(classes, dtype=np.int32), images)
    right = RNG.random(labels.size) < share
    predicted = np.where(right, labels, RNG.integers(0, classes, labels.size)).astype(np.int32)
    correct = np.bincount(labels[labels == predicted], minlength=classes)
    bins = np.zeros((ECE_BINS, 3), np.float32)
    bins[7] = labels.size, labels.size / 2, correct.sum()
    top5 = np.minimum(correct + 1, images).astype(np.int32)
    sums = Sums(np.float32(2 * labels.size), bins, top5, np.tile(correct, (len(NAMES), 1)))

    class Evaluator:
        def __call__(self, variables, postprocess, logits):
            assert not logits
            return Counts(predicted, sums)

    evaluator = Evaluator()
    evaluator.labels = labels
    counts = np.maximum(1, np.geomspace(1000, 2, classes).astype(int))
    numbers, matrices = records.evaluate_all({"test": evaluator}, None, Phase, counts)
    return numbers["test"], matrices, labels, predicted, top5


@pytest.mark.parametrize("classes", [5, 6, 100, 101])
def test_the_numbers_are_those_of_the_images(classes):
    numbers, _, labels, predicted, top5 = evaluated(classes)
    right = labels == predicted
    assert numbers["accuracy"] == right.mean()
    by_class = [float(right[labels == k].mean()) for k in range(classes)]
    assert numbers["per_class_accuracy"] == by_class
    assert numbers["balanced_accuracy"] == pytest.approx(np.mean(by_class))
    # With five classes, every image has its class among five.
    assert numbers.get("top5_accuracy") == (top5.sum() / labels.size if classes > 5 else None)
    unknown, known = numbers["shifted_accuracy"][NAMES.index("uniform")]
    assert unknown == pytest.approx(np.mean(by_class)) and known == pytest.approx(unknown)
    if classes <= 100:
        matrix = np.zeros((classes, classes), int)
        np.add.at(matrix, (labels, predicted), 1)
        assert numbers["confusion_matrix"] == matrix.tolist()
    else:
        assert "confusion_matrix" not in numbers


def test_a_record_of_8142_classes_is_small(tmp_path):
    numbers, matrices, labels, predicted, top5 = evaluated(8142)
    assert len(numbers["per_class_accuracy"]) == 8142
    line = json.dumps({f"test/{name}": value for name, value in numbers.items()})
    assert len(line) < 150_000
    records.save_results(tmp_path, matrices, 7)
    path = tmp_path / FILES["test"]
    others = [p for p in tmp_path.iterdir() if p != path]
    assert [p.name for p in others] == ["probabilities_test.json"]
    assert max(others[0].stat().st_size, path.stat().st_size) < 250_000
    found = load(path, 7)
    pairs = np.unique(np.stack([labels, predicted]), axis=1, return_counts=True)
    np.testing.assert_array_equal(np.stack([found.true, found.predicted]), pairs[0])
    np.testing.assert_array_equal(found.count, pairs[1])
    with np.load(path) as arrays:
        assert arrays["images"].tolist() == [3] * 8142
        np.testing.assert_array_equal(arrays["top5"], top5)
        np.testing.assert_array_equal(arrays["predicted_images"], np.bincount(predicted, minlength=8142))  # fmt: skip
        assert arrays["correct"].sum() == (labels == predicted).sum()


def test_the_same_matrix_gives_the_same_file(tmp_path):
    confusion = Confusion.from_dense(np.array([[3, 1], [0, 2]]))
    for name in "ab":
        save(tmp_path / name, confusion, np.array([4, 2]), 3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_that_is_missing_damaged_or_of_another_step_is_named(tmp_path):
    path = tmp_path / "confusion_test.npz"
    with pytest.raises(ConfigError, match=r"confusion_test\.npz is missing"):
        load(path, 3)
    save(path, Confusion.from_dense(np.array([[3, 1], [0, 2]])), np.array([4, 2]), 3)
    assert load(path, 3).dense().tolist() == [[3, 1], [0, 2]]
    with pytest.raises(ConfigError, match="is that of step 3, and the newest evaluation that of step 4"):  # fmt: skip
        load(path, 4)
    whole = path.read_bytes()
    with np.load(path) as arrays:
        entries = dict(arrays)
    for name, value in (("images", [3, 3]), ("true", [0, 0, 5]), ("count", 4), ("step", "three")):
        with path.open("wb") as file:
            np.savez(file, **{**entries, name: np.asarray(value)})
        with pytest.raises(ConfigError, match=r"confusion_test\.npz is damaged"):
            load(path, 3)
    for content in (b"", b"no archive", whole[:-30], whole.replace(b"count", b"other")):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"confusion_test\.npz is damaged"):
            load(path, 3)
    for position in range(0, len(whole), 37):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        try:
            found = load(path, 3)
        except ConfigError:
            continue
        assert found.dense().tolist() == [[3, 1], [0, 2]], "the byte means nothing"
