"""The studies of how networks fit their classes: their runs, and the figures from hand-made runs."""

from pathlib import Path

import numpy as np
import pytest

from launch.cells import Row
from launch.plan import MINI_EPOCHS, MINI_MODEL, Cell, Plan
from launch.planning import tasks_of
from launch.studies import fitting, progress
from launch.studies.series import fitting_of
from launch.tables import make_table
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.validation import validate
from purenoise_jax.data.longtail import long_tail_counts
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.files import read_json
from tests.fake_runs import diagonal, write_run

MINI = Plan(epochs=MINI_EPOCHS, model=MINI_MODEL, mini=True)
PLANS = {"full": Plan(), "mini": MINI, "quick": Plan(epochs=5, quick=True)}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("name", ["fitting", "progress"])
def test_every_epoch_is_evaluated_on_the_training_images(name, plan):
    for config in make_table(name, plan).configs:
        validate(config)
        assert config.eval.train and (config.eval.every_epochs, config.eval.test) == (1, "end")


def test_nothing_regularises_the_fit_and_every_set_has_as_many_images():
    for plan, number in ((Plan(), 7), (MINI, 4)):
        table = make_table("fitting", plan)
        ratios = [1 / c.data.imbalance_ratio for c in table.configs]
        np.testing.assert_allclose(np.log10(ratios), np.linspace(0, -3, number), atol=2e-3)
        for config, ratio in zip(table.configs, ratios, strict=True):
            optimizer = config.optimizer
            assert optimizer.weight_decay == 0 and config.data.augment == ()
            assert (optimizer.learning_rate, optimizer.schedule) == (0.5, "cosine")
            assert not optimizer.warmup_epochs and config.data.profile == "step"
            whole = long_tail_counts(5000, 10, imbalance_ratio=1 / ratio, profile="step")
            counts = [max(n * config.data.limit // 5000, 1) for n in map(int, whole)]
            assert sum(counts) == pytest.approx(5000, abs=10)
            # Rounded down twice, by the profile and by the limit.
            assert 0 <= ratio * counts[0] - counts[-1] < 2 or counts[-1] == 1
    assert make_table("fitting", Plan()).configs[0].model.name == "resnet50_cifar"


def test_the_progress_is_that_of_the_published_recipe():
    table, peers = make_table("progress", Plan()), make_table("procrustean", Plan())
    for cell in table.cells:
        fields = cell.config.to_dict()
        del fields["eval"]
        found = [c.config.to_dict() for c in peers.cells if c.config and c.setting == cell.setting]
        same = [c for c in found if {n: v for n, v in c.items() if n != "eval"} == fields]
        assert same or cell.method == "CDT", cell.method
    names = {(c.config.data.profile, c.method.split(",")[0]) for c in table.cells}
    long = {("exp", name) for name in ("ERM", "mixup", "CDT", "MFW")}
    assert {(p.replace("auto", "exp"), n) for p, n in names} == long | {
        ("step", "ERM"),
        ("step", "MFW"),
    }


def test_a_run_with_more_evaluations_has_a_folder_of_its_own():
    """A finished run without them is not taken for it."""
    plain, more = default_config(), default_config()
    more.eval.train = True
    first, second = (tasks_of(config, 0, Path("runs"))[0].workdir for config in (plain, more))
    assert first != second
    more.eval.train = False
    assert tasks_of(more, 0, Path("runs"))[0].workdir == first


COUNTS = [40] * 5 + [10] * 5


def matrix(majority, minority):
    """Ten classes, of which so many images are right; those of class 0 go to 1, others to 0."""
    found = np.zeros((10, 10), int)
    for k, total in enumerate(COUNTS):
        found[k, k] = majority if k < 5 else minority
        found[k, int(k == 0)] += total - found[k, k]
    return found


@pytest.fixture
def rows(tmp_path):
    def row(setting, method, seeds):
        folders = []
        for seed, (majority, minority) in enumerate(seeds):
            folders.append(
                write_run(
                    tmp_path / f"{setting}{method}{seed}",
                    counts=COUNTS,
                    evaluations={4: diagonal([majority / 40] * 5 + [minority / 10] * 5)},
                    training={2: matrix(20, 0), 4: matrix(majority, minority)},
                )
            )
        summaries = tuple(read_json(folder / "summary.json") for folder in folders)
        return Row(Cell(setting, method, default_config()), 2, summaries, tuple(folders))

    return [
        row("one", "ratio 1", [(40, 10), (40, 8)]),
        row("one", "ratio 0.1", [(36, 4), (36, 2)]),
        row("two", "ratio 1", []),
    ]


def test_series_are_means_over_the_runs(rows):
    found = fitting_of(rows[0])
    assert found.epochs == [2, 4] and found.runs == 2
    np.testing.assert_allclose(found.accuracy, [[0.5] * 5 + [0] * 5, [1] * 5 + [0.9] * 5])
    # Beside its own, class 0 gets the wrong ones of others: 130 at first, later none or 10.
    np.testing.assert_allclose(found.ratio[:, 0], [(20 + 80 + 50) / 40, (40 + (0 + 10) / 2) / 40])
    np.testing.assert_allclose(found.ratio[:, 9], [0, 0.9])


def test_the_fit_is_drawn_by_group_and_ratio(rows):
    figure, numbers = fitting.draw(rows, MINI)
    minority, majority = figure.axes
    assert [line.get_label() for line in minority.get_lines()] == ["ratio 1", "ratio 0.1"]
    np.testing.assert_allclose([x.get_ydata() for x in minority.get_lines()], [[0, 90], [0, 30]])
    np.testing.assert_allclose([x.get_ydata() for x in majority.get_lines()], [[50, 100], [50, 90]])
    assert set(numbers) == {"caveat", "ratio 1", "ratio 0.1"}
    assert numbers["ratio 0.1"]["training_accuracy"][1] == [0.9] * 5 + [0.3] * 5


def test_the_progress_is_drawn_by_setting(rows):
    figure, numbers = progress.draw(rows, MINI)
    first, middle, last, training, test = figure.axes
    assert first.get_title() == "most frequent class, 40 images"
    assert middle.get_title() == "middle class, 10 images"
    assert last.get_title() == "rarest class, 10 images"
    np.testing.assert_allclose(first.get_lines()[1].get_ydata(), [375, (36 + 16 + 35) / 0.4])
    np.testing.assert_allclose(last.get_lines()[0].get_ydata(), [0, 90])
    np.testing.assert_allclose(training.get_lines()[1].get_ydata(), [90] * 5 + [30] * 5)
    np.testing.assert_allclose(test.get_lines()[1].get_ydata(), [90] * 5 + [30] * 5)
    assert numbers["one"]["ratio 0.1"]["test_accuracy"] == pytest.approx([0.9] * 5 + [0.3] * 5)
    assert set(numbers) == {"caveat", "one"}, "a setting without a finished run is left out"


def test_a_method_looks_the_same_in_all_settings(rows):
    second = rows[1]
    elsewhere = Row(
        Cell("two", "ratio 0.1", default_config()), 2, second.summaries, second.workdirs
    )
    figure, _ = progress.draw([*rows[:2], elsewhere], MINI)
    first, below = figure.axes[0], figure.axes[5]
    (line,) = below.get_lines()[:1]
    assert line.get_color() == first.get_lines()[1].get_color() != first.get_lines()[0].get_color()
    shown = {text.get_text(): mark for text, mark in zip(
        figure.legends[0].get_texts(), figure.legends[0].get_lines(), strict=True
    )}  # fmt: skip
    assert shown["ratio 0.1"].get_color() == line.get_color() and len(shown) == 2


def test_a_run_without_these_evaluations_is_named(tmp_path):
    folder = write_run(tmp_path / "run", counts=COUNTS, evaluations={4: diagonal([1.0] * 10)})
    summary = read_json(folder / "summary.json")
    row = Row(Cell("one", "a", default_config()), 1, (summary,), (folder,))
    with pytest.raises(ConfigError, match=r"run has no evaluation of its training images"):
        fitting.draw([row], MINI)
