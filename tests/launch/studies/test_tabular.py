"""The study of tables: its training sets, classifiers, evaluation and files. Rows are generated."""

import csv
import json
import sys

import numpy as np
import pytest
from sklearn.svm import SVC

from launch import reproduce
from launch.studies import tabular
from launch.studies.classifiers import fit
from launch.studies.csv_rows import TwoClasses
from purenoise_jax.runtime.errors import ConfigError
from tests.docs.pages import DOCS, blocks


def generated(counts=(120, 80), shift=1.5):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], counts)
    features = rng.normal(size=(sum(counts), 3)) + shift * labels[:, None]
    return TwoClasses(features, np.ones(3, bool), labels, ("no", "yes"), 0, "0" * 64)


@pytest.fixture
def csv_file(tmp_path):
    rows = generated()
    path = tmp_path / "things.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "kind"])
        for features, label in zip(rows.features, rows.labels, strict=True):
            writer.writerow([*features, rows.names[label]])
    return path


@pytest.mark.parametrize("pool", [(179, 106), (60, 40), (20_000, 6_000), (50, 3000), (7, 5)])
@pytest.mark.parametrize("number", [9, 25])
def test_training_sets_have_one_size_and_fit_the_rows_that_there_are(pool, number):
    counts = tabular.plan_counts(pool, number, 5000)
    total = counts.sum(axis=1)
    assert (total == total[0]).all() and 2 < total[0] <= 5000
    assert (counts >= 1).all() and (counts <= pool).all()
    ratios = counts[:, 1] / counts[:, 0]
    assert (np.diff(ratios) > 0).all() and 1 in ratios
    # Two rows more would be too many.
    lowest, highest = (10**exponent for exponent in (-2.5, 0.43))
    rows = min(pool[0] * (1 + lowest), pool[1] * (1 + highest) / highest, 5000)
    assert total[0] > rows - 2


def test_many_rows_have_all_ratios_of_the_source():
    counts = tabular.plan_counts((20_000, 6_000), 25, 5000)
    ratios = counts[:, 1] / counts[:, 0]
    expected = 10 ** np.linspace(-2.5, 0.43, 25)
    # The one nearest to 1 is 1.
    assert np.abs(np.log10(ratios / expected)).max() < 0.06
    assert (counts.sum(axis=1) == 5000).all()


def test_too_few_rows_are_refused():
    with pytest.raises(ConfigError, match="too few for two ratios"):
        tabular.plan_counts((1, 1), 9, 5000)


def test_a_seed_trains_on_one_half_and_tests_on_the_other(monkeypatch):
    rows, counts = generated(), np.array([[58, 2], [40, 20], [25, 35]])
    trained, tested = [], []

    def remember(model, given, chosen, seed):
        trained.append(chosen)
        return lambda features: tested.append(features) or np.zeros(len(features), int)

    monkeypatch.setattr(tabular, "fit", remember)
    found = tabular.fitted_accuracies("svm", rows, counts, 3)
    assert found.tolist() == [[1, 0]] * 3
    for chosen, each in zip(trained, counts, strict=True):
        assert np.bincount(rows.labels[chosen]).tolist() == each.tolist()
        assert len(set(chosen)) == len(chosen)
    assert set(trained[1][:40]) < set(trained[0]) and set(trained[1][40:]) < set(trained[2])
    shown = np.concatenate(tested[:2])
    assert len(shown) == 100
    seen = {tuple(row) for row in shown}
    assert not any(tuple(rows.features[row]) in seen for chosen in trained for row in chosen)
    tabular.fitted_accuracies("svm", rows, counts, 4)
    assert set(trained[3]) != set(trained[0])


def test_accuracy_at_a_test_ratio_is_that_of_a_test_set_with_it():
    counts = np.array([[90, 10], [50, 50], [40, 60]])
    found = np.array([[[0.9, 0.5], [0.7, 0.6], [0.6, 0.8]], [[1.0, 0.3], [0.7, 0.8], [0.4, 0.8]]])
    study = tabular.study_of(counts, found)
    for t, of_set in enumerate(found.swapaxes(0, 1)):
        for r, (frequent, rare) in enumerate(counts):
            # Ten rows of the test set for each of the counts.
            right = [10 * frequent * a + 10 * rare * b for a, b in of_set]
            shares = np.array(right) / (10 * (frequent + rare))
            assert study.accuracy[t, r] == pytest.approx(shares.mean())
            assert study.error[t, r] == pytest.approx(shares.std(ddof=1) / np.sqrt(2))


def test_the_svm_has_numbers_that_are_standardised_by_its_training_rows():
    # Classes that overlap, so that small differences of the features change predictions.
    rows = generated(shift=0.3)
    rows.features[::4, 1] = np.nan
    # A category, and a number that does not vary.
    category = np.arange(len(rows.labels)) % 9 == 0
    features = np.column_stack([rows.features, category, np.full(len(rows.labels), 5.0)])
    rows = rows._replace(features=features, numeric=np.append(rows.numeric, [False, True]))
    chosen = np.arange(0, 200, 3)
    mean, std = np.nanmean(features[chosen], axis=0), np.nanstd(features[chosen], axis=0)
    scaled = np.nan_to_num((features - mean) / np.where(std > 0, std, 1))
    scaled[:, -2] = category
    reference = SVC(C=1.0).fit(scaled[chosen], rows.labels[chosen])
    predict = fit("svm", rows, chosen, 0)
    assert (predict(features) == reference.predict(scaled)).all()
    unscaled = SVC(C=1.0).fit(np.nan_to_num(features[chosen]), rows.labels[chosen])
    assert (unscaled.predict(np.nan_to_num(features)) != reference.predict(scaled)).any()


