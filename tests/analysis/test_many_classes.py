"""Figures, tables and report of more classes than a matrix or a table can show."""

import base64
import io
import json
import re

import numpy as np
import pytest

from purenoise_jax.analysis import html_report, run_tables
from purenoise_jax.analysis.class_accuracy import PARTS, like_sizes
from purenoise_jax.analysis.confused_classes import BLOCKS, PAIRS, error_numbers
from purenoise_jax.analysis.figure_style import Options
from purenoise_jax.analysis.figures import FIGURES
from purenoise_jax.analysis.latest_evaluation import latest_evaluation
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.runtime.console import Display, SafeConsole
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training import probabilities
from purenoise_jax.training.confusion import FILES, Confusion
from tests.fake_runs import diagonal, write_run

RNG = np.random.default_rng(0)
MANY = 8142


def drawn(classes, images=3):
    """Class counts, labels and predictions; frequent classes are recognised more often."""
    counts = np.geomspace(1000, 2, classes).astype(int)
    labels = np.repeat(np.arange(classes), images)
    right = RNG.random(labels.size) < np.linspace(0.9, 0.1, classes)[labels]
    predicted = np.where(right, labels, RNG.integers(0, classes, labels.size))
    return counts.tolist(), labels, predicted


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    counts, labels, predicted = drawn(MANY)
    path = tmp_path_factory.mktemp("many") / "run"
    matrix = Confusion.of(labels, predicted, MANY)
    write_run(path, counts=counts, evaluations={2: matrix, 4: matrix})
    bins = np.tile([labels.size / 15, labels.size / 30, labels.size / 40], (15, 1))
    precision = [None, *RNG.random(MANY - 1).tolist()]
    fit = probabilities.Probabilities(bins, precision)
    probabilities.save(path / probabilities.FILES["test"], fit, 12)
    return path


def test_records_of_many_classes_hold_no_matrix(many):
    for line in (many / "metrics.jsonl").read_text().splitlines():
        assert len(line) < 150_000 and "test/confusion_matrix" not in json.loads(line)
    summary = json.loads((many / "summary.json").read_text())
    assert "confusion_matrix" not in summary and len(summary["per_class_accuracy"]) == MANY


@pytest.mark.slow
def test_the_report_of_many_classes_is_short(many):
    html = html_report.render(load_runs([many]))
    assert len(html) < 1e6
    # Two tables of 20 classes, and nothing else with a line for each class.
    assert html.count('<td class="bar">') == 40
    assert "the 20 least accurate of 8,142 classes" in html
    assert "the 20 most accurate of 8,142 classes" in html and "among the top 5" in html
    text = re.sub(r"<[^>]*>", " ", html)
    assert len(text) < 30_000
    pictures = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html)
    # Groups, sizes, curves and their layout for a narrow screen, confusion, reliability.
    assert len(pictures) == 6
    assert "average_precision of probabilities_test.json" in text
    assert all(len(base64.b64decode(picture)) < 400_000 for picture in pictures)


def test_the_table_on_the_screen_does_not_list_many_classes(many):
    evaluation = latest_evaluation(load_runs([many])[0])
    written = io.StringIO()
    display = Display(console=SafeConsole(file=written, width=80))
    display.table("run", evaluation.numbers, evaluation.class_names)
    lines = written.getvalue().splitlines()
    assert len(lines) < 25 and max(map(len, lines)) <= 80
    missed = sum(share == 0 for share in evaluation.numbers["per_class_accuracy"])
    assert any("never recognised" in line and f"{missed:,} of 8,142" in line for line in lines)
    top5 = f"{100 * evaluation.numbers['top5_accuracy']:.1f} %"
    assert any("top-5 accuracy" in line and top5 in line for line in lines)


