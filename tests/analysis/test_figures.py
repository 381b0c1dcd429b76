"""Numbers of the figures that need no data: curves, confusion, groups, class accuracy."""

import base64
import json
import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from purenoise_jax.analysis.figure_style import Options, save
from purenoise_jax.analysis.figures import FIGURES
from purenoise_jax.analysis.html_report import render
from purenoise_jax.analysis.latest_evaluation import latest_evaluation
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.runtime.errors import ConfigError, DataError
from purenoise_jax.training.confusion import Confusion
from purenoise_jax.training.intervals import accuracy_intervals
from tests.fake_runs import diagonal, write_run

COUNTS = [40, 5, 100, 20, 10]
SHARES = [0.8, 0.1, 0.9, 0.6, 0.3]
WITHOUT_DATA = ("curves", "confusion", "groups", "class_accuracy")


def draw(name, runs, tmp_path, **options):
    """Draws and saves a figure, so that warnings of matplotlib fail; returns the saved numbers."""
    drawing = FIGURES[name].draw(runs, Options(**options))
    paths = save(drawing, tmp_path / "figures", name)
    assert [p.name for p in paths] == [f"{name}.{suffix}" for suffix in ("png", "pdf", "json")]
    assert all(path.stat().st_size > 100 for path in paths[:2])
    return drawing, json.loads(paths[2].read_text())


@pytest.fixture
def two(tmp_path):
    first = write_run(
        tmp_path / "first", counts=COUNTS, evaluations={2: diagonal([0.5] * 5), 4: diagonal(SHARES)}
    )
    second = write_run(tmp_path / "second", counts=COUNTS, evaluations={4: diagonal([0.7] * 5)})
    return load_runs([first, second])


def test_confusion_rows_are_true_classes_the_rarest_last(two, tmp_path):
    drawing, numbers = draw("confusion", two, tmp_path)
    assert set(numbers) == {"first", "second"}
    known = numbers["first"]
    assert known["classes"] == [2, 0, 3, 4, 1]
    assert known["class_names"][0] == "class 2" and known["class_counts"] == [100, 40, 20, 10, 5]
    shares = np.array(known["shares"])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(np.diag(shares), [0.9, 0.8, 0.6, 0.3, 0.1])
    # Class 4, in row 3, is mistaken for class 0, in column 1.
    assert shares[3, 1] == 0.7
    panel = drawing.figure.axes[0]
    np.testing.assert_allclose(panel.images[0].get_array(), 100 * shares)
    rows = [t.get_text() for t in panel.get_yticklabels()]
    assert rows == [f"{name} (10)" for name in known["class_names"]]
    np.testing.assert_array_equal(np.array(known["counts"]), (10 * shares).round())
    written = {tuple(map(int, t.get_position())): t.get_text() for t in panel.texts}
    assert written[1, 3] == "70" and (0, 3) not in written


def test_a_class_without_test_images_has_no_numbers(tmp_path):
    confusion = diagonal(SHARES)
    confusion[2] = 0
    path = write_run(tmp_path / "run", counts=COUNTS, evaluations={4: confusion})
    runs = load_runs([path])
    _, numbers = draw("confusion", runs, tmp_path)
    assert numbers["run"]["shares"][0] is None
    _, numbers = draw("class_accuracy", runs, tmp_path)
    assert numbers["run"]["accuracy"] == [0.8, 0.1, None, 0.6, 0.3]
    drawing, numbers = draw("groups", runs, tmp_path)
    assert numbers["run"]["accuracy"] == [0.1, 0.3, 0.6, 0.8, None]
    texts = [text.get_text() for text in drawing.figure.axes[0].texts]
    assert texts == ["10.0", "30.0", "60.0", "80.0", "\N{EN DASH}"]


def test_groups_go_from_the_rarest_to_the_most_frequent(two, tmp_path):
    drawing, numbers = draw("groups", two, tmp_path)
    assert numbers["first"]["accuracy"] == [0.1, 0.3, 0.6, 0.8, 0.9]
    assert numbers["first"]["classes"] == [[1], [4], [3], [0], [2]]
    assert numbers["first"]["images"] == [[5], [10], [20], [40], [100]]
    axes = drawing.figure.axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    np.testing.assert_allclose(heights, [[10, 30, 60, 80, 90], [70] * 5])
    assert axes.get_xticklabels()[0].get_text() == "1, rarest\n(5)"


def test_groups_of_runs_on_different_data_show_no_sizes(tmp_path):
    paths = [
        write_run(tmp_path / str(n), counts=[n, *COUNTS[1:]], evaluations={4: diagonal(SHARES)})
        for n in (40, 41)
    ]
    drawing, _ = draw("groups", load_runs(paths), tmp_path)
    assert drawing.figure.axes[0].get_xticklabels()[0].get_text() == "1, rarest"


def test_class_accuracy_is_drawn_over_the_class_size(two, tmp_path):
    drawing, numbers = draw("class_accuracy", two, tmp_path)
    assert numbers["first"]["accuracy"] == SHARES and numbers["first"]["class_counts"] == COUNTS
    axes = drawing.figure.axes[0]
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [100, 40, 20, 10, 5])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [90, 80, 60, 30, 10])
    assert axes.get_xticklabels()[0].get_text() == "class 2\n100"


