"""`launch.reproduce`: finished, interrupted and failed runs of a table, and wrong arguments."""

import json
import shutil
import subprocess
import sys

import pytest

from launch import cells, reproduce
from launch.engines import one_run
from launch.plan import Cell, Table
from launch.tables import TABLES, Entry
from purenoise_jax.checkpoint.manager import Checkpoints
from tests.tiny import tiny_config, write_npz

pytestmark = pytest.mark.slow


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