def test_without_xgboost_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(ConfigError, match="needs the package xgboost: pip install xgboost"):
        fit("xgboost", generated(), np.arange(10), 0)


def test_without_a_file_both_figures_are_missing_with_what_they_need(capsys):
    assert reproduce.main(["tabular"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "XGBoost on Adult missing: needs --csv adult.data --no-header --label 15" in shown
    assert "SVM on Forest Cover missing: needs --csv covtype.data" in shown


def test_the_help_of_the_tables_lists_it(capsys):
    with pytest.raises(SystemExit):
        reproduce.parser().parse_args(["--help"])
    assert "\n  tabular             Training ratio against test ratio" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_leaves_figure_numbers_and_table(csv_file, tmp_path, capsys):
    arguments = [f"--csv={csv_file}", "--label=kind", "--model=svm", "--tier=mini"]
    assert reproduce.main(["tabular", *arguments, f"--out={tmp_path}"]) == 0
    folder = tmp_path / "mini/tables"
    names = {path.name for path in folder.iterdir()}
    assert names == {f"tabular_things_svm.{end}" for end in ("png", "pdf", "json", "md")}
    numbers = json.loads((folder / "tabular_things_svm.json").read_text())
    assert numbers["rows"] == [120, 80] and numbers["seeds"] == 3
    assert len(numbers["file"]["sha256"]) == 64 and numbers["versions"]["scikit-learn"]
    sets = len(numbers["class_counts"])
    assert np.shape(numbers["class_accuracy"]) == (3, sets, 2)
    assert set(numbers["policies"]) == {"ratio of the test set", "balanced", "best of all ratios"}
    table = (folder / "tabular_things_svm.md").read_text()
    assert table.count("\n|") == sets + 2 and "Misalignment: " in table
    assert str(folder / "tabular_things_svm.png") in capsys.readouterr().out


def test_a_dry_run_fits_nothing(csv_file, tmp_path, capsys):
    arguments = [f"--csv={csv_file}", "--label=kind", "--model=svm", "--dry-run"]
    assert reproduce.main(["tabular", *arguments, f"--out={tmp_path / 'out'}"]) == 0
    shown = capsys.readouterr().out
    sets = len(tabular.plan_counts((60, 40), 25, 5000))
    assert f"5 seeds, {5 * sets} classifiers" in shown and not (tmp_path / "out").exists()


WRONG = {
    "no label": ([], "--label=COLUMN is missing"),
    "no seeds": (["--label=kind", "--seeds=0"], "--seeds must be at least 1"),
    "one class": (["--label=kind", "--classes=yes"], "must name two classes"),
    "unknown class": (["--label=kind", "--classes=yes,maybe"], "'maybe'"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_errors_take_one_line(arguments, message, csv_file, capsys):
    assert reproduce.main(["tabular", f"--csv={csv_file}", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1


def test_a_file_that_is_not_there_is_an_error(tmp_path, capsys):
    arguments = [f"--csv={tmp_path / 'none.csv'}", "--label=kind"]
    assert reproduce.main(["tabular", *arguments]) != 0
    assert "none.csv" in capsys.readouterr().err


@pytest.mark.slow
def test_xgboost_learns_and_takes_missing_numbers():
    pytest.importorskip("xgboost")
    rows = generated(shift=3)
    rows.features[::5, 0] = np.nan
    predict = fit("xgboost", rows, np.arange(0, 200, 2), 0)
    assert (predict(rows.features[1::2]) == rows.labels[1::2]).mean() > 0.9


def test_the_table_of_the_page_is_that_of_the_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = [b for b in blocks(DOCS / "studies.md", "python") if "breast_cancer" in b]
    exec(compile(code, "studies.md", "exec"), {})
    page = (DOCS / "studies.md").read_text()
    for model, title in tabular.MODELS.items():
        stored = DOCS.parent / f"results/tabular_breast_cancer_{model}_cpu.json"
        numbers = json.loads(stored.read_text())
        rows = tabular.read_two_classes(tmp_path / "breast_cancer.csv", "diagnosis")
        assert numbers["file"]["sha256"] == rows.sha256 and rows.names == ("benign", "malignant")
        found = np.array(numbers["class_accuracy"])
        study = tabular.study_of(np.array(numbers["class_counts"]), found)
        for cells in tabular._cells(study):
            ratio, best, same, balanced, most = cells
            line = f"| {title} | {ratio} | {same} | {balanced} | {most} | {best} |"
            assert line in page or ratio not in ("0.0141", "0.125", "2.69")
