"""`launch.reproduce --lines`: a table continues where the folders of its runs are not."""

import dataclasses
import json

import pytest
from matplotlib.figure import Figure

from launch import reproduce
from launch.tables import TABLES, Entry
from purenoise_jax.analysis.figure_style import Drawing
from tests.launch import tiny_table
from tests.tiny import write_npz

pytestmark = pytest.mark.slow

OTHER = '{"setting": "a", "method": "b", "config_hash": "c", "seed": 0, "test_accuracy": 0.5}\n'


def draw(rows, plan):
    """A figure that needs the folders of all runs."""
    assert all(len(row.workdirs) == len(row.summaries) for row in rows)
    return Drawing(Figure(), {})


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A table by the name "tiny", and the files of its first seed: Markdown and lines."""
    folder = tmp_path_factory.mktemp("earlier")

    def make(plan):
        return dataclasses.replace(tiny_table.make(plan), baselines=("ERM",), figure=draw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY_NPZ", str(write_npz(folder / "tiny.npz")))
        patch.setitem(TABLES, "tiny", Entry(make))
        assert reproduce.main(["tiny", "--out", str(folder / "there"), "--seeds", "1"]) == 0
        yield folder / "there/tables"


def command(capsys, *argv):
    code = reproduce.main(["tiny", *map(str, argv)])
    found = capsys.readouterr()
    return code, found.out, found.err


def trained(out):
    return sorted(path.parent.parent.name for path in out.glob("*/seed*/summary.json"))


def test_runs_with_a_line_are_not_trained_and_take_part_in_the_table(earlier, tmp_path, capsys):
    lines, out = earlier / "tiny.jsonl", tmp_path / "here"
    code, text, _ = command(capsys, "--out", out, "--seeds", 1, "--lines", lines)
    assert code == 0 and not trained(out)
    assert f"{lines}: uses 3 of 3 lines\n" in text
    assert "no figure: it needs the folders of all runs" in text
    for name in ("tiny.md", "tiny.jsonl"):
        assert (out / "tables" / name).read_bytes() == (earlier / name).read_bytes()


def test_a_run_is_trained_although_it_has_a_line_if_another_starts_from_it(
    earlier, tmp_path, capsys
):
    erm, open_, full_stop = (earlier / "tiny.jsonl").read_text().splitlines(keepends=True)
    two, one = tmp_path / "two.jsonl", tmp_path / "one.jsonl"
    two.write_text(erm + open_)
    one.write_text(full_stop)
    out = tmp_path / "here"
    code, text, _ = command(capsys, "--out", out, "--seeds", 1, "--lines", two, "--dry-run")
    assert code == 0 and "3 runs, 2 to do" in text
    assert [line.split()[0] for line in text.splitlines()[1:4]] == ["to", "elsewhere", "to"]
    assert f"{two}: uses 2 of 2 lines; needed here all the same" in text
    code, text, _ = command(
        capsys, "--out", out, "--seeds", 1, "--lines", two, "--lines", one, "--status"
    )
    assert code == 0 and "3 runs: 3 elsewhere" in text

    assert command(capsys, "--out", out, "--seeds", 1, "--lines", two)[0] == 0
    assert ["-erm-" in name for name in trained(out)] == [True, False]
    written = [json.loads(line) for line in (out / "tables/tiny.jsonl").read_text().splitlines()]
    assert [line["method"] for line in written] == ["ERM", "OPeN", "OPeN, full stop"]
    # A run that is finished here counts instead of its line.
    assert written[0]["seconds"] != json.loads(erm)["seconds"]
    assert written[1] == json.loads(open_)


def test_other_seeds_than_those_of_the_lines_are_trained(earlier, tmp_path, capsys):
    argv = ["--out", tmp_path, "--seeds", 2, "--lines", earlier / "tiny.jsonl"]
    code, text, _ = command(capsys, *argv, "--dry-run")
    assert code == 0 and "6 runs, 3 to do" in text
    states = {line.split()[-1][-5:]: line.split()[0] for line in text.splitlines()[1:7]}
    assert states == {"seed0": "elsewhere", "seed1": "to"}


def test_lines_of_rows_that_differ_only_in_a_file_stay_apart(earlier, tmp_path, capsys):
    """The config hash does not contain the network that a run begins with."""
    lines = [json.loads(line) for line in (earlier / "tiny.jsonl").read_text().splitlines()]
    for i, line in enumerate(lines):
        line["config_hash"] = lines[0]["config_hash"]
        line["test_accuracy"] = i / 10
    file = tmp_path / "same_hash.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, text, _ = command(
        capsys, "--out", tmp_path, "--seeds", 1, "--lines", file, "--only-table"
    )
    assert code == 0 and f"{file}: uses 1 of 3 lines" in text
    rows = [
        line for line in (tmp_path / "tables/tiny.md").read_text().splitlines() if "ERM" in line
    ]
    assert "| 0.0 (n=1)" in rows[-1]


@pytest.mark.parametrize("field", ["init_aux_bn=copy", "model.pretrained=x"])
def test_fields_that_a_line_does_not_say_are_refused(field, earlier, tmp_path, capsys):
    argv = ["--lines", earlier / "tiny.jsonl", "--set", field, "--out", tmp_path, "--dry-run"]
    code, _, error = command(capsys, *argv)
    assert code == 2 and f"--lines with --set {field.partition('=')[0]}: lines do not" in error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"\xff", ": not a text"),
        ("no JSON\n", "line 1: not JSON of a run"),
        ("3\n", "line 1: not JSON of a run"),
        ('{"seed": 0, "test_accuracy": 0.5}\n', "line 1: no setting; legal: lines of "),
        (OTHER.replace('"seed"', '"select": "test_best", "seed"'), "line 1: of another epoch than"),
        (OTHER, "1 line, none of a run of this table; legal: lines of the same table"),
        ("", "0 lines, none of a run of this table"),
    ],
)
def test_files_that_are_not_of_the_table_are_refused(content, message, earlier, tmp_path, capsys):
    del earlier
    file = tmp_path / "lines.jsonl"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, error = command(capsys, "--out", tmp_path, "--lines", file, "--dry-run")
    (line,) = error.splitlines()
    assert code == 2 and str(file) in line and message in line
