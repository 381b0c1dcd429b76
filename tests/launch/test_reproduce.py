"""Tables of the papers: their runs, shared and skipped runs, printed numbers."""

import dataclasses
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from launch import cells, planning, reproduce, tables
from launch.engines import one_run
from launch.noise_papers import CUI
from launch.plan import MINI_MODEL, Cell, Plan, Table
from launch.planning import (
    Task,
    cut_counts,
    tasks_of,
    tasks_of_cell,
    tasks_of_table,
    training_pflop,
)
from launch.tables import TABLES, Entry, make_table
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.config.resolve import resolved
from purenoise_jax.config.validation import validate
from purenoise_jax.data.longtail import fingerprint, read_indices
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import METHODS, as_method, build_recipe
from purenoise_jax.runtime.errors import ConfigError
from tests.tiny import tiny_config, write_npz

pytestmark = pytest.mark.slow

PLANS = {
    "paper": Plan(),
    "rescience": Plan(preset="rescience"),
    "short": Plan(epochs=40, model="resnet32"),
    "quick": Plan(epochs=5, quick=True),
    "two epochs": Plan(epochs=2),
}


# Epochs of training in the sources.
LENGTHS = (200, 300, 320, 400, 520, 591, 684)


def in_second_stage(phase):
    return any(as_method(METHODS[name]).phase.start >= 1 for name in phase.methods)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("name", TABLES)
def test_every_run_of_every_table_can_start(name, plan, tmp_path):
    table = make_table(name, plan)
    assert len({(c.setting, c.method) for c in table.cells}) == len(table.cells)
    tasks = tasks_of_table(table, range(2), tmp_path)
    runnable = [cell for cell in table.cells if cell.config is not None]
    by_cell = [tasks_of_cell(cell, seed, tmp_path) for cell in runnable for seed in (0, 1)]
    last = [tasks_for_one[-1].workdir for tasks_for_one in by_cell]
    assert len(set(last)) == len(last), "no two cells are the same run"
    lengths = {max(plan.scaled(epochs), 1) for epochs in LENGTHS}
    for task in tasks:
        validate(task.config)
        # A second stage follows the epochs that the source has, in proportion to the plan.
        phases = task.config.phases.values()
        second = [p.start_epoch for p in phases if in_second_stage(p)]
        assert (second or [task.config.num_epochs])[0] in lengths
        assert training_pflop(task) > 0
    # One folder is one run: nothing that differs shares one.
    everything = [task for tasks_for_one in by_cell for task in tasks_for_one]
    pairs = {(t.workdir, t.config.to_json()) for t in everything}
    assert len(pairs) == len({workdir for workdir, _ in pairs}) == len(tasks)
    # A run comes after the run that it starts from.
    folders = [str(t.workdir) for t in tasks]
    for position, task in enumerate(tasks):
        if task.config.init_from:
            assert folders.index(task.config.init_from) < position


@pytest.mark.parametrize("name", TABLES)
def test_no_run_is_refused_for_its_data(name, tmp_path):
    level = np.full(3, 0.5, np.float32)
    known = set()
    for task in tasks_of_table(TABLES[name].make(Plan()), range(1), tmp_path):
        config = resolved(task.config)
        counts = cut_counts(config)
        for phase in config.phases.values():
            given = {m: dict(config.method.get(m, {})) for m in phase.methods}
            key = phase.methods, str(given), counts.tobytes()
            if key not in known:
                known.add(key)
                build_recipe(phase.methods, DataStats(counts, (32, 32, 3), *[level] * 6), given)


@pytest.mark.parametrize("name", TABLES)
def test_published_numbers_read_as_percentages(name):
    for cell in TABLES[name].make(Plan()).cells:
        for text in filter(None, cell.published):
            # One number, or those of few, medium and many.
            least = 25 if " / " not in text else 15
            for number in text.split(" / "):
                value, _, error = number.partition(" ± ")
                assert least < float(value) < 95 and 0 <= float(error or 0) < 1.5, cell


