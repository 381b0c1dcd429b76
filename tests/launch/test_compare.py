"""The comparison of methods on any data: its plan, its table and its figure."""

import dataclasses
import html
import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

import purenoise_jax
from launch import choice, compare, comparison
from launch.cells import Row
from launch.engines import in_turn
from launch.plan import Cell
from launch.planning import tasks_of_table
from launch.summaries import accuracy, rarest
from purenoise_jax import calibrate
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.validation import validate
from purenoise_jax.config.validation_images import holds_out
from purenoise_jax.inference.exports.write import export
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.inference.unmeasured import compared, unmeasured
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import ConfigError
from tests.tiny import write_npz

CONFIG = """\
from purenoise_jax.config import parts
from purenoise_jax.config.fields import default_config
def get_config(arg=None):
    args = parts.parse_arg(arg, method="erm", epochs=2)
    config = default_config()
    parts.set_methods(config, args.method, args.epochs)
    config.batch_size = 16
    config.num_devices = 1
    config.data.source, config.data.profile = "npz", "natural"
    config.data.augment = ()
    config.model.name = "tiny"
    config.report = False
    return config
"""


def table_of(*words):
    return compare.make_table(*compare.parser().parse_known_args(words))


def planned(*words, seeds=1, root):
    return tasks_of_table(table_of(*words), range(seeds), root)


def row(method, shares, **more):
    """A method with a balanced accuracy of each seed."""
    summaries = tuple(
        {
            "seed": seed,
            "balanced_accuracy": share,
            "test_accuracy": share + 0.1,
            "group_accuracy": [share / 2, 0.5, 0.6, None, 0.8],
            **more,
        }
        for seed, share in shares.items()
    )
    return Row(Cell("", method, default_config()), 3, summaries)


ERM = row("erm", {0: 0.50, 1: 0.60, 2: 0.55})
DRS = row("drs", {0: 0.58, 1: 0.63, 2: 0.64})
OPEN = row("open", {0: 0.60, 2: 0.70})


def text_of(values):
    values = 100 * np.asarray(values)
    return f"{values.mean():.1f} ± {values.std(ddof=1) / math.sqrt(len(values)):.1f}"


def test_a_table_has_means_errors_and_differences_paired_by_seed():
    rows = [ERM, DRS, OPEN]
    assert comparison.columns(rows) == [
        "method", "runs", "balanced accuracy", "accuracy", "rarest classes", "to erm", "to drs",
    ]  # fmt: skip
    assert comparison.entries(OPEN, rows) == [
        "open", "2 of 3", text_of([0.6, 0.7]), text_of([0.7, 0.8]), text_of([0.3, 0.35]),
        "+" + text_of([0.1, 0.15]), "+" + text_of([0.02, 0.06]),
    ]  # fmt: skip
    assert comparison.entries(ERM, rows)[-2:] == ["-", text_of([-0.08, -0.03, -0.09])]


def test_a_method_without_runs_or_without_a_common_seed_has_no_numbers():
    none, other = row("rs", {}), row("vs", {7: 0.5})
    assert comparison.entries(none, [ERM, none]) == ["rs", "0 of 3", *["missing"] * 3, "-"]
    assert comparison.entries(other, [ERM, other])[-1] == "-"
    assert comparison.columns([ERM])[-1] == "rarest classes"


def test_numbers_are_of_validation_images_where_there_are_no_test_images():
    held = row("erm", {0: 0.5}, shown="val", test_accuracy=None, val_accuracy=0.75)
    assert accuracy(held.summaries[0]) == 0.75
    assert "Percent of the validation images" in comparison.legend([held])
    assert "Percent of the test images" in comparison.legend([ERM])


def test_a_run_without_test_images_ends_with_its_accuracy_on_validation(monkeypatch):
    numbers = {"shown": "val", "test_accuracy": None, "val_accuracy": 0.75, "seconds": 1.0}
    monkeypatch.setattr(in_turn, "train", lambda task, quick: numbers)
    task = SimpleNamespace(name="erm/seed0", summary=None, starts_from=())
    output = io.StringIO()
    assert in_turn.run([task], SafeConsole(file=output), quick=False) == []
    assert "erm/seed0: 75.0 %" in output.getvalue()


