"""Runs whose test or validation images were held out, lack classes, or are not there."""

import json

import numpy as np
import pytest

import purenoise_jax
from purenoise_jax.analysis.html_report import render
from purenoise_jax.analysis.latest_evaluation import latest_evaluation
from purenoise_jax.config.validation import validate
from purenoise_jax.inference.exports.write import export
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.build import build, run_options
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.metric_writer import read_metrics
from purenoise_jax.training.records import split_line, split_lines, subset_line
from tests.notes import Notes
from tests.tiny import tiny_config, write_npz


def write(path, **changes):
    """The tiny data set with other arrays; None removes one."""
    with np.load(write_npz(path)) as loaded:
        arrays = {**loaded, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.fixture(scope="module")
def without_test(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write(folder / "own.npz", test_images=None, test_labels=None)


def lines_of(config):
    validate(config)
    return split_lines(run_options(config), build(config))


def test_a_test_set_and_a_fold_are_held_out_and_named(without_test):
    fields = {"data.test_fraction": 0.3, "data.folds": 2, "data.fold": 1}
    assert lines_of(tiny_config(without_test, **fields)) == {
        "validation": "15 images held out, fold 1 of 2",
        "test": "14 images held out, a share of each class",
    }
    experiment = build(tiny_config(without_test, **fields))
    options = run_options(tiny_config(without_test, **fields))
    held_out = experiment.training.num_held_out
    assert (
        held_out == 29 and subset_line(options, 16, 45, held_out) == "all 16 images kept (natural)"
    )
    assert subset_line(options, 16, 45) == "natural: 16 of 45 images"
    assert np.bincount(experiment.dataset.test_labels).tolist() == [7, 4, 2, 1]
    assert list(experiment.evaluators(16)) == ["test", "val"]


def test_validation_images_take_the_place_of_a_test_set(without_test):
    config = tiny_config(without_test, **{"data.val_fraction": 0.2})
    assert lines_of(config) == {
        "validation": "9 images held out, a share of each class",
        "test": "no images; validation results take the place of test results",
    }
    experiment = build(config)
    assert experiment.dataset.shown == "val" and list(experiment.evaluators(16)) == ["val"]


def test_classes_without_images_of_a_split_are_named(tmp_path):
    labels = np.repeat([0, 1, 2], 10)
    npz = write(
        tmp_path / "own.npz", test_labels=labels, test_images=np.zeros((30, 8, 8, 3), np.uint8)
    )
    assert lines_of(tiny_config(npz)) == {"test": "30 images; no image of class 3"}
    assert split_line(np.zeros(12, int), [f"c{k}" for k in range(12)], "3 of each class") == (
        "0 images held out, 3 of each class; no image of 12 classes: c0, c1, c2, c3, c4, c5, c6, "
        "c7, c8, c9 and 2 more"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"data.folds": 1}, "data.folds=1 would leave no image"),
        ({"data.folds": 3, "data.fold": 3}, r"data.fold=3 is not legal; legal: 0 .. 2"),
        ({"data.fold": 1}, "data.fold=1 is not legal; legal: 0, because data.folds=0"),
        ({"data.folds": 3, "data.val_fraction": 0.1}, "data.val_fraction=0.1 and data.folds=3 are"),
    ],
)
def test_rules_that_contradict_each_other_are_refused(fields, words, without_test):
    with pytest.raises(ConfigError, match=words):
        validate(tiny_config(without_test, **fields))


@pytest.mark.slow
def test_a_run_without_a_test_set_shows_validation_everywhere(without_test, tmp_path):
    config = tiny_config(
        without_test, **{"data.val_per_class": 3, "eval.every_epochs": 1, "num_epochs": 3}
    )
    notes = Notes()
    train_and_evaluate(config, tmp_path / "run", notes)
    text = "\n".join(notes.lines)
    assert "validation, balanced" in text and "test accuracy" not in text
    assert "best on validation: " in text
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["shown"] == "val" and summary["test_accuracy"] is None
    # The rarest class keeps its three images, so it has none to validate with.
    assert summary["per_class_accuracy"][3] is None
    assert summary["selected"].keys() == {"last", "val"}
    assert not (tmp_path / "run/confusion_test.npz").exists()
    (run,) = load_runs([tmp_path / "run"])
    evaluation = latest_evaluation(run)
    assert evaluation.numbers["accuracy"] == summary["val_accuracy"] and evaluation.finished
    assert evaluation.confusion().by_true().tolist() == [3, 3, 3, 0]
    html = render([run])
    assert "validation accuracy" in html and "test accuracy" not in html


@pytest.mark.slow
def test_test_images_that_are_evaluated_after_the_end_have_their_numbers_everywhere(tmp_path):
    config = tiny_config(
        write_npz(tmp_path / "tiny.npz"),
        **{"data.val_per_class": 2, "eval.test": "never", "num_epochs": 1},
    )
    del config.phases.deferred
    workdir = tmp_path / "run"
    train_and_evaluate(config, workdir)
    (before,) = read_metrics(workdir / "metrics.jsonl")
    assert "test/accuracy" not in before
    config.eval.test = "end"
    train_and_evaluate(config, workdir)
    (after,) = read_metrics(workdir / "metrics.jsonl")
    summary = json.loads((workdir / "summary.json").read_text())
    assert after == {**after, **before}, "the other numbers are as they were"
    for name in ("accuracy", "nll", "ece"):
        assert after[f"test/{name}"] == summary[f"test_{name}"] is not None
    assert summary["shown"] == "test" and summary["selected"]["last"] == {
        "epoch": 1, "test_accuracy": summary["test_accuracy"], "evaluations": 1
    }  # fmt: skip
    # So has the report: the file of the bins is written again, too.
    evaluation = latest_evaluation(load_runs([workdir])[0])
    assert evaluation.probabilities().bins[:, 0].sum() == 40
    assert evaluation.mean_average_precision > 0
    exported = export(purenoise_jax.load(workdir), "safetensors", tmp_path / "net.safetensors")
    card = exported.files[2].read_text()
    assert f"| accuracy | {summary['test_accuracy']:.4g} |" in card and "On the test set" in card
    written = (workdir / "metrics.jsonl").read_text()
    # Started once more, it changes nothing.
    train_and_evaluate(config, workdir)
    assert (workdir / "metrics.jsonl").read_text() == written