@pytest.mark.parametrize(
    ("name", "setting", "method", "paper", "reproduction"),
    [
        ("main", "CIFAR-10-LT, ratio 100", "OPeN", "84.6 ± 0.2", "85.04"),
        ("main", "CIFAR-100-LT, ratio 50", "RS", "48.0 ± 0.2", "46.5"),
        ("main", "CIFAR-100-LT, ratio 100", "OPeN, AutoAugment", "54.2 ± 0.5", ""),
        ("norms", "CIFAR-100-LT, wrn28_10", "Auxiliary BN", "50.13 ± 0.06", "51.27"),
        ("norms", "CIFAR-10-LT, resnet32", "Standard BN", "", "74.37"),
        ("augmentation", "+ Cutout", "DRS", "80.3", "79.5"),
        ("resnet32", "CIFAR-10-LT, ratio 100", "DRS", "", "75.78"),
        ("subsets", "M2m (Kim et al.)", "OPeN", "", "87.11"),
        ("normalization", "whole training set", "ERM", "", "80.50"),
        ("batch_size", "batch 512", "DRS", "", "71.39"),
        ("noise_ratio", "OPeN", "delta 6/6", "", "80.01"),
        ("balanced", "CIFAR-10, wrn28_10", "AutoAugment, noise from epoch 160", "", "88.57"),
    ],
)
def test_published_numbers_are_in_the_right_cells(name, setting, method, paper, reproduction):
    (cell,) = [
        c for c in TABLES[name].make(Plan()).cells if (c.setting, c.method) == (setting, method)
    ]
    assert (*cell.published, "")[:2] == (paper, reproduction)


def test_what_the_cells_train():
    def config(name, setting, method, plan=PLANS["paper"]):
        return next(
            c.config
            for c in TABLES[name].make(plan).cells
            if (c.setting, c.method) == (setting, method)
        )

    aux = config("norms", "CIFAR-10-LT, wrn28_10", "Auxiliary BN", PLANS["rescience"])
    assert aux.model.norm == "aux_bn" and aux.model.noise_grad == "auto"
    dar = config("norms", "CIFAR-10-LT, wrn28_10", "DAR-BN", PLANS["rescience"])
    assert dar.model.norm == "dar_bn" and dar.model.noise_grad == "full_stop"
    assert config("norms", "CIFAR-10-LT, resnet32", "DAR-BN").data.augment == ("flip", "crop")
    grid = config("noise_grad", "Standard BN, noise in raw space", "full_stop")
    assert (grid.model.norm, grid.model.noise_grad) == ("bn", "full_stop")
    # Raw noise differs only in the space, so that plain training is shared.
    assert grid.method.open.space == "raw" and grid.data.normalize == "auto"
    added = config("additive", "Standard BN", "std 75/255", PLANS["rescience"])
    assert added.method.open.additive_std == 75 / 255 and added.method.open.space == "pixel"
    assert config("additive", "DAR-BN", "pure noise").method.open.additive_std == 0
    assert config("noise_ratio", "OPeN", "delta 5/6").method.open.delta == pytest.approx(5 / 6)
    assert config("batch_size", "batch 32", "DRS").batch_size == 32
    cui = config("subsets", "Cui et al.", "ERM")
    assert cui.data.indices == str(CUI)
    full = config("normalization", "whole training set", "OPeN", PLANS["rescience"])
    assert full.data.normalize == "full_train" and full.data.normalize_mean == ()


def test_the_shipped_subset_is_the_published_one():
    indices = read_indices(str(CUI), 50_000)
    assert len(indices) == 12_406
    assert fingerprint(indices).startswith("4817fc3bcc5de2f6fd09733378408007a895af0da8de2631")


def test_plain_training_is_shared_by_all_runs_that_start_from_it(tmp_path):
    table = TABLES["norms"].make(Plan(preset="rescience"))
    tasks = tasks_of_table(table, [0], tmp_path)
    # The plain runs of three networks, and OPeN with three norms from each.
    assert len(tasks) == 12
    plain = [t for t in tasks if not t.config.init_from]
    assert len(plain) == 3
    assert all(t.config.model.norm == "dar_bn" for t in plain)
    assert all(t.config.checkpoint.epochs == (160,) for t in plain)
    for task in tasks:
        if task.config.init_from:
            assert task.first_epoch == task.config.init_epoch == 160
    # The same run as the ERM cells of the main table.
    main = {
        t.workdir
        for t in tasks_of_table(TABLES["main"].make(Plan(preset="rescience")), [0], tmp_path)
    }
    wide = {t.workdir for t in plain if t.config.model.name == "wrn28_10"}
    assert len(wide) == 2 and wide <= main