def test_no_line_joins_classes_and_each_has_its_interval(two, tmp_path):
    drawing, _ = draw("class_accuracy", two, tmp_path)
    assert [line.get_linestyle() for line in drawing.figure.axes[0].lines] == ["None"] * 2
    assert not drawing.figure.axes[0].collections
    drawing, _ = draw("class_accuracy", two[:1], tmp_path)
    (bars,) = drawing.figure.axes[0].collections
    wanted = accuracy_intervals(diagonal_results(SHARES)).per_class
    for segment, size, ends in zip(bars.get_segments(), COUNTS, wanted, strict=True):
        np.testing.assert_allclose(segment, [[size, 100 * ends.low], [size, 100 * ends.high]])


def diagonal_results(shares):
    return Confusion.from_dense(diagonal(shares)).results()


@pytest.mark.parametrize("classes", [12, 20, 21])
def test_up_to_twenty_classes_have_numbers_in_the_confusion_matrix(classes, tmp_path):
    counts = np.geomspace(500, 5, classes).astype(int).tolist()
    path = write_run(tmp_path / "run", counts=counts, evaluations={4: diagonal([0.7] * classes)})
    drawing, _ = draw("confusion", load_runs([path]), tmp_path)
    texts = [text.get_text() for text in drawing.figure.axes[0].texts]
    assert texts.count("70") == texts.count("30") == (classes if classes <= 20 else 0)


def test_names_turn_where_they_would_touch(tmp_path):
    turned = {}
    for length in (1, 9, 16):
        path = write_run(
            tmp_path / str(length), counts=COUNTS, evaluations={4: diagonal(SHARES)},
            names=[letter * length for letter in "abcde"],
        )  # fmt: skip
        drawing, _ = draw("class_accuracy", load_runs([path]), tmp_path)
        figure = drawing.figure
        labels = figure.axes[0].get_xticklabels()
        turned[length] = labels[0].get_rotation()
        if not turned[length]:
            boxes = [label.get_window_extent() for label in labels]
            assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    assert turned == {1: 0, 9: 0, 16: 40}


def test_names_of_classes_with_the_same_size_do_not_overlap(tmp_path):
    path = write_run(tmp_path / "run", counts=[9] * 5, evaluations={4: diagonal(SHARES)})
    drawing, _ = draw("class_accuracy", load_runs([path]), tmp_path)
    labels = [text.get_text() for text in drawing.figure.axes[0].get_xticklabels()]
    assert not any("class" in label for label in labels)


def test_curves_have_a_point_for_each_record(two, tmp_path):
    drawing, numbers = draw("curves", two, tmp_path)
    assert numbers["first"]["train/loss"] == [[1, 2, 3, 4], [2.0, 1.0, 2 / 3, 0.5]]
    assert numbers["first"]["test/accuracy"] == [[2, 4], [0.5, 0.54]]
    np.testing.assert_allclose(drawing.figure.axes[1].lines[0].get_ydata(), [50, 54])


@pytest.mark.slow
def test_a_hundred_classes(tmp_path):
    counts = np.geomspace(500, 5, 100).astype(int).tolist()
    shares = np.linspace(0.9, 0, 100).round(1).tolist()
    path = write_run(tmp_path / "run", counts=counts, evaluations={4: diagonal(shares)})
    runs = load_runs([path])
    for name in WITHOUT_DATA:
        drawing, numbers = draw(name, runs, tmp_path)
    assert numbers["run"]["accuracy"] == pytest.approx(shares)
    drawing, _ = draw("confusion", runs, tmp_path)
    panel = drawing.figure.axes[0]
    assert not panel.texts and "class" not in panel.get_yticklabels()[0].get_text()


def test_few_classes_have_no_groups(tmp_path):
    path = write_run(
        tmp_path / "run", counts=[9, 5, 2], evaluations={4: diagonal([1, 0.5, 0])}
    )  # fmt: skip
    runs = load_runs([path])
    with pytest.raises(ConfigError, match="it has 3 classes, and 5 groups need at least 5"):
        FIGURES["groups"].draw(runs, Options())
    draw("confusion", runs, tmp_path)
    draw("class_accuracy", runs, tmp_path)


def test_without_an_evaluation_only_curves_can_be_drawn(tmp_path):
    path = write_run(tmp_path / "run", counts=COUNTS, evaluations={}, finished=False)
    runs = load_runs([path])
    for name in WITHOUT_DATA[1:]:
        with pytest.raises(ConfigError, match="run has no evaluation yet"):
            FIGURES[name].draw(runs, Options())
    drawing, numbers = draw("curves", runs, tmp_path)
    assert numbers["run"]["test/accuracy"] == [[], []]
    assert [a.texts[0].get_text() for a in drawing.figure.axes] == ["none yet"] * 3


