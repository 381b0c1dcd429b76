"""`launch.reproduce --lines`: a table continues where the folders of its runs are not."""

import json

import pytest

from launch import reproduce
from launch.plan import Cell, Table
from launch.tables import TABLES, Entry
from tests.tiny import tiny_config, write_npz

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A table by the name "tiny", and the files of its first seed: Markdown and lines."""
    folder = tmp_path_factory.mktemp("earlier")
    npz = write_npz(folder / "tiny.npz")

    def make(plan):
        erm = tiny_config(npz, num_epochs=4, **plan.overrides)
        del erm.phases["deferred"]
        full_stop = {"model.noise_grad": "full_stop"}
        return Table(
            "tiny",
            "nowhere",
            (
                Cell("tiny", "ERM", erm),
                Cell("tiny", "OPeN", tiny_config(npz, **plan.overrides)),
                Cell("tiny", "OPeN, full stop", tiny_config(npz, **full_stop, **plan.overrides)),
            ),
            baselines=("ERM",),
        )

    with pytest.MonkeyPatch.context() as patch:
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
    assert f"{lines}: 3 runs of this table, not trained again" in text
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
    assert code == 0 and "2 runs, 2 to do" in text
    code, text, _ = command(
        capsys, "--out", out, "--seeds", 1, "--lines", two, "--lines", one, "--dry-run"
    )
    assert code == 0 and "0 runs, 0 to do" in text

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
    assert code == 0 and "3 runs, 3 to do" in text and "seed0" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: "),
        ("no JSON\n", "line 1: not JSON of a run"),
        ("3\n", "line 1: not JSON of a run"),
        ('{"seed": 0, "test_accuracy": 0.5}\n', "line 1: no config_hash; legal: lines of "),
        (
            '{"seed": 0, "test_accuracy": 0.5, "config_hash": "a", "select": "test_best"}\n',
            "line 1: of another epoch than the last; legal: lines of tables/TABLE.jsonl",
        ),
        (
            '{"seed": 0, "test_accuracy": 0.5, "config_hash": "a"}\n',
            "1 run, none with the config of one of this table; legal: lines of the same table",
        ),
        ("", "0 runs, none with the config of one of this table"),
    ],
)
def test_files_that_are_not_of_the_table_are_refused(content, message, earlier, tmp_path, capsys):
    del earlier
    file = tmp_path / "lines.jsonl"
    if content is not None:
        file.write_text(content)
    code, _, error = command(capsys, "--out", tmp_path, "--lines", file, "--dry-run")
    (line,) = error.splitlines()
    assert code == 2 and str(file) in line and message in line