def test_cost_in_pflop(tmp_path):
    (erm,) = tasks_of(Plan().config("CIFAR-10-LT", "erm"), 0, tmp_path)
    assert training_pflop(erm) == pytest.approx(78, abs=0.5)
    _, drs = tasks_of(Plan().config("CIFAR-10-LT", "drs"), 0, tmp_path)
    assert training_pflop(drs) == pytest.approx(78 / 5, abs=0.1)
    (noisy,) = tasks_of(Plan().config("CIFAR-10", "append"), 0, tmp_path)
    (balanced,) = tasks_of(Plan().config("CIFAR-10", "erm"), 0, tmp_path)
    assert training_pflop(noisy) == pytest.approx(1.25 * training_pflop(balanced))
    quick = Plan(epochs=5, quick=True).config("CIFAR-10-LT", "erm")
    (small,) = tasks_of(quick, 0, tmp_path)
    assert training_pflop(small) < 1e-3


def test_a_field_that_the_table_varies_cannot_be_set(capsys):
    assert reproduce.main(["batch_size", "--set", "batch_size=64", "--dry-run"]) == 2
    assert "the table itself decides this field" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.source", "digits"), ("data.source", "npz"), ("data.source", "folder"),
        ("data.source", "tfds"), ("data.profile", "natural"), ("data.profile", "step"),
        ("data.image_size", "64"), ("data.limit", "100"),
    ],
)  # fmt: skip
def test_other_data_than_those_of_the_table_are_refused(field, value, capsys):
    argv = ["resnet32", "--set", f"{field}={value}", "--dry-run"]
    assert reproduce.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--set {field}={value}: the table is about" in line and "legal: " in line


def test_a_cosine_that_is_set_has_no_drops(tmp_path):
    arguments = ["methods", "--set", "optimizer.schedule=cosine", "--epochs", "40"]
    plan = reproduce.make_plan(reproduce.parser().parse_args(arguments))
    config = plan.config("CIFAR-10-LT", "erm")
    validate(config)
    assert config.optimizer.schedule == "cosine" and config.optimizer.milestones == ()


def test_the_data_of_the_table_may_be_set(capsys):
    fields = ("data.source=cifar_dir", "data.image_size=32", "data.profile=exp", "data.seed=1")
    argv = [text for field in fields for text in ("--set", field)]
    assert reproduce.main(["resnet32", *argv, "--dry-run"]) == 0
    # --quick trains on a part of the data and says so on every line.
    assert reproduce.main(["resnet32", "--quick", "--set", "data.limit=7", "--dry-run"]) == 0


def test_switches_are_read_in_any_case():
    parse = reproduce.parser().parse_args
    for text, value in (("true", True), ("True", True), ("1", True), ("false", False)):
        plan = reproduce.make_plan(parse(["main", "--set", f"method.open.clip={text}"]))
        assert plan.overrides == {"method.open.clip": value}


def test_mean_and_standard_error():
    values = [0.80, 0.82, 0.84, 0.86]
    error = np.std([80, 82, 84, 86], ddof=1) / 2
    assert cells.mean_and_error(values) == f"83.0 ± {error:.1f}" == "83.0 ± 1.3"
    assert cells.mean_and_error([0.8118]) == "81.2"


def row(*accuracies, wanted=4):
    summaries = tuple({"test_accuracy": a, "group_accuracy": [a / 2, a]} for a in accuracies)
    return cells.Row(Cell("CIFAR", "OPeN", tiny_config("x")), wanted, summaries)