def test_folders_of_runs_are_named_after_the_data(tmp_path):
    npz = write_npz(tmp_path / "own.npz")
    for words, name in (((f"--data={npz}",), "own-"), (("--config=digits_lt",), "digits_ir50-")):
        (task,) = planned(*words, "--methods=erm", root=tmp_path)
        assert task.workdir.parent.name.startswith(name)


def test_the_rarest_class_takes_the_place_of_the_rarest_fifth_of_few_classes():
    few = {"class_counts": [9, 2, 2, 5], "per_class_accuracy": [0.9, 0.1, 0.2, 0.4]}
    assert rarest(few) == 0.2
    assert rarest({**few, "per_class_accuracy": [0.9, 0.1, None, 0.4]}) is None
    assert rarest({"group_accuracy": [0.3, 0.5, 0.6, 0.7, 0.8], **few}) == 0.3
    assert rarest({}) is None


def test_files_have_the_table_and_every_run(tmp_path):
    paths = comparison.write("digits", [ERM, OPEN], tmp_path)
    assert {path.suffix for path in paths} == {".md", ".jsonl", ".png", ".pdf", ".json"}
    lines = paths[0].read_text().splitlines()
    assert lines[2] == f"| {' | '.join(comparison.columns([ERM, OPEN]))} |"
    assert lines[4] == f"| {' | '.join(comparison.entries(ERM, [ERM, OPEN]))} |"
    records = [json.loads(line) for line in paths[1].read_text().splitlines()]
    assert [(r["method"], r["seed"], r["balanced_accuracy"]) for r in records] == [
        ("erm", 0, 0.5), ("erm", 1, 0.6), ("erm", 2, 0.55), ("open", 0, 0.6), ("open", 2, 0.7),
    ]  # fmt: skip


def test_a_figure_has_one_colour_a_method_and_its_numbers():
    rows = [ERM, row("rs", {}), OPEN]
    figure, numbers = comparison.draw(rows)
    left, right = figure.axes
    labels = left.get_yticklabels()
    assert [label.get_text() for label in labels] == ["erm", "open"]
    colors = [label.get_color() for label in labels]
    assert len(set(colors)) == 2
    for axes in (left, right):
        assert {line.get_color() for line in axes.lines} == set(colors)
    assert numbers["open"]["balanced_accuracy"] == {0: 0.6, 2: 0.7}
    np.testing.assert_allclose(numbers["open"]["by_frequency"][0], [30, 35])
    # The fourth fifth has no image in the test set.
    assert numbers["erm"]["by_frequency"][3] == []


def test_methods_that_begin_late_share_plain_training(tmp_path):
    words = ("--config=digits_lt:epochs=10", "--methods=erm,drs,open,ldam+drw")
    tasks = planned(*words, seeds=2, root=tmp_path)
    assert len(tasks) == 2 * 5
    erm, drs, pure_noise, ldam, drw = tasks[:5]
    assert erm.starts_from == ldam.starts_from == ()
    assert drs.starts_from == pure_noise.starts_from == (erm.workdir,)
    assert drw.starts_from == (ldam.workdir,)
    assert {task.config.seed for task in tasks[5:]} == {1}