def test_blocks_and_pairs_are_those_of_the_images():
    classes = 300
    _, labels, predicted = drawn(classes)
    order = RNG.permutation(classes).tolist()
    names = [f"name {k}" for k in range(classes)]
    found = error_numbers(Confusion.of(labels, predicted, classes), order, names)
    place = {k: i * BLOCKS // classes for i, k in enumerate(order)}
    assert found["blocks"] == [classes // BLOCKS] * BLOCKS
    wrong = [(t, p) for t, p in zip(labels.tolist(), predicted.tolist(), strict=True) if t != p]
    for block, row in enumerate(found["block_errors"]):
        there = [place[p] for t, p in wrong if place[t] == block]
        np.testing.assert_allclose(row, np.bincount(there, minlength=BLOCKS) / len(there))
    ranked = sorted(
        set(wrong),
        key=lambda pair: (-wrong.count(pair), order.index(pair[0]), order.index(pair[1])),
    )
    expected = [
        (names[t], names[p], wrong.count((t, p)), wrong.count((t, p)) / 3)
        for t, p in ranked[:PAIRS]
    ]
    assert [tuple(pair.values()) for pair in found["pairs"]] == expected


def test_blocks_without_errors_have_no_shares():
    found = error_numbers(Confusion.from_dense(3 * np.eye(40, dtype=int)), range(40), "x" * 40)
    assert found["block_errors"] == [None] * BLOCKS and found["pairs"] == []


def test_classes_of_like_size_are_summarised():
    sizes = RNG.integers(1, 60, 900)
    shares = [None if k % 50 == 0 else float(x) for k, x in enumerate(RNG.random(900))]
    found = like_sizes(sizes.tolist(), shares)
    there = [(n, x) for n, x in zip(sizes.tolist(), shares, strict=True) if x is not None]
    assert sum(found["classes"]) == len(there) and 10 < len(found["size"]) <= PARTS
    assert min(found["classes"]) >= len(there) / PARTS
    left = sorted(there)
    for size, count, mean, error in zip(*found.values(), strict=True):
        part, left = left[:count], left[count:]
        assert not left or left[0][0] > part[-1][0], "classes of one size stay together"
        n, x = np.array(part).T
        assert size == pytest.approx(np.prod(n ** (1 / count)))
        assert mean == pytest.approx(x.mean())
        assert error == pytest.approx(np.sqrt(((x - x.mean()) ** 2).sum() / (count - 1) / count))


def test_classes_that_all_have_one_size_are_one_part():
    found = like_sizes([7] * 500, [0.5] * 500)
    assert found == {"size": [pytest.approx(7)], "classes": [500], "mean": [0.5], "error": [0]}


def test_tables_have_the_least_and_the_most_accurate_classes(many):
    evaluation = latest_evaluation(load_runs([many])[0])
    shares = evaluation.numbers["per_class_accuracy"]
    (_, worst), (_, best) = run_tables.class_tables(evaluation)
    counts = evaluation.class_counts
    lost = sorted((-counts[k], f"class {k}") for k in range(MANY) if shares[k] == 0)
    assert [row.images for row in worst] == [-count for count, _ in lost[:20]]
    found = sorted(counts[k] for k in range(MANY) if shares[k] == 1)
    assert [row.images for row in best] == found[:20]
    assert {row.accuracy for row in worst} == {"0.0"} and {row.accuracy for row in best} == {
        "100.0"
    }
    rows = run_tables.accuracy_rows(evaluation)
    counted = [shares.count(x) for x in (0, 1 / 3, 2 / 3, 1)]
    assert [int(row.text.replace(",", "")) for row in rows] == [
        counted[0], 0, counted[1], 0, counted[2], counted[3]]  # fmt: skip


@pytest.mark.parametrize("name", ["confusion", "class_accuracy", "groups", "curves"])
def test_figures_of_many_classes_have_few_parts(many, name):
    drawing = FIGURES[name].draw(load_runs([many]), Options())
    for axes in drawing.figure.axes:
        assert len(axes.texts) + len(axes.patches) + len(axes.lines) < 60
        assert all(len(line.get_xdata()) < 60 for line in axes.lines)
    assert len(json.dumps(drawing.numbers)) < 600_000


def test_several_runs_with_many_classes_are_drawn_side_by_side(tmp_path):
    counts, labels, predicted = drawn(250)
    paths = [
        write_run(tmp_path / f"r{i}", counts=counts,
                  evaluations={4: Confusion.of(labels, predicted, 250)})
        for i in range(4)
    ]  # fmt: skip
    drawing = FIGURES["confusion"].draw(load_runs(paths), Options())
    assert set(drawing.numbers) == {f"r{i}" for i in range(4)}
    titles = [axes.get_title().splitlines()[0] for axes in drawing.figure.axes if axes.images]
    assert titles == ["r0", "r1", "r2", "r3"]
    scales = {axes.images[0].get_clim() for axes in drawing.figure.axes if axes.images}
    assert len(scales) == 1, "one colour bar holds for all"


def test_a_summary_of_the_first_versions_holds_the_matrix_of_many_classes(tmp_path):
    counts, labels, predicted = drawn(250)
    matrix = Confusion.of(labels, predicted, 250)
    path = write_run(tmp_path / "run", counts=counts, evaluations={4: matrix},
                     summary={"confusion_matrix": matrix.dense().tolist(), "top5_accuracy": None})  # fmt: skip
    (path / FILES["test"]).unlink()
    evaluation = latest_evaluation(load_runs([path])[0])
    np.testing.assert_array_equal(evaluation.confusion().dense(), matrix.dense())
    FIGURES["confusion"].draw(load_runs([path]), Options())
    assert "among the top 5" not in html_report.render(load_runs([path]))


def test_a_matrix_that_is_missing_or_older_than_the_evaluation_is_named(tmp_path):
    counts, labels, predicted = drawn(250)
    matrix = Confusion.of(labels, predicted, 250)
    path = write_run(tmp_path / "run", counts=counts, evaluations={4: matrix})
    longer = write_run(
        tmp_path / "longer", counts=counts, evaluations={4: matrix, 6: matrix}, epochs=6
    )
    (path / "metrics.jsonl").write_text((longer / "metrics.jsonl").read_text())
    with pytest.raises(
        ConfigError, match="is that of step 12, and the newest evaluation that of step 18"
    ):
        FIGURES["confusion"].draw(load_runs([path]), Options())
    assert "Not drawn" in html_report.render(load_runs([path]))
    (path / FILES["test"]).unlink()
    with pytest.raises(ConfigError, match=r"confusion_test\.npz is missing"):
        FIGURES["confusion"].draw(load_runs([path]), Options())


def test_few_classes_need_no_file(tmp_path):
    path = write_run(tmp_path / "run", counts=[9, 5, 2], evaluations={4: diagonal([1, 0.5, 0])})
    (path / FILES["test"]).unlink()
    FIGURES["confusion"].draw(load_runs([path]), Options())