def test_missing_runs_are_shown():
    assert row().number("test_accuracy") == "missing"
    assert row(0.5).number("test_accuracy") == "50.0 (n=1, 3 missing)"
    assert row(0.5, 0.6, wanted=2).number("test_accuracy") == "55.0 ± 5.0 (n=2)"
    assert row(0.5, wanted=1).number("group_accuracy", 0) == "25.0 (n=1)"
    none = cells.Row(row().cell, 1, ({"test_accuracy": 0.5},))
    assert none.number("group_accuracy", 0) == "-"


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture
def tiny_table(npz, monkeypatch):
    """A table of ERM and OPeN on the tiny problem, by the name "tiny"."""

    def make(plan):
        erm = tiny_config(npz, num_epochs=4, **plan.overrides)
        del erm.phases["deferred"]
        full_stop = {"model.noise_grad": "full_stop"}
        return Table(
            "tiny",
            "nowhere",
            (
                Cell("tiny", "ERM", erm, ("50.0 ± 1.0", "51")),
                Cell("tiny", "OPeN", tiny_config(npz, **plan.overrides), ("60.0",)),
                Cell("tiny", "OPeN, full stop", tiny_config(npz, **full_stop, **plan.overrides)),
            ),
        )

    monkeypatch.setitem(TABLES, "tiny", Entry(make))


def command(capsys, *argv):
    code = reproduce.main(["tiny", *map(str, argv)])
    return code, capsys.readouterr().out


