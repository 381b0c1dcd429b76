"""Runs that train nothing: they take over all epochs of another run, and evaluate its network."""

import json
import re

import numpy as np
import pytest

from purenoise_jax import load
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.runtime.console import Display
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.metric_writer import read_metrics
from tests.tiny import STEPS_PER_EPOCH, tiny_config, write_npz

STEP = 2 * STEPS_PER_EPOCH


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a plain run, and the configs of runs that change evaluation alone."""
    folder = tmp_path_factory.mktemp("runs")
    npz = write_npz(folder / "tiny.npz")

    def config(*methods, **more):
        made = tiny_config(npz, num_epochs=2, **{"checkpoint.epochs": (), **more})
        del made.phases["deferred"]
        made.phases.initial.methods = methods
        return made

    train(config("erm"), folder / "plain")
    return folder, config


def train(config, workdir):
    return train_and_evaluate(config, workdir, Display(active=False))


def over(folder):
    return {"init_from": str(folder / "plain"), "init_epoch": 2}


def summary(workdir):
    found = json.loads((workdir / "summary.json").read_text())
    # Not the seconds, nor where the run began.
    names = ("test_accuracy", "test_nll", "per_class_accuracy", "shifted_accuracy", "intervals")
    return {name: found[name] for name in (*names, "state_digest", "epochs", "steps")}


CASES = {"PC-softmax": (("erm",), {"method.erm.tau": 1.0}), "tau-norm": (("tau_norm",), {})}


@pytest.mark.parametrize(("methods", "more"), CASES.values(), ids=CASES)
def test_its_numbers_are_those_of_the_run_that_trains_as_well(runs, tmp_path, methods, more):
    folder, config = runs
    train(config(*methods, **more), tmp_path / "whole")
    train(config(*methods, **more, **over(folder)), tmp_path / "own")
    assert summary(tmp_path / "own") == summary(tmp_path / "whole")
    assert summary(tmp_path / "own")["test_nll"] != summary(folder / "plain")["test_nll"]
    (record,) = read_metrics(tmp_path / "own/metrics.jsonl")
    last = read_metrics(tmp_path / "whole/metrics.jsonl")[-1]
    assert record == {name: last[name] for name in record} and record["epoch"] == 2
    images = np.load(folder / "tiny.npz")["test_images"]
    wanted = load(tmp_path / "whole").predict_proba(images)
    np.testing.assert_array_equal(load(tmp_path / "own").predict_proba(images), wanted)


def test_it_says_so_and_started_again_it_changes_nothing(runs, tmp_path):
    folder, config = runs
    lines: list[str] = []

    class Notes(Display):
        def note(self, line: str, **_: str) -> None:
            lines.append(line)

    made = config("tau_norm", **over(folder))
    workdir = tmp_path / "own"
    train_and_evaluate(made, workdir, Notes(active=False))
    assert any(re.search(r"trains nothing, .*/plain after epoch 2$", line) for line in lines), lines
    assert not any("continues" in line for line in lines)
    before = (workdir / "metrics.jsonl").read_bytes(), summary(workdir)
    train(made, workdir)
    assert ((workdir / "metrics.jsonl").read_bytes(), summary(workdir)) == before
    assert Checkpoints(workdir).steps() == [STEP]


@pytest.mark.slow
def test_killed_after_its_checkpoint_or_before_it_has_one_record(runs, tmp_path, monkeypatch):
    folder, config = runs
    made = config("tau_norm", **over(folder))
    train(made, tmp_path / "whole")

    def killed(*_):
        raise KeyboardInterrupt

    for name in ("save", "save_results"):
        workdir = tmp_path / name
        with monkeypatch.context() as patch:
            where = "run.TrainingRun.save" if name == "save" else "records.save_results"
            patch.setattr(f"purenoise_jax.training.{where}", killed)
            with pytest.raises(KeyboardInterrupt):
                train(made, workdir)
        assert not (workdir / "summary.json").exists()
        train(made, workdir)
        assert summary(workdir) == summary(tmp_path / "whole")
        assert len(read_metrics(workdir / "metrics.jsonl")) == 1


@pytest.mark.slow
def test_its_one_evaluation_is_the_best_on_validation_and_is_kept(runs, tmp_path):
    _, config = runs
    held = {"data.val_fraction": 0.3, "checkpoint.best": "balanced_accuracy"}
    train(config("erm", **held), tmp_path / "plain")
    started = {"init_from": str(tmp_path / "plain"), "init_epoch": 2}
    for _ in range(2):
        train(config("tau_norm", **held, **started), tmp_path / "own")
        found = json.loads((tmp_path / "own/summary.json").read_text())
        assert (found["best"]["epoch"], found["best"]["step"]) == (2, found["steps"])
        assert Checkpoints(tmp_path / "own").steps() == [found["steps"]]


@pytest.mark.slow
@pytest.mark.parametrize("test", ["never", "always"])
def test_it_follows_the_rule_of_the_test_set(runs, tmp_path, test):
    _, config = runs
    workdir = tmp_path / "own"
    more = {"eval.test": test, "data.val_fraction": 0.3}
    train(config("erm", **more), tmp_path / "plain")
    started = {"init_from": str(tmp_path / "plain"), "init_epoch": 2}
    train(config("tau_norm", **more, **started), workdir)
    (record,) = read_metrics(workdir / "metrics.jsonl")
    assert ("test/accuracy" in record) == (test == "always") and "val/accuracy" in record
