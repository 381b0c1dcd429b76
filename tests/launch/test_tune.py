"""The search over config fields: its space, its budget, its restart, and its images."""

import io
import json
import math

import numpy as np
import pytest

from launch import search_plan, tune, tuned
from launch.engines import in_turn
from launch.halving import Round, promoted, rounds_of, total_epochs
from launch.parzen import propose
from launch.search_plan import SearchPlan
from launch.search_space import Dimension, draw, parse_dimension
from launch.tuned import Search, Trial
from purenoise_jax.config.identity import config_hash
from purenoise_jax.config.validation import validate
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import ConfigError, NonFiniteError
from purenoise_jax.runtime.files import read_json, write_json
from purenoise_jax.training import experiment
from purenoise_jax.training.build import build
from tests.tiny import tiny_config, write_npz

RATE = "optimizer.learning_rate"


def plan_of(root, *words):
    return SearchPlan(*tune.parser().parse_known_args(words), root)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"{RATE}=1e-3..1e0:log", Dimension(RATE, (), 0.001, 1.0, True)),
        ("optimizer.momentum=0..0.99", Dimension("optimizer.momentum", (), 0.0, 0.99)),
        ("batch_size=16..64:log", Dimension("batch_size", (), 16, 64, True)),
        ("method=erm,drs, open", Dimension("method", ("erm", "drs", "open"))),
        (
            "optimizer.milestones=(3, 4),(),(5,)",
            Dimension("optimizer.milestones", ("(3, 4)", "()", "(5,)")),
        ),
        ("phases.initial.weight_decay=0,1e-3", Dimension("phases.initial.weight_decay", ("0", "1e-3"))),
    ],
)  # fmt: skip
def test_a_range_or_a_list_of_values_is_read(text, wanted):
    found = parse_dimension(text)
    assert found == wanted and type(found.low) is type(wanted.low)
    assert parse_dimension(str(found)) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method", "legal: NAME=A,B,C"),
        (f"{RATE}=", "legal: NAME=A,B,C"),
        (f"{RATE}=1e-3..1:lin", "log after a colon"),
        (f"{RATE}=1e-3..nan", "LOW..HIGH of numbers"),
        ("batch_size=1.5..64", "LOW..HIGH of integers"),
        (f"{RATE}=0..1", r"optimizer\.learning_rate=0\.0 is not legal; legal: a finite number above"),
        (f"{RATE}=1..1e-3", "the lower end must be below the upper one$"),
        ("optimizer.weight_decay=0..1:log", "upper one, and above 0"),
        ("method=erm,,drs", "an empty value"),
        ("model=resnet8,resnet8", "or one twice"),
        ("ir=10..100", "a range needs a config field of numbers; legal: ir=A,B,C"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_in_one_line(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_dimension(text)


def test_draws_cover_the_space_by_logarithm_and_more_of_them_begin_alike():
    space = [parse_dimension(f"{RATE}=1e-4..1:log"), parse_dimension("batch_size=8..10")]
    trials = draw(space, 200, seed=3)
    assert draw(space, 20, seed=3) == trials[:20] != draw(space, 20, seed=4)
    rates = np.array([float(trial[RATE]) for trial in trials])
    # Uniform in the exponent: mean -2, standard deviation 4 / sqrt(12).
    assert abs(np.log10(rates).mean() + 2) < 4 * 4 / math.sqrt(12 * len(rates))
    assert rates.min() >= 1e-4 and rates.max() <= 1
    assert all(float(f"{rate:.4g}") == rate for rate in rates), "numbers that people can read"
    assert {trial["batch_size"] for trial in trials} == {"8", "9", "10"}


def test_no_values_are_drawn_twice_and_a_small_space_has_fewer_trials():
    space = [parse_dimension("method=erm,drs"), parse_dimension("batch_size=8,16,32")]
    trials = draw(space, 50, seed=0)
    assert len(trials) == 6 == len({tuple(trial.values()) for trial in trials})


@pytest.mark.parametrize(
    ("given", "rounds", "total"),
    [
        # 20 trials of 45 / 9, 20 // 3 of 45 / 3, 20 // 9 of 45: 100 + 90 + 90 epochs.
        ((20, 3, 45, 5), [(20, 5), (6, 15), (2, 45)], 280),
        # 20 // 9 = 2 epochs would be too short.
        ((20, 3, 20, 5), [(20, 6), (6, 20)], 240),
        ((8, 2, 40, 5), [(8, 5), (4, 10), (2, 20), (1, 40)], 160),
        ((2, 3, 90, 5), [(2, 90)], 180),
        ((20, 0, 45, 5), [(20, 45)], 900),
    ],
)
def test_the_budget_is_that_by_hand(given, rounds, total):
    found = rounds_of(*given)
    assert found == rounds and total_epochs(found) == total


def test_the_best_go_on_and_those_without_a_number_do_not():
    assert promoted([0.2, None, 0.9, 0.9, 0.1], 3) == [2, 3, 0]
    assert promoted([None, None], 3) == []


def test_a_trial_is_a_config_whose_schedule_is_scaled_to_the_round(tmp_path):
    words = ("--config=digits_lt:epochs=45,ir=20", f"--field={RATE}=1e-2..1:log")
    plan = plan_of(
        tmp_path, *words, "--field=method=erm,drs", "--trials=9", "--halving=3", "--config.batch_size=8"
    )  # fmt: skip
    assert plan.rounds == [(9, 5), (3, 15), (1, 45)]
    for trial, values in enumerate(plan.trials):
        for epochs in (5, 45):
            config = plan.config_of(trial, epochs)
            assert config.num_epochs == epochs and config.optimizer.learning_rate == float(
                values[RATE]
            )
            assert (config.data.imbalance_ratio, config.batch_size) == (20, 8)
            starts = [phase.start_epoch for phase in config.phases.values()]
            assert max(starts) == (epochs * 4 // 5 if values["method"] == "drs" else 0)


def test_the_full_length_has_no_second_stage(tmp_path):
    words = (f"--field={RATE}=1e-2..1:log", "--trials=9", "--halving=3")
    rounds = [
        plan_of(tmp_path / method, f"--config=digits_lt:method={method}", *words).rounds
        for method in ("erm", "crt")
    ]
    assert rounds[0] == rounds[1]


def test_a_search_with_fewer_trials_keeps_the_others_for_later(tmp_path):
    words = ("--config=digits_lt:epochs=5", f"--field={RATE}=1e-2..1:log")
    four = plan_of(tmp_path, *words, "--trials=4")
    four.write()
    two = plan_of(tmp_path, *words, "--trials=2")
    assert two.trials == four.trials[:2]
    two.write()
    assert plan_of(tmp_path, *words, "--trials=4").trials == four.trials


def test_every_training_holds_validation_out_and_no_test_image_is_there(tmp_path):
    npz = write_npz(tmp_path / "own.npz")
    words = (f"--data={npz}", "--config=images:epochs=5,model=resnet8", "--field=method=erm,drs")
    for config in plan_of(tmp_path, *words, "--seeds=3").searching(0, 5):
        validate(config)
        assert config.eval.test == "never"
    folds = [c.data.fold for c in plan_of(tmp_path, *words, "--seeds=7").searching(1, 5)]
    assert folds == [0, 1, 2, 3, 4, 0, 1]
    held = plan_of(tmp_path, *words, "--config.data.val_fraction=0.2").searching(1, 5)
    assert held[0].data.folds == 0 and held[0].data.val_fraction == 0.2
    # Data with validation images of their own are searched on these.
    with np.load(npz) as arrays:
        everything = dict(arrays)
    val = {f"val_{part}": everything[f"test_{part}"] for part in ("images", "labels")}
    np.savez(npz, **everything, **val)
    (own,) = plan_of(tmp_path, *words, "--seeds=1").searching(1, 5)
    validate(own)
    assert (own.data.folds, own.data.val_fraction) == (0, 0)
    # The fifth that the config of own images holds out by itself is another one for each seed.
    np.savez(npz, **{name: everything[name] for name in ("train_images", "train_labels")})
    usual = plan_of(tmp_path, *words, "--seeds=2").searching(1, 5)
    assert [(each.data.folds, each.data.fold) for each in usual] == [(5, 0), (5, 1)]


def test_a_run_that_never_tests_has_only_validation_images(tmp_path):
    config = tiny_config(
        write_npz(tmp_path / "tiny.npz"), **{"eval.test": "never", "data.folds": 3}
    )
    experiment = build(config)
    assert len(experiment.dataset.test_images) == 0 and experiment.dataset.shown == "val"
    assert experiment.evaluators(16).keys() == {"val"}
    config.data.folds = 0
    with pytest.raises(ConfigError, match=r"^eval\.test=never leaves the validation images"):
        build(config)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--field NAME=VALUES is missing"),
        (["--field=batch_size=8,16", "--field=batch_size=32,64"], "batch_size is given twice"),
        (["--field=batch_size=8,16", "--config.batch_size=4"], "both give batch_size"),
        (["--field=epochs=5,10"], "both give epochs"),
        (["--field=num_epochs=5,10", "--halving=2"], "num_epochs cannot be searched or given"),
        (["--field=batch_size=8,16", "--config.eval.test=end"], "uses no test image"),
        (["--field=batch_size=8,16", "--config.seed=1"], "--seeds sets it"),
        (["--field=batch_size=8,16", "--config.eval.patience=2"], "eval.patience"),
        (["--field=phases.deferred.start_epoch=3,4"], "share their first phase"),
        (["--field=batch_siz=8,16"], "config argument"),
        (["--field=optimizer.rate=8,16"], "did you mean"),
        (["--field=method=erm,opne"], "did you mean 'open'"),
        (["--field=batch_size=8,16", "--halving=1"], "must be 0, or at least 2"),
        (["--field=batch_size=8,16", "--halving=2", "--sampler=tpe"], "--halving=2 is not legal with it"),
        (["--field=batch_size=8,16", "--least-epochs=0"], "--least-epochs=0 must be at least 1"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_refused_in_one_line_and_nothing_is_written(
    words, message, capsys, tmp_path
):
    out = tmp_path / "out"
    assert tune.main(["--config=digits_lt:epochs=10", f"--out={out}", "--trials=4", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not out.exists()


class Trainings:
    """In place of training: writes summaries with a number for every method and rate."""

    def __init__(self, monkeypatch, stop_after=1_000, diverging=()):
        self.done, self.stop_after, self.diverging = [], stop_after, diverging
        monkeypatch.setattr(in_turn, "run", self.run)

    def run(self, tasks, console, quick):
        for task in tasks:
            if task.summary:
                continue
            if len(self.done) == self.stop_after:
                raise KeyboardInterrupt
            self.done.append(task.workdir)
            task.workdir.mkdir(parents=True)
            rate = task.config.optimizer.learning_rate
            if rate in self.diverging:
                record = {"error": "not finite", "exit_code": NonFiniteError.exit_code}
                write_json(task.workdir / "failed.json", record)
                continue
            score = 1 - abs(math.log10(rate) + 1) / 4
            summary = {
                "config_hash": config_hash(task.config),
                "val_balanced_accuracy": score,
                "shown": "val",
            }
            write_json(task.workdir / "summary.json", summary)
        return []


WORDS = [
    "--config=digits_lt:epochs=10,method=erm",
    f"--field={RATE}=1e-3..10:log",
    "--trials=4",
    "--halving=2",
]


def test_a_search_that_was_stopped_goes_on_and_trains_nothing_twice(tmp_path, monkeypatch, capsys):
    whole = Trainings(monkeypatch)
    assert tune.main([*WORDS, f"--out={tmp_path / 'whole'}"]) == 0
    # 4 trials of 5 epochs, 2 of 10.
    assert len(whole.done) == len(set(whole.done)) == 6
    first = Trainings(monkeypatch, stop_after=3)
    assert tune.main([*WORDS, f"--out={tmp_path / 'parts'}"]) == 130
    # The draws are read from the folder.
    monkeypatch.setattr("launch.search_plan.draw", None)
    rest = Trainings(monkeypatch)
    assert tune.main([*WORDS, f"--out={tmp_path / 'parts'}"]) == 0
    assert not {*first.done} & {*rest.done} and len(first.done + rest.done) == 6
    again = Trainings(monkeypatch)
    assert tune.main([*WORDS, f"--out={tmp_path / 'parts'}"]) == 0 and not again.done
    tables = [read_json(tmp_path / name / "tables/tune.json") for name in ("whole", "parts")]
    scores = [[trial["score"] for trial in table["trials"]] for table in tables]
    assert scores[0] == scores[1]
    # The best is that next to the rate with the highest score, which is 0.1.
    rates = [abs(math.log10(float(t["values"][RATE])) + 1) for t in tables[0]["trials"]]
    assert rates[0] == min(rates)
    assert [trial["epochs"] for trial in tables[0]["trials"]] == [10, 10, 5, 5]
    other = [*WORDS[:1], f"--field={RATE}=1e-2..1", *WORDS[2:], f"--out={tmp_path / 'parts'}"]
    capsys.readouterr()
    assert tune.main(other) == 2
    assert "has another search: optimizer.learning_rate=0.001..10.0:log" in capsys.readouterr().err


def test_a_trial_whose_numbers_are_not_finite_is_last_and_not_trained_again(
    tmp_path, monkeypatch, capsys
):
    plan = plan_of(tmp_path / "x", *WORDS)
    diverging = {float(plan.trials[2][RATE])}
    Trainings(monkeypatch, diverging=diverging)
    words = [*WORDS, f"--out={tmp_path / 'out'}"]
    assert tune.main(words) == 0
    record = read_json(tmp_path / "out/tables/tune.json")
    assert (record["trials"][-1]["trial"], record["trials"][-1]["failed"]) == (2, True)
    again = Trainings(monkeypatch)
    assert tune.main(words) == 0 and not again.done
    assert "has failed before, its numbers were not finite" in capsys.readouterr().out


def test_the_table_has_the_best_first_and_the_command_that_trains_it(tmp_path):
    trials = (
        Trial(0, {"method": "erm", RATE: "0.1"}, Round(3, 5), {0: 0.5, 1: 0.7}),
        Trial(1, {"method": "drs", RATE: "0.2"}, Round(1, 15), {0: 0.55, 1: 0.56}),
        Trial(2, {"method": "drs", RATE: "9.0"}, Round(3, 5), {}, failed=True),
    )
    space = ("method=erm,drs", f"{RATE}=0.01..10.0:log")
    rounds = (Round(3, 5), Round(1, 15))
    search = Search("digits_lt", space, "balanced_accuracy", rounds, trials)
    assert [trial.number for trial in search.ranked] == [1, 0, 2]
    command = tuned.command_line(
        "digits_lt:ir=20", {"method": "drs"}, [f"--config.{RATE}=0.2"], tmp_path / "the best"
    )
    assert command.endswith("'") and "--config digits_lt:ir=20,method=drs --config.opt" in command
    output = io.StringIO()
    tuned.show(search, command, SafeConsole(file=output, width=200))
    assert "best of 3" in output.getvalue() and command in output.getvalue().replace("\n", "")
    paths = tuned.write(search, command, tmp_path)
    lines = paths[0].read_text().splitlines()
    assert lines[2] == f"| trial | method | {RATE} | epochs | validation, balanced accuracy |"
    assert lines[4] == "| 1 | drs | 0.2 | 15 | 55.5 ± 0.5 |"
    assert lines[6] == "| 2 | drs | 9.0 | 5 | failed |"
    assert json.loads(paths[1].read_text())["trials"][0]["values"] == trials[1].values


def quality(trial):
    """Best at a rate of 0.1, and with drs."""
    return 0.8 - abs(math.log10(float(trial[RATE])) + 1) / 4 + 0.2 * (trial["method"] == "drs")


def test_proposals_are_better_than_draws_and_a_function_of_the_trials_before():
    space = [parse_dimension(f"{RATE}=1e-4..10:log"), parse_dimension("method=erm,drs,open")]
    gains = []
    for seed in range(3):
        drawn = draw(space, 20, seed)
        trials = drawn[:10]
        while len(trials) < 20:
            given = space, trials, [quality(trial) for trial in trials], 2, seed
            found = propose(*given)
            assert found == propose(*given) and found[0] != found[1]
            trials += found
        assert len({tuple(trial.values()) for trial in trials}) == 20
        assert all(1e-4 <= float(trial[RATE]) <= 10 for trial in trials)
        gains.append(
            np.mean([quality(t) for t in trials[10:]]) - np.mean([quality(t) for t in drawn])
        )
    assert np.mean(gains) > 0.1
    # Other scores, another seed or trials without a score lead elsewhere.
    others = [([0.5, 0.1], 0), ([0.1, 0.5], 0), ([0.5, 0.1], 1), ([None, 0.1], 0), ([None] * 2, 0)]
    first = [propose(space, drawn[:2], scores, 1, seed)[0][RATE] for scores, seed in others]
    assert len(set(first)) >= 4


def test_a_small_space_is_proposed_whole_and_only_once():
    space = [parse_dimension("method=erm,drs"), parse_dimension("batch_size=8,16")]
    trials = draw(space, 2, 0)
    found = propose(space, trials, [0.1, 0.9], 5, 0)
    assert len(found) == 2 and not [trial for trial in found if trial in trials]


def test_a_search_by_proposals_that_was_stopped_proposes_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search_plan, "STARTUP", 3)
    told, real = [], search_plan.propose

    def spy(space, trials, scores, count, seed):
        told.append((len(trials), [*scores], count))
        return real(space, trials, scores, count, seed)

    monkeypatch.setattr(search_plan, "propose", spy)
    words = [*WORDS[:2], "--trials=5", "--sampler=tpe"]
    diverging = {float(plan_of(tmp_path / "x", *words).trials[1][RATE])}
    whole = Trainings(monkeypatch, diverging=diverging)
    assert tune.main([*words, f"--out={tmp_path / 'whole'}"]) == 0
    assert len(whole.done) == 5
    trials = read_json(tmp_path / "whole/trials.json")["trials"]
    # The first three at random, then one at a time; one that diverged is as bad as can be.
    assert [(before, count) for before, _, count in told] == [(3, 1), (4, 1)]
    scores = [1 - abs(math.log10(float(trial[RATE])) + 1) / 4 for trial in trials]
    scores[1] = 0.0
    assert told[1][1] == pytest.approx(scores[:4])
    first = Trainings(monkeypatch, stop_after=4, diverging=diverging)
    assert tune.main([*words, f"--out={tmp_path / 'parts'}"]) == 130
    rest = Trainings(monkeypatch, diverging=diverging)
    assert tune.main([*words, f"--out={tmp_path / 'parts'}"]) == 0
    assert len(first.done + rest.done) == 5 and not {*first.done} & {*rest.done}
    assert read_json(tmp_path / "parts/trials.json")["trials"] == trials
    again = Trainings(monkeypatch)
    assert tune.main([*words, f"--out={tmp_path / 'parts'}", "--only-table"]) == 0
    assert not again.done
    capsys.readouterr()
    assert tune.main([*WORDS[:2], "--trials=5", f"--out={tmp_path / 'parts'}"]) == 2
    assert "seed 0, sampler tpe; choose another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_by_proposals_on_digits_is_the_same_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search_plan, "STARTUP", 1)
    words = ["--config=digits_lt:epochs=1,method=erm", f"--field={RATE}=0.05..0.2",
             "--sampler=tpe", "--trials=2", "--config.data.limit=40"]  # fmt: skip
    assert tune.main([*words, f"--out={tmp_path / 'out'}"]) == 0
    shown = capsys.readouterr().out
    assert "trials 1 to 1 of 2" in shown and "trials 2 to 2 of 2" in shown
    table = read_json(tmp_path / "out/tables/tune.json")
    assert len(table["trials"]) == 2 and all(trial["score"] for trial in table["trials"])
    trials = read_json(tmp_path / "out/trials.json")
    # Its second trial is gone, and is proposed again from the score of the first.
    write_json(tmp_path / "out/trials.json", {**trials, "trials": trials["trials"][:1]})
    assert tune.main([*words, f"--out={tmp_path / 'out'}"]) == 0
    assert read_json(tmp_path / "out/trials.json") == trials
    assert read_json(tmp_path / "out/tables/tune.json") == table


@pytest.mark.slow
def test_a_search_on_digits_never_evaluates_a_test_image(tmp_path, monkeypatch, capsys):
    given, original = [], experiment.Evaluator

    def evaluator(model, images, labels, **rest):
        given.append(len(labels))
        return original(model, images, labels, **rest)

    monkeypatch.setattr(experiment, "Evaluator", evaluator)
    words = ["--config=digits_lt:epochs=2", f"--field={RATE}=0.05..0.2", "--field=method=erm,rs",
             "--trials=2", "--halving=2", "--least-epochs=1", f"--out={tmp_path / 'out'}",
             "--config.data.limit=40"]  # fmt: skip
    assert tune.main(words) == 0
    shown = capsys.readouterr().out
    # The test set has 400 images; a fold of the training images has far fewer.
    assert len(given) == 3 and max(given) < 100
    assert "2 trials of 1 epoch, then 1 trial of 2 epochs: 4 epochs" in shown
    for path in (tmp_path / "out").rglob("summary.json"):
        summary = read_json(path)
        assert summary["shown"] == "val" and summary["test_accuracy"] is None
    command = read_json(tmp_path / "out/tables/tune.json")["command"]
    assert "--config digits_lt:epochs=2,method=" in command and "folds" not in command