def test_fields_and_data_are_passed_to_every_run(tmp_path):
    words = ("--config=digits_lt:ir=20,epochs=4", "--methods=rs,erm", "--data=photos")
    configs = table_of(*words, "--config.batch_size=8", "--noconfig.report").configs
    assert [c.phases.initial.methods for c in configs] == [("rs",), ("erm",)]
    for config in configs:
        assert (config.data.imbalance_ratio, config.num_epochs, config.batch_size) == (20, 4, 8)
        assert config.data.path == "photos" and not config.report


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config=digits_lt:method=rs", "--methods=erm"], "given by --methods, not by method="),
        (["--config=digits_lt", "--methods=erm,opne"], "did you mean 'open'"),
        (["--config=digits_lt", "--methods=erm,rs,erm"], "names erm twice"),
        (["--config=digits_lt", "--methods=erm", "--config.seed=3"], "--seeds sets it for each"),
        (["--config=digits_lt", "--methods=erm", "--config.batch=3"], "did you mean batch_size?"),
        (["--config=digits_lt", "--methods=erm", "--workdir=a"], "--workdir=a is not known"),
        (["--config=digit_lt", "--methods=erm"], "did you mean 'digits_lt'?"),
        (["--config=digits_lt", "--methods=erm", "--seeds=0"], "--seeds=0 must be at least 1"),
        (["--methods=erm"], "--config=FILE is missing"),
        (["--config=digits_lt", "--methods=erm", "--refit"], "add --pick"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_refused_in_one_line(words, message, capsys):
    assert compare.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_folder_of_runs_of_other_data_is_refused(tmp_path):
    (task,) = planned("--config=digits_lt", "--methods=erm", "--data=here", root=tmp_path)
    compare.refuse_other_data(task)
    task.workdir.mkdir(parents=True)
    record = {"config": {"data": {"path": "elsewhere"}}}
    (task.workdir / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="in elsewhere, not here; choose another --out"):
        compare.refuse_other_data(task)
    record["config"]["data"]["path"] = "./here"
    (task.workdir / "config.json").write_text(json.dumps(record))
    compare.refuse_other_data(task)


def on_validation(method, shares):
    """Best on the test images is another than on the validation images."""
    known = row(method, {seed: 1 - share for seed, share in enumerate(shares)})
    summaries = tuple(
        {**summary, "val_balanced_accuracy": share, "class_counts": [40, 8, 2, 2, 1]}
        for summary, share in zip(known.summaries, shares, strict=True)
    )
    return Row(known.cell, len(shares), summaries)


def test_the_chosen_method_is_the_best_on_validation():
    measure = choice.METRICS["balanced_accuracy"]
    erm, drs, best = (
        on_validation("erm", (0.50, 0.52, 0.54)),
        on_validation("drs", (0.66, 0.60, 0.63)),
        on_validation("open", (0.60, 0.64, 0.68)),
    )
    assert comparison.columns([erm, best])[5] == "validation, balanced accuracy"
    winner = choice.choose([erm, drs, best], measure)
    assert winner is best
    first, to_erm, to_drs = choice.lead_lines(winner, [erm, drs, best], measure)
    assert first.endswith(f"open, {text_of([0.60, 0.64, 0.68])} %")
    assert to_erm == f"ahead of erm by {text_of([0.1, 0.12, 0.14])}, more than two standard errors"
    assert to_drs.startswith(f"ahead of drs by {text_of([-0.06, 0.04, 0.05])}, not more than two")
    assert choice.lead_lines(erm, [erm, best], measure)[1].startswith("ahead of open by -")
    one = [on_validation(name, (share,)) for name, share in (("open", 0.6), ("erm", 0.5))]
    assert choice.lead_lines(one[0], one, measure)[1].endswith("has no standard error")


def test_no_method_is_chosen_without_validation_or_all_runs():
    measure = choice.METRICS["accuracy"]
    with pytest.raises(ConfigError, match="1 run is not done"):
        choice.choose([ERM, OPEN], measure)
    with pytest.raises(ConfigError, match="runs of erm have no validation images; legal: --folds"):
        choice.choose([ERM, DRS], measure)


def tables_of(*words):
    return compare.make_tables(*compare.parser().parse_known_args(words))


def test_every_seed_has_another_fold():
    words = ("--config=digits_lt:epochs=4", "--methods=erm,drs")
    folds = [(c.data.folds, c.data.fold) for t in tables_of(*words, "--folds=3") for c in t.configs]
    assert folds == [(3, 0), (3, 0), (3, 1), (3, 1), (3, 2), (3, 2)]
    picked = [t.configs[0].data for t in tables_of(*words, "--pick=accuracy", "--seeds=6")]
    assert [(data.folds, data.fold) for data in picked] == [(5, s % 5) for s in range(6)]
    for more in ((), ("--pick=accuracy", "--config.data.val_fraction=0.1"), ("--folds=0",)):
        tables = tables_of(*words, *more)
        assert len(tables) == 5 and not any(c.data.folds for t in tables for c in t.configs)


def test_own_images_have_folds_unless_they_have_validation_images_or_some_are_asked_for(tmp_path):
    npz = write_npz(tmp_path / "own.npz")
    with np.load(npz) as arrays:
        everything = dict(arrays)
    train = {name: everything[name] for name in ("train_images", "train_labels")}
    val = {f"val_{part}": everything[f"test_{part}"] for part in ("images", "labels")}

    def rules(arrays, *more, config=""):
        np.savez(npz, **arrays)
        words = [f"--data={npz}", "--methods=erm", "--pick=balanced_accuracy", *more]
        tables = tables_of(*words, *([f"--config={config}"] if config else []))
        found = [(t.configs[0].data.val_fraction, t.configs[0].data.folds) for t in tables]
        assert len(found) == 5 and len(set(found)) == 1
        return found[0]

    # Without a word of the user, the config would hold out the same fifth for every seed.
    assert rules(train) == (0, 5) == rules(everything)
    assert rules(train, "--folds=4", "--seeds=5") == (0, 4)
    assert rules(train, "--config.data.val_fraction=0.1") == (0.1, 0)
    assert rules(train, "--config.data.val_fraction=0.2", config="images:epochs=3") == (0.2, 0)
    assert rules(train, "--seeds=5", config="images:folds=3,fold=1") == (0, 3)
    assert rules({**train, **val}) == (0, 0) == rules({**everything, **val})


def test_the_chosen_method_is_trained_on_all_images(tmp_path):
    (table, *_) = tables_of("--config=digits_lt:epochs=4", "--methods=drs", "--folds=5")
    tested = on_validation("drs", (0.5,))
    tested = dataclasses.replace(tested, cell=table.cells[0])
    tasks, note = choice.refit_tasks(tested, tmp_path)
    assert len(tasks) == 2 and note == "trained on the training and validation images"
    assert not any(holds_out(task.config.data) for task in tasks)
    for task in tasks:
        validate(task.config)
    assert all(task.config.eval.test == "always" for task in tasks)
    # Without test images, none are left to measure with.
    summaries = tuple({**summary, "shown": "val"} for summary in tested.summaries)
    tasks, _ = choice.refit_tasks(dataclasses.replace(tested, summaries=summaries), tmp_path)
    for task in tasks:
        validate(task.config)
        assert not holds_out(task.config.data) and task.config.eval.test == "optional"
    # Validation images of the data themselves stay what they are.
    (own, *_) = tables_of("--config=digits_lt:epochs=4", "--methods=drs")
    own = dataclasses.replace(tested, cell=own.cells[0], summaries=summaries)
    tasks, note = choice.refit_tasks(own, tmp_path)
    assert tasks[-1].config.eval.test == "always" and "validation images of their own" in note


def test_the_summary_of_the_retrained_run_has_the_comparison(tmp_path):
    (tmp_path / "summary.json").write_text('{"epochs": 4}')
    measure = choice.METRICS["balanced_accuracy"]
    shares = (0.6, 0.7, 0.8)
    found = choice.record(tmp_path, on_validation("drs", shares), measure)
    assert json.loads((tmp_path / "summary.json").read_text()) == {"epochs": 4, "comparison": found}
    wanted = "validation, balanced accuracy 70.0 ± 5.8 % (mean and standard error of 3 runs)"
    assert compared(found) == wanted
    one = choice.record(tmp_path, on_validation("drs", (0.6,)), measure)
    assert compared(one) == "validation, balanced accuracy 60.0 % (one run)"


def test_own_images_are_given_by_their_path(tmp_path):
    npz = write_npz(tmp_path / "own.npz")
    for words in ((f"--data={npz}",), ("--config=images:epochs=3", f"--data={npz}")):
        (config,) = table_of(*words, "--methods=erm").configs
        assert (config.data.source, config.data.path) == ("npz", str(npz))
    assert config.num_epochs == 3


@pytest.mark.slow
def test_runs_that_are_done_are_not_run_again(tmp_path, capsys):
    npz, config = write_npz(tmp_path / "tiny.npz"), tmp_path / "mine.py"
    config.write_text(CONFIG)
    words = [f"--config={config}", f"--data={npz}", f"--out={tmp_path / 'out'}"]
    assert compare.main([*words, "--methods=erm,drs", "--seeds=1"]) == 0
    assert compare.main([*words, "--methods=erm,drs,rs", "--seeds=1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count(": already done") == 2
    lines = (tmp_path / "out/tables/comparison.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["method"] for record in records] == ["erm", "drs", "rs"]
    table = (tmp_path / "out/tables/comparison.md").read_text()
    assert records[1]["init_from"]["epoch"] == 1
    assert len({record["dataset_content"] for record in records if "dataset_content" in record}) < 2
    chosen = ["--methods=erm,rs", "--folds=2", "--seeds=1", "--pick=balanced_accuracy", "--refit"]
    assert compare.main([*words, *chosen]) == 0
    shown = capsys.readouterr().out
    assert "chosen on validation" in shown and "python -m purenoise_jax.predict" in shown
    (refit,) = (tmp_path / "out/refit").glob("*/seed0/summary.json")
    assert json.loads(refit.read_text())["class_counts"] == [24, 12, 6, 3]
    for record in records:
        assert f"| {record['method']} | 1 | {100 * record['balanced_accuracy']:.1f} |" in table
    assert "the rarest class." in table and "One seed" in table


def with_a_report(train):
    def trained(task, quick):
        summary = train(task, quick)
        (task.workdir / "report.html").write_text("old")
        return summary

    return trained


@pytest.mark.slow
def test_a_method_that_is_retrained_on_all_images_has_no_accuracy(tmp_path, capsys, monkeypatch):
    npz, config = write_npz(tmp_path / "tiny.npz"), tmp_path / "mine.py"
    config.write_text(CONFIG)
    with np.load(npz) as arrays:
        train = {name: arrays[name] for name in arrays.files if name.startswith("train")}
    np.savez(npz, **train)
    words = [f"--config={config}", f"--data={npz}", f"--out={tmp_path / 'out'}", "--methods=erm"]
    chosen = ["--folds=2", "--pick=balanced_accuracy", "--refit"]
    # A report of the end of the run, which does not know the comparison.
    monkeypatch.setattr(in_turn, "train", with_a_report(in_turn.train))
    assert compare.main([*words, *chosen]) == 0
    shown = capsys.readouterr().out
    (file,) = (tmp_path / "out/refit").glob("*/seed0/summary.json")
    summary = json.loads(file.read_text())
    found = compared(summary["comparison"])
    assert (
        "trained on all images, so it has no accuracy of its own; in the comparison: "
        f"{found}: {file.parent}"
    ) in shown
    assert "seed0: trained on all images, " in shown
    assert summary["class_counts"] == [24, 12, 6, 3] and summary["shown"] is None
    assert not any(name.endswith("accuracy") and summary[name] for name in summary)
    records = [json.loads(line) for line in
               (tmp_path / "out/tables/comparison.jsonl").read_text().splitlines()]  # fmt: skip
    shares = [record["balanced_accuracy"] for record in records]
    assert summary["comparison"]["mean"] == pytest.approx(np.mean(shares)) and len(shares) == 2
    # As all that use a run say.
    (run,) = load_runs([file.parent])
    assert (
        f"so none are left to measure with. In the comparison that chose the method: {found}"
        in (unmeasured(run))
    )
    report = (file.parent / "report.html").read_text()
    assert unmeasured(run) in html.unescape(report) and "has no evaluation yet" not in report
    card = export(purenoise_jax.load(file.parent), "safetensors", tmp_path / "x.safetensors")
    text = card.files[2].read_text()
    assert unmeasured(run) in text and "| class | training images |\n" in text
    assert "Its accuracy was not measured." in text
    assert calibrate.main([str(file.parent)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no images to fit a temperature on" in line
