"""The best checkpoint by a validation metric, early stopping, and a test set that waits."""

import json
import shutil

import pytest

import purenoise_jax
from purenoise_jax import calibrate
from purenoise_jax.analysis.latest_evaluation import latest_evaluation
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.checkpoint.record_fields import FIELDS
from purenoise_jax.config.fields import BEST, NONE
from purenoise_jax.config.validation import validate
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.training import records
from purenoise_jax.training.best import METRICS, Best
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.metric_writer import read_metrics
from purenoise_jax.training.run import TrainingRun
from tests.notes import Notes
from tests.tiny import tiny_config, write_npz


def followed(metric, values, counts=True):
    best = Best(metric)
    for epoch, value in enumerate(values, 1):
        best = best.after({metric: value}, 10 * epoch, epoch, counts)
    return best


def test_the_first_best_counts_and_the_others_are_stale():
    best = followed("balanced_accuracy", [0.5, 0.7, 0.7, None, 0.6])
    assert best == Best("balanced_accuracy", 0.7, 20, 2, stale=3)
    assert followed("nll", [2.0, 1.5, 1.7]) == Best("nll", 1.5, 20, 2, stale=1), "less is better"
    assert followed("accuracy", [0.5, 0.4, 0.6]).stale == 0
    assert followed("accuracy", [0.5, 0.4, 0.3], counts=False).stale == 0


def test_nothing_is_chosen_without_a_metric_or_validation_images():
    assert Best(NONE).after({"accuracy": 1.0}, 1, 1, True) == Best(NONE)
    assert Best("accuracy").after(None, 1, 1, True) == Best("accuracy")
    assert Best("accuracy").to_json() is None
    assert set(METRICS) == set(BEST) - {NONE}


def test_a_run_continues_with_the_best_of_its_checkpoint():
    best = followed("accuracy", [0.5, 0.4])
    stored = json.loads(json.dumps(best.to_json()))
    assert FIELDS["best"][0](stored) and FIELDS["best"][0](None)
    assert Best.restored("accuracy", stored, [10, 20]) == best
    # With another metric, or without its checkpoint, it begins anew.
    assert Best.restored("nll", stored, [10, 20]) == Best("nll")
    assert Best.restored("accuracy", stored, [20]) == Best("accuracy")
    assert Best.restored("accuracy", None, [20]) == Best("accuracy")
    for odd in ({}, {**stored, "step": -1}, {**stored, "value": None}, 3):
        assert not FIELDS["best"][0](odd)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def config_of(npz, **fields):
    return tiny_config(npz, **{
        "data.val_fraction": 0.2, "eval.every_epochs": 1, "checkpoint.keep": 1, "num_epochs": 5,
        "checkpoint.epochs": (), "phases.deferred.start_epoch": 1, **fields,
    })  # fmt: skip


def test_patience_needs_a_metric_and_validation_images(npz):
    with pytest.raises(
        ConfigError, match=r"eval.patience=3 .*checkpoint.best=none names no metric"
    ):
        validate(config_of(npz, **{"eval.patience": 3, "checkpoint.best": "none"}))
    without = config_of(npz, **{"eval.patience": 3, "data.val_fraction": 0.0})
    with pytest.raises(ConfigError, match=r"eval.patience=3 .*has none; legal: 0, or data.val_"):
        build(without)


VALUES = {1: 0.9, 2: 0.3, 3: 0.8, 4: 0.5, 5: 0.5}