def test_a_table_skips_finished_runs(tiny_table, tmp_path, capsys):
    out = tmp_path / "runs"
    code, text = command(capsys, "--out", out, "--dry-run", "--seeds", 2)
    assert code == 0 and not out.exists()
    assert "6 runs, 6 to do" in text and "epochs 2 .. 4" in text

    code, text = command(capsys, "--out", out, "--only-table", "--seeds", 1)
    assert code == 0 and text.count("missing") == 3

    code, text = command(capsys, "--out", out, "--seeds", 1)
    assert code == 0 and "missing" not in text and "already done" not in text
    folders = sorted(path.parent.parent.name for path in out.glob("*/seed0/summary.json"))
    assert len(folders) == 3, "plain training is done once"
    (erm,) = [f for f in folders if "-erm-" in f]
    assert Checkpoints(out / erm / "seed0").steps() == [6, 9, 12]

    code, text = command(capsys, "--out", out, "--seeds", 2)
    assert code == 0 and text.count("already done") == 3 and text.count("(n=2)") == 3
    accuracies = [
        json.loads((out / erm / f"seed{s}/summary.json").read_text())["test_accuracy"]
        for s in range(2)
    ]
    assert cells.mean_and_error(accuracies) in text
    for shown in ("50.0 ± 1.0", "51", "60.0", "Published: nowhere"):
        assert shown in text
    lines = [json.loads(line) for line in (out / "tables/tiny.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    for line in lines:
        assert {"seed", "config_hash", "dataset_fingerprint", "versions"} <= set(line)
        assert str(tmp_path) not in json.dumps(line)
    assert lines[2]["init_from"] == {"workdir": f"{erm}/seed0", "epoch": 2}
    assert "| OPeN, full stop | - | - |" in (out / "tables/tiny.md").read_text()


def test_an_interrupted_table_continues(tiny_table, tmp_path, capsys, monkeypatch):
    out, trained = tmp_path / "runs", []
    real = one_run.train_and_evaluate

    def interrupted(config, workdir, display, at_end):
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(workdir)
        return real(config, workdir, display, at_end)

    monkeypatch.setattr(one_run, "train_and_evaluate", interrupted)
    assert reproduce.main(["tiny", "--out", str(out), "--seeds", "1"]) == 130
    monkeypatch.setattr(one_run, "train_and_evaluate", real)
    code, text = command(capsys, "--out", out, "--seeds", 1)
    assert code == 0 and text.count("already done") == 1 and "missing" not in text


def test_a_failed_run_leaves_only_its_cells_missing(tiny_table, tmp_path, capsys):
    # At this rate plain training itself fails, and with it all runs that start from it.
    out = tmp_path / "runs"
    code, text = command(
        capsys, "--out", out, "--seeds", 1, "--set", "optimizer.learning_rate=1e30"
    )
    assert code == 1
    assert "failed: the loss, the gradient or their result is not finite" in text
    assert text.count("skipped, because") == 2 and text.count("missing") == 3


def test_every_line_with_numbers_of_quick_runs_says_that_they_mean_nothing(tmp_path):
    plan = Plan(epochs=5, quick=True)
    table = dataclasses.replace(tables.resnet32(plan), cells=tables.resnet32(plan).cells[:2])
    rows = [cells.Row(cell, 1, ({"test_accuracy": 0.1},)) for cell in table.cells]
    console = Console(width=120, file=io.StringIO())
    cells.show(table, rows, plan, console)
    lines = [line for line in console.file.getvalue().splitlines() if "10.0" in line]
    assert len(lines) == 2 and all("means nothing" in line for line in lines)
    cells.write(table, rows, plan, tmp_path, "resnet32")
    text = (tmp_path / "resnet32.md").read_text()
    assert all("means nothing" in line for line in text.splitlines() if "10.0" in line)
    for line in (tmp_path / "resnet32.jsonl").read_text().splitlines():
        assert "means nothing" in json.loads(line)["caveat"]


def test_the_caveat_names_all_deviations_from_the_publication():
    assert Plan().caveat == "" == Plan(preset="rescience").caveat
    assert (
        PLANS["short"].caveat
        == "40 epochs for every 200, drops, if any, of 0.1, resnet32 throughout"
    )
    changed = {"data.path": "/here", "dtype": "bfloat16", "optimizer.learning_rate": 1.0}
    assert Plan(overrides=changed).caveat == "dtype=bfloat16, optimizer.learning_rate=1.0"
    assert Plan(overrides={"init_aux_bn": "copy"}).caveat == "init_aux_bn=copy"
    assert PLANS["short"].config("CIFAR-10-LT", "erm").optimizer.gamma == 0.1
    assert Plan().config("CIFAR-10-LT", "erm").optimizer.gamma == 0.01


def test_published_numbers_are_left_out_for_other_networks():
    for name in set(TABLES) - {"norms", "balanced", "resnet32"}:
        cells_ = make_table(name, Plan(model="resnet8")).cells
        assert not any(c.published for c in cells_), name
    norms = make_table("norms", Plan(model="resnet32")).cells
    assert [c.published[1] for c in norms] == ["74.37", "75.08", "77.52", "", "", ""]
    assert norms[0].setting == "CIFAR-10-LT, resnet32"
    same = make_table("resnet32", Plan(model="resnet32")).cells
    assert all(c.published[1] for c in same)


def test_fields_that_change_a_result_change_the_workdir(tmp_path):
    def folder(config):
        return tasks_of(config, 0, tmp_path)[-1].workdir

    fresh, copy = (
        Plan(overrides={"init_aux_bn": how}).config("CIFAR-10-LT", "open", model__norm="aux_bn")
        for how in ("fresh", "copy")
    )
    assert folder(fresh) != folder(copy)
    files = [tmp_path / "a/list.txt", tmp_path / "b/list.txt"]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_text(f"{number}\n")
    for field in ("indices", "train_list", "val_list", "test_list"):
        files[1].write_text("1\n")
        named = ({f"data__{field}": str(file)} for file in files)
        one, two = (Plan().config("CIFAR-10-LT", "erm", **given) for given in named)
        assert folder(one) != folder(two)
        files[1].write_text("0\n")
        assert folder(one) == folder(two), "the path does not matter"
    weights = {"model__pretrained": str(files[0])}
    taken = Plan().config("CIFAR-10-LT", "erm", **weights)
    first = folder(taken)
    assert first != folder(Plan().config("CIFAR-10-LT", "erm"))
    files[0].write_text("1\n")
    assert folder(taken) != first


def test_two_runs_in_one_workdir_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "config_hash", lambda config: "")
    with pytest.raises(ConfigError, match="would be the workdir of two runs"):
        tasks_of_table(make_table("noise_ratio", Plan()), [0], tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of finished runs for all tests that need one; the first test fills it."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def out(trained, tiny_table, tmp_path, capsys):
    """A copy of the finished runs of the tiny table."""
    if not (trained / "runs").exists():
        assert command(capsys, "--out", trained / "runs", "--seeds", 1)[0] == 0
    return shutil.copytree(trained / "runs", tmp_path / "runs")


def test_a_summary_of_another_run_or_a_damaged_one_is_refused(out, capsys):
    path = next(out.glob("*-erm-*/seed0/summary.json"))
    text = path.read_text()
    other = text.replace('"config_hash": "', '"config_hash": "0')
    for content, message, code in (
        (text[:100], "is damaged", 2),
        (other, "belongs to a run with another config", 4),
    ):
        path.write_text(content)
        assert reproduce.main(["tiny", "--out", str(out), "--seeds", "1", "--only-table"]) == code
        error = capsys.readouterr().err
        assert message in error and str(path) in error and error.count("\n") == 1


def test_a_stage_two_continues_from_another_working_directory(
    tiny_table, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    command(capsys, "--out", "runs", "--seeds", 1)
    next((tmp_path / "runs").glob("*-open-*/seed0/summary.json")).unlink()
    monkeypatch.chdir("/")
    code, text = command(capsys, "--out", tmp_path / "runs", "--seeds", 1)
    assert code == 0 and "missing" not in text


def test_a_run_without_its_checkpoint_leaves_only_its_cells_missing(out, capsys):
    shutil.rmtree(next(out.glob("*-erm-*/seed0")) / "checkpoints")
    shutil.rmtree(next(out.glob("*-open-*")))
    code, text = command(capsys, "--out", out, "--seeds", 1)
    assert code == 1 and "no checkpoint after epoch 2" in text and text.count("missing") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--set", "modle.name=x"], "not FIELD=VALUE with a config field"),
        (["--set", "batch_size=many"], "batch_size=many is not legal; legal: an integer"),
        (["--set", "optimizer.milestones=(1,)"], "a tuple cannot be set here"),
        (["--set", "report=maybe"], "report=maybe is not legal; legal: True | False"),
        (["--set", "model.name=resnet8"], "the table itself decides this field"),
        (["--epochs", "0"], "--seeds and --epochs must be at least 1"),
        (["--epochs", "1"], "epochs=1 leaves no epoch for drs after plain training"),
        (["--seeds", "0"], "--seeds and --epochs must be at least 1"),
        (["--model", "resnet33"], "model.name='resnet33' is not legal"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(argv, message, capsys, tmp_path):
    assert reproduce.main(["resnet32", "--out", str(tmp_path / "runs"), *argv]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_wrong_command_line_is_refused_in_one_line(capsys):
    for argv, message in (
        (["resnet23"], "TABLE='resnet23' is unknown; legal: main, resnet32"),
        ([], "required: TABLE"),
        (["main", "--sedes=3"], "unrecognized arguments: --sedes=3"),
        (["main", "--preset=papr"], "invalid choice: 'papr'"),
    ):
        assert reproduce.main(argv) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_the_command_from_a_shell(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "launch.reproduce", "main", "--dry-run", "--out", str(tmp_path)],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # 24 cells of four seeds; the other runs start from the plain ones among them.
    assert "96 runs, 96 to do" in done.stdout


def test_a_task_without_summary_is_not_finished(tmp_path):
    assert Task(tiny_config("x"), tmp_path).summary is None


def test_the_tier_decides_on_epochs_and_seeds_that_are_not_given(tmp_path, capsys):
    def numbers(*arguments):
        assert reproduce.main([*arguments, "--dry-run", "--out", str(tmp_path)]) == 0
        runs = [line.split() for line in capsys.readouterr().out.splitlines() if "epochs 0" in line]
        return {run[-1].rpartition("/seed")[2] for run in runs}, {run[-2] for run in runs}

    mini = ("ratio_batch_size", "--tier", "mini")
    assert numbers(*mini) == ({"0", "1"}, {"8"})
    assert numbers(*mini, "--seeds", "1", "--epochs", "10") == ({"0"}, {"15"})
    assert numbers("ratio_batch_size") == ({"0", "1", "2", "3"}, {"300"})
    assert numbers("ratio_batch_size", "--quick") == ({"0"}, {"8"})


@pytest.mark.parametrize(
    "name", [name for name, entry in TABLES.items() if ".studies." in entry.make.__module__]
)
def test_two_cores_finish_the_mini_tier_of_a_study_in_half_an_hour(name, tmp_path):
    # A core of the machine of docs/studies.md trains with 0.8e-5 PFLOP/s, and takes 12 s to start.
    entry = TABLES[name]
    plan = Plan(epochs=entry.mini_epochs, model=MINI_MODEL, mini=True)
    tasks = tasks_of_table(make_table(name, plan), range(entry.mini_seeds), tmp_path)
    assert sum(training_pflop(task) / 0.8e-5 + 12 for task in tasks) < 2 * 1800