def test_curves_of_a_finished_run_do_not_wait_for_what_it_does_not_have(tmp_path):
    path = write_run(
        tmp_path / "run", counts=COUNTS, evaluations={4: np.eye(len(COUNTS), dtype=int)}
    )
    (path / "metrics.jsonl").write_text("")
    drawing, _ = draw("curves", load_runs([path]), tmp_path)
    texts = [axes.texts[0].get_text() for axes in drawing.figure.axes]
    assert texts == ["none"] * 3


def test_an_unfinished_run_shows_its_newest_evaluation(tmp_path):
    evaluations = {1: diagonal([0.1] * 5), 3: diagonal(SHARES)}
    path = write_run(tmp_path / "run", counts=COUNTS, evaluations=evaluations, finished=False)
    (run,) = load_runs([path])
    with pytest.raises(DataError, match=r"nowhere\.npz"):
        latest_evaluation(run)  # the class counts are in no checkpoint, and the data is gone
    np.savez(
        tmp_path / "data.npz",
        train_images=np.arange(175 * 12, dtype=np.uint8).reshape(175, 2, 2, 3),
        train_labels=np.repeat(np.arange(5), COUNTS),
        test_images=np.zeros((5, 2, 2, 3), np.uint8),
        test_labels=np.arange(5),
    )
    config = json.loads((path / "config.json").read_text())
    config["config"]["data"].update(path=str(tmp_path / "data.npz"), profile="natural", augment=[])
    (path / "config.json").write_text(json.dumps(config))
    (run,) = load_runs([path])
    found = latest_evaluation(run)
    assert (found.epoch, found.finished) == (3, False) and found.class_counts == COUNTS
    assert found.number("per_class_accuracy") == SHARES
    _, numbers = draw("groups", [run], tmp_path)
    assert numbers["run"]["accuracy"] == [0.1, 0.3, 0.6, 0.8, 0.9]


def test_an_evaluation_after_the_summary_is_the_newest(tmp_path):
    """This happens if a finished run is started again with more epochs."""
    evaluations = {4: diagonal([0.1] * 5), 6: diagonal(SHARES)}
    path = write_run(
        tmp_path / "run", counts=COUNTS, evaluations=evaluations, epochs=6, finished=False
    )
    short = write_run(tmp_path / "short", counts=COUNTS, evaluations={4: diagonal([0.1] * 5)})
    (path / "summary.json").write_text((short / "summary.json").read_text())
    (run,) = load_runs([path])
    found = latest_evaluation(run)
    assert (found.epoch, found.finished) == (6, False)
    assert found.number("per_class_accuracy") == SHARES and found.class_counts == COUNTS
    records = (path / "metrics.jsonl").read_text().splitlines()[:5]
    (path / "metrics.jsonl").write_text("".join(line + "\n" for line in records))
    (run,) = load_runs([path])
    assert (latest_evaluation(run).epoch, latest_evaluation(run).finished) == (4, False)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_summary_is_named(text, tmp_path):
    path = write_run(tmp_path / "run", counts=COUNTS, evaluations={4: diagonal(SHARES)})
    (path / "summary.json").write_text(text)
    with pytest.raises(ConfigError, match=r"summary\.json is damaged"):
        load_runs([path])


ODD = ["caf\udce9", "$x^$", "x\x1b[31m", "größer", "_hidden"]
SHOWN = [r"caf\udce9", "$x^$", r"x\x1b[31m", "größer", "_hidden"]


@pytest.mark.slow
def test_odd_names_of_classes_and_runs(tmp_path):
    """Undecodable bytes, formulas, control characters, names that a legend would leave out."""
    paths = [
        write_run(tmp_path / name, counts=COUNTS, evaluations={4: diagonal(SHARES)}, names=ODD)
        for name in ("_first", "$\\bad$", "$")
    ]
    runs = load_runs(paths)
    for name in WITHOUT_DATA:
        drawing, numbers = draw(name, runs, tmp_path)
        assert list(numbers) == ["_first", "$\\bad$", "$"]
        for legend in drawing.figure.legends:
            drawing.figure.draw_without_rendering()
            assert len(legend.get_texts()) == 3
    _, numbers = draw("confusion", runs[:1], tmp_path)
    assert sorted(numbers["_first"]["class_names"]) == sorted(SHOWN)
    for svg in (render(runs), render(runs[:1])):
        pictures = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", svg)
        assert len(pictures) >= 3
        for picture in pictures:
            ElementTree.fromstring(base64.b64decode(picture))


def test_figures_replace_links_and_do_not_follow_them(tmp_path):
    path = write_run(tmp_path / "run", counts=COUNTS, evaluations={4: diagonal(SHARES)})
    (tmp_path / "figures").mkdir()
    for suffix in ("png", "pdf", "json"):
        (tmp_path / f"target.{suffix}").write_text("unchanged")
        (tmp_path / f"figures/groups.{suffix}").symlink_to(f"../target.{suffix}")
    draw("groups", load_runs([path]), tmp_path)
    for suffix in ("png", "pdf", "json"):
        assert (tmp_path / f"target.{suffix}").read_text() == "unchanged"
        assert not (tmp_path / f"figures/groups.{suffix}").is_symlink()