@pytest.fixture
def given_values(monkeypatch):
    """Gives the evaluation after each epoch a validation result of `VALUES`."""
    real = records.evaluate_all

    def evaluate(evaluators, state, *rest):
        numbers, matrices = real(evaluators, state, *rest)
        if "val" in numbers:
            numbers["val"]["balanced_accuracy"] = VALUES[int(state.step) // 3]
        return numbers, matrices

    monkeypatch.setattr(records, "evaluate_all", evaluate)


def left_by(workdir):
    """The results of a run that must not depend on interruptions."""
    summary = json.loads((workdir / "summary.json").read_text())
    names = ("state_digest", "best", "selected", "epochs", "ended_early", "test_accuracy")
    lines = read_metrics(workdir / "metrics.jsonl")
    for line in lines:
        line.pop("train/images_per_second")
    # Bins and average precision, of which the latter needs the logits of the last evaluation.
    fits = [(workdir / f"probabilities_{split}.json").read_text() for split in ("test", "val")]
    return {name: summary[name] for name in names}, lines, Checkpoints(workdir).steps(), fits


@pytest.mark.slow
def test_the_best_checkpoint_survives_an_interruption_after_any_epoch(
    npz, tmp_path, given_values, monkeypatch
):
    notes = Notes()
    train_and_evaluate(config_of(npz), tmp_path / "whole", notes)
    whole = left_by(tmp_path / "whole")
    assert whole[0]["best"] == {
        "metric": "balanced_accuracy", "value": 0.9, "step": 3, "epoch": 1, "stale": 4,
    }  # fmt: skip
    assert whole[2] == [3, 15], "the best and the last"
    assert any("kept beside the last" in line and "checkpoints/3" in line for line in notes.lines)
    # By name it is the same as by number, and another than the newest.
    named, numbered, newest = (
        purenoise_jax.load(tmp_path / "whole", epoch=epoch).trained for epoch in ("best", 1, None)
    )
    assert (named.epoch, named.step, newest.step) == (1, 3, 15)
    kernels = [each.variables["params"]["head"]["kernel"] for each in (named, numbered, newest)]
    assert (kernels[0] == kernels[1]).all() and (kernels[0] != kernels[2]).any()
    assert calibrate.main([str(tmp_path / "whole"), "--epoch=best"]) == 0
    assert json.loads((tmp_path / "whole/calibration.json").read_text())["step"] == 3
    shutil.rmtree(tmp_path / "whole/checkpoints/3")
    with pytest.raises(CheckpointError, match="the best balanced_accuracy, after epoch 1, is gone"):
        purenoise_jax.load(tmp_path / "whole", epoch="best")

    begin, ends = TrainingRun.begin_epoch, {1, 2, 4}

    def interrupted(self, epoch, phase):
        if epoch in ends:
            ends.remove(epoch)
            raise KeyboardInterrupt
        return begin(self, epoch, phase)

    monkeypatch.setattr(TrainingRun, "begin_epoch", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(config_of(npz), tmp_path / "parts")
        assert 3 in Checkpoints(tmp_path / "parts").steps()
    train_and_evaluate(config_of(npz), tmp_path / "parts")
    assert left_by(tmp_path / "parts") == whole


@pytest.mark.slow
def test_a_run_ends_early_and_is_complete(npz, tmp_path, given_values):
    """Patience counts from the last phase on: the second epoch is its first."""
    notes = Notes()
    fields = {"eval.patience": 3, "eval.test": "end"}
    train_and_evaluate(config_of(npz, **fields), tmp_path / "run", notes)
    left = left_by(tmp_path / "run")
    summary, lines, steps, _ = left
    assert (summary["epochs"], summary["ended_early"], steps) == (4, True, [3, 12])
    assert any("ends after epoch 4, because 3 evaluations in a row" in n for n in notes.lines)
    # The test set was looked at once, and validation after every epoch.
    assert ["test/accuracy" in line for line in lines] == [False, False, False, True]
    assert all("val/accuracy" in line for line in lines)
    evaluation = latest_evaluation(load_runs([tmp_path / "run"])[0])
    assert evaluation.finished and evaluation.epoch == 4
    assert evaluation.validation["balanced_accuracy"] == 0.5
    # Once more it does nothing; with more patience it goes on.
    train_and_evaluate(config_of(npz, **fields), tmp_path / "run", notes)
    assert left_by(tmp_path / "run") == left
    train_and_evaluate(config_of(npz, **{**fields, "eval.patience": 9}), tmp_path / "run")
    assert left_by(tmp_path / "run")[0]["epochs"] == 5
