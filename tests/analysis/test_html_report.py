"""The HTML report, the command line of the figures, and the report at the end of a run."""

import base64
import json
import re
from html.parser import HTMLParser
from importlib import resources
from types import SimpleNamespace

import numpy as np
import pytest

from purenoise_jax import main as training
from purenoise_jax.analysis import __main__ as cli
from purenoise_jax.analysis import html_report, reliability, run_tables
from purenoise_jax.analysis.figure_style import Options
from purenoise_jax.analysis.figures import FIGURES
from purenoise_jax.analysis.seeds import group_rows
from purenoise_jax.inference.calibration_file import write_calibration
from purenoise_jax.inference.reliability import scaled
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.inference.temperature import fit_temperature
from purenoise_jax.training.probabilities import Probabilities, save
from tests.fake_runs import diagonal, write_run
from tests.tiny import tiny_config, write_npz

COUNTS = [100, 40, 20, 10, 5]
SHARES = [0.9, 0.8, 0.6, 0.3, 0.1]
NAMES = ["<b>bold</b>", "a & b", '"quoted"', "$x$", "plain"]
# Elements without an end tag.
VOID = {"meta", "img", "br", "source"}


class Reader(HTMLParser):
    """Checks that elements nest, and collects texts, tags, ids and references."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.references, self.words, self.tags, self.ids = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.references.append(value)
            if name == "id":
                self.ids.append(value)
            assert not name.startswith("on")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)
        else:
            assert "url(" not in data and "@import" not in data


def read(html):
    """Checks that a report is well-formed and self-contained; returns its text and the reader."""
    assert len(html) < 3e6
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == [] and "script" not in reader.tags and "link" not in reader.tags
    for reference in reader.references:
        inside = reference.startswith("#") and reference[1:] in reader.ids
        assert inside or reference.startswith("data:image/"), reference[:80]
        if not inside:
            content = base64.b64decode(reference.partition("base64,")[2]).decode("latin-1")
            # URLs of namespaces and types are only names; browsers do not fetch them.
            fetched = re.findall(r'(?:href|src)="(?!#|data:)[^"]*"', content)
            assert not fetched
    return " ".join(" ".join(reader.words).split()), reader


@pytest.fixture
def run(tmp_path):
    return write_run(
        tmp_path / "one", counts=COUNTS, names=NAMES, evaluations={4: diagonal(SHARES)}
    )


def test_a_report_of_one_run_shows_all_numbers(run):
    path = html_report.write_report(load_runs([run]))
    assert path == run / "report.html"
    text, reader = read(path.read_text())
    for words in (
        "test accuracy 54.0 %", "balanced accuracy 54.0 %", "rarest fifth of the classes 10.0 %",
        "geometric mean of recalls 41.9 %", "negative log-likelihood 1.250",
        "calibration error (ECE) 4.0 %", "training images 175", "f" * 64, "commit 0123abc",
        "training time 1 h 1 min", "images per second 1,234", "1 x cpu cpu", "seed 0",
        "num_epochs 4 default 200", "started from random parameters", "python 3.11.7",
        "initial erm epochs 1 .. 4", "few (< 20 images) 20.0 %", "$x$ 2 10",
    ):  # fmt: skip
        assert words in text, words
    # Groups, sizes, curves, confusion. The images are missing, and the report gives the reason.
    assert reader.tags.count("img") == 4
    assert "Not drawn" in text and "nowhere.npz" in text
    assert "not finished" not in text


def test_a_report_says_how_sure_and_how_large_everything_is(run):
    (loaded,) = load_runs([run])
    html = html_report.render([loaded])
    text, reader = read(html)
    # SHARES of ten images each; of five classes, one says of all its images that they are another.
    assert "test images 50 10 of a class" in text
    found = re.search(r"test accuracy 54.0 % 95 % interval ([\d.]+) to ([\d.]+)", text)
    low, high = map(float, found.groups())
    # Of a binomial distribution, whose standard deviation is 7.0 %.
    assert low == pytest.approx(54 - 13.8, abs=2.1) and high == pytest.approx(54 + 13.8, abs=2.1)
    # The most frequent class: 9 of 10 right, and 9 errors of the rarest class, which are taken for
    # it: precision 9 / 18, F1 18 / 28.
    row = re.search(r"<b>bold</b> 5 100 90.0 55.5 to 99.7 ([\d.]+) ([\d.]+) \N{EN DASH} 10 ", text)
    assert row.groups() == ("50.0", "64.3")
    assert re.search(r"seed 0; \d{4}-\d\d-\d\d \d\d:\d\d UTC", text)
    assert f'<code class="small">{"f" * 64}</code>' in html
    # The curves have another layout for a narrow screen.
    assert reader.tags.count("source") == 1


def with_probabilities(run, precision):
    """Adds the file of the bins, and says that the run was calibrated."""
    bins = np.zeros((15, 3))
    bins[4], bins[14] = (20, 6, 7), (30, 29, 20)
    save(run / "probabilities_test.json", Probabilities(bins, precision), 12)
    return bins


def calibrated(run, **changes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 60)
    logits = 3 * rng.normal(size=(60, 5)) + 3 * np.eye(5)[labels]
    seen = scaled(logits, labels, 2.5, split="test", title="test images")._replace(**changes)
    fit = fit_temperature(logits, labels)._replace(temperature=2.5)
    write_calibration(run, 12, "photos", NAMES, fit, [None] * 5, seen)
    return seen


@pytest.fixture
def reliability_alone(monkeypatch):
    """The other figures take their time."""
    title = "Reliability of the probabilities"
    monkeypatch.setattr(html_report, "_OWN", {title: html_report._OWN[title]})
    monkeypatch.setattr(html_report, "_SHARED", {})


def test_a_report_shows_how_well_the_probabilities_fit(run, reliability_alone):
    bins = with_probabilities(run, [0.91, 0.82, None, 0.4, 0.127])
    text, reader = read(html_report.render(load_runs([run])))
    mean = np.mean([0.91, 0.82, 0.4, 0.127])
    assert f"mean average precision {100 * mean:.1f} %" in text
    assert re.search(r"<b>bold</b> 5 100 90.0 55.5 to 99.7 50.0 64.3 91.0 10 ", text)
    assert re.search(r'"quoted" 3 20 60.0 \S+ to \S+ \S+ \S+ \N{EN DASH} 10 ', text)
    assert reader.tags.count("img") == 1 and "After temperature scaling" not in text
    drawing = reliability.draw_recorded(load_runs([run]), Options())
    numbers = drawing.numbers["one"]
    gap = abs(bins[:, 1] - bins[:, 2]).sum() / 50
    assert (numbers["ece"], numbers["nll"]) == (pytest.approx(gap), 1.25)
    assert len(drawing.figure.axes) == 2 and "scaled" not in numbers


@pytest.mark.parametrize(("split", "columns"), [("test", 2), ("", 3)])
def test_a_report_of_a_calibrated_run_has_before_and_after(run, split, columns, reliability_alone):
    with_probabilities(run, [None] * 5)
    seen = calibrated(run, split=split, title="images")
    (loaded,) = load_runs([run])
    text, reader = read(html_report.render([loaded]))
    for words in (
        "After temperature scaling temperature 2.5 logits are divided by it",
        "measured on 60 images",
        f"negative log-likelihood {seen.after.nll:.3f} {seen.before.nll:.3f} before",
        f"calibration error (ECE) {100 * seen.after.ece:.1f} % {100 * seen.before.ece:.1f} % before",
        "mean average precision \N{EN DASH} not recorded",
    ):
        assert words in text, words
    # Images of no split are drawn before scaling as well.
    for draw in (reliability.draw_recorded, reliability.draw_stacked):
        drawing = draw([loaded], Options())
        titles = [axes.get_title() for axes in drawing.figure.axes if axes.get_title()]
        assert len(drawing.figure.axes) == 2 * columns and len(titles) == columns
        assert titles[-1].endswith("at temperature 2.5")
        assert drawing.numbers["one"]["scaled"]["nll"] == seen.after.nll
    # The figure of several columns has another layout for a narrow screen.
    assert reader.tags.count("source") == 1


def test_a_damaged_calibration_is_named_in_the_report(run, reliability_alone):
    with_probabilities(run, [None] * 5)
    (run / "calibration.json").write_text("{}")
    text, _ = read(html_report.render(load_runs([run])))
    assert "temperature \N{EN DASH}" in text and "calibration.json is damaged" in text
    assert "Not drawn" in text


def test_class_names_are_escaped(run):
    html = html_report.write_report(load_runs([run])).read_text()
    text, _ = read(html)
    assert "<b>bold</b> 5 100" in text and "a & b 4 40" in text and '"quoted"' in text
    assert "<b>bold" not in html and "&lt;b&gt;bold&lt;/b&gt;" in html


def test_a_report_of_several_runs_compares_them(run, tmp_path):
    other = write_run(
        tmp_path / "two", counts=COUNTS, evaluations={4: diagonal([0.5] * 5)},
        summary={"test_ece": None}, **{"model.name": "resnet32", "seed": 3},
    )  # fmt: skip
    path = html_report.write_report(load_runs([run, other]))
    assert path == run / "figures/report.html"
    text, reader = read(path.read_text())
    assert (
        "2 runs compared" in text
        and "One seed per config: small differences may be due to chance" in text
    )
    assert "one 54.0 % 54.0 % 10.0 % 41.9 % 1.250 4.0 %" in text
    assert "two 50.0 % 50.0 % 50.0 % 50.0 % 1.250 \N{EN DASH} not recorded" in text
    assert "model.name wrn28_10 resnet32" in text and "seed 0 3" in text
    assert reader.references[:2] == ["#run-1", "#run-2"]
    assert reader.tags.count("img") == 3 + 2 and "not trained on the same" not in text


def test_a_comparison_states_its_number_of_seeds(tmp_path):
    def note(*runs):
        paths = []
        for model, seed in runs:
            path = tmp_path / f"{model}-{seed}"
            if not path.exists():
                write_run(path, counts=COUNTS, evaluations={4: diagonal(SHARES)},
                          **{"model.name": model, "seed": seed})  # fmt: skip
            paths.append(path)
        (note,) = html_report._notes(
            found := load_runs(paths), [html_report._evaluation_of(run) for run in found]
        )
        return note

    small, large = "resnet8", "resnet32"
    assert note((small, 0), (large, 0)).startswith("One seed per config:")
    assert note((small, 0), (large, 1)).startswith("One seed per config:")
    assert note((small, 0), (small, 1)).startswith("One config with 2 seeds:")
    four = [(model, seed) for model in (small, large) for seed in (0, 1)]
    assert note(*four).startswith("2 configs, 2 seeds each:")
    assert note(*four, (small, 2)).startswith("2 configs, 2 to 3 seeds each:")
    assert note(*four[:3]).startswith("2 configs, 1 to 2 seeds each:")


def test_runs_that_differ_in_the_seed_alone_have_one_row(tmp_path, monkeypatch):
    monkeypatch.setattr(html_report, "_pictures", lambda runs, titles: [])
    shares = {0: 0.5, 1: 0.6, 2: 0.8}
    paths = [
        write_run(tmp_path / f"small/seed{seed}", counts=COUNTS,
                  evaluations={4: diagonal([share] * 5)}, seed=seed)
        for seed, share in shares.items()
    ]  # fmt: skip
    other = {"model.name": "resnet32"}
    paths.append(write_run(tmp_path / "large/seed0", counts=COUNTS,
                           evaluations={4: diagonal([0.7] * 5)}, **other))  # fmt: skip
    values = 100 * np.array([*shares.values()])
    mean = f"{values.mean():.1f} ± {values.std(ddof=1) / np.sqrt(3):.1f} %"
    text, _ = read(html_report.render(load_runs(paths)))
    assert f"small, 3 runs {mean} {mean} {mean} {mean} 1.250 ± 0.000 " in text
    assert "large/seed0, 1 run 70.0 % 70.0 % 70.0 % 70.0 % 1.250 " in text
    found = load_runs(paths)
    evaluations = [html_report._evaluation_of(run) for run in found]
    for _, row in group_rows(found, evaluations):
        assert len(row) == len(run_tables.headline(evaluations[0])), "a number in each column"
    # Two of the first without the third, and one that is not finished.
    write_run(tmp_path / "small/seed3", counts=COUNTS, evaluations={4: diagonal([0.9] * 5)},
              summary={"epochs": 2}, seed=3)  # fmt: skip
    text, _ = read(html_report.render(load_runs([*paths[:2], tmp_path / "small/seed3"])))
    assert "small: seed0 to seed3, 2 of 3 runs 55.0 ± 5.0 %" in text


def test_runs_of_one_seed_or_of_other_images_are_not_averaged(tmp_path, monkeypatch):
    monkeypatch.setattr(html_report, "_pictures", lambda runs, titles: [])
    paths = [
        write_run(tmp_path / name, counts=COUNTS, evaluations={4: diagonal(SHARES)},
                  seed=seed, summary={"dataset_content": name})
        for seed, name in enumerate("ab")
    ]  # fmt: skip
    assert "seed alone" not in html_report.render(load_runs(paths))
    again = write_run(tmp_path / "c", counts=COUNTS, evaluations={4: diagonal(SHARES)},
                      summary={"dataset_content": "a"})  # fmt: skip
    assert "seed alone" not in html_report.render(load_runs([paths[0], again]))


def test_runs_on_different_data_are_marked(run, tmp_path):
    other = write_run(
        tmp_path / "two", counts=COUNTS, evaluations={4: diagonal(SHARES)},
        summary={"dataset_fingerprint": "e" * 64},
    )  # fmt: skip
    text, _ = read(html_report.render(load_runs([run, other])))
    assert "were not trained on the same images" in text


def test_a_missing_value_is_a_dash_with_its_reason(tmp_path):
    evaluations = {4: diagonal([1, 0.5, 0])}
    path = write_run(
        tmp_path / "run", counts=[9, 5, 2], evaluations=evaluations,
        summary={"images_per_second": None, "versions": None},
    )  # fmt: skip
    text, _ = read(html_report.render(load_runs([path])))
    dash = "\N{EN DASH}"
    assert f"rarest fifth of the classes {dash} 3 classes; needs 5" in text
    assert f"images per second {dash} not recorded" in text
    assert f"commit {dash} not recorded" in text
    assert f"many (> 100 images) {dash} no such class" in text
    assert "1 of 3 classes never recognised" in text
    assert "5 groups need at least 5" in text


def test_a_run_that_has_just_begun(tmp_path):
    path = write_run(tmp_path / "run", counts=COUNTS, evaluations={}, finished=False)
    text, reader = read(html_report.render(load_runs([path])))
    dash = "\N{EN DASH}"
    assert f"test accuracy {dash} not evaluated yet" in text
    assert "This run has no evaluation yet." in text
    assert f"training time {dash} the run is not finished" in text
    assert f"fingerprint {dash} not recorded yet" in text
    assert reader.tags.count("img") == 1, "only the curves, still empty"


@pytest.mark.slow
def test_a_comparison_leaves_out_a_run_without_evaluation(run, tmp_path):
    path = write_run(tmp_path / "begun", counts=COUNTS, evaluations={}, finished=False)
    text, reader = read(html_report.render(load_runs([path, run])))
    assert "begun has no evaluation yet." in text
    assert reader.tags.count("img") == 3 + 1


def test_many_classes_are_folded(tmp_path):
    counts = np.geomspace(500, 5, 100).astype(int).tolist()
    shares = np.linspace(0.9, 0, 100).round(1).tolist()
    path = write_run(tmp_path / "run", counts=counts, evaluations={4: diagonal(shares)})
    text, reader = read(html_report.render(load_runs([path])))
    assert "all 100 classes" in text and reader.tags.count("details") == 2
    assert "20 classes" in text


def test_the_template_is_in_the_package():
    file = resources.files("purenoise_jax.analysis").joinpath(html_report.TEMPLATE)
    assert "<!DOCTYPE html>" in file.read_text("utf-8")


def test_a_report_is_the_same_each_time(run):
    assert html_report.render(load_runs([run])) == html_report.render(load_runs([run]))


# --- the command line


def error_of(capsys, code, *arguments):
    assert cli.main([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert out == ""
    return err


def test_usage_errors_take_one_line(run, tmp_path, capsys):
    assert "'grups' is unknown" in error_of(capsys, 2, "grups", run)
    assert "did you mean 'groups'?" in error_of(capsys, 2, "grups", run)
    assert "required: FIGURE, RUN" in error_of(capsys, 2)
    assert "see --help" in error_of(capsys, 2, "groups", run, "--epochs=two")
    assert "--images=-1" in error_of(capsys, 2, "images", run, "--images=-1")
    assert "--seed=-1" in error_of(capsys, 2, "images", run, "--seed=-1")
    for figure, option in (
        ("groups", "--epoch=3"), ("curves", "--indices=a=b"), ("gradients", "--images=5"),
        ("report", "--ood=cifar100"), ("activations", "--ood_data=x"),
    ):  # fmt: skip
        flag = option.partition("=")[0]
        expected = f"{flag} has no effect on {figure}; leave it out"
        assert expected in error_of(capsys, 2, figure, run, option)
    assert "legal: NAME=FILE" in error_of(capsys, 2, "subsets", run, "--indices=x.txt")
    assert "is not the workdir of a run" in error_of(capsys, 2, "report", tmp_path)


def test_errors_have_the_exit_codes_of_training(run, tmp_path, capsys):
    assert "nowhere.npz" in error_of(capsys, 3, "images", run)
    blocked = tmp_path / "file"
    blocked.write_text("")
    error_of(capsys, 5, "report", run, "--out", blocked)
    error_of(capsys, 5, "groups", run, "--out", blocked / "below")


def test_help_names_every_figure(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in (*FIGURES, "report", "all", "--indices", "exit codes"):
        assert name in text


def test_a_figure_and_a_report_are_written_to_the_given_folder(run, tmp_path, capsys):
    out = tmp_path / "new/folder"
    assert cli.main(["groups", str(run), "--out", str(out)]) == 0
    assert cli.main(["report", str(run), "--out", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {"groups.png", "groups.pdf", "groups.json", "report.html"}
    printed = capsys.readouterr().out.split()
    assert printed == [str(out / f"groups.{s}") for s in ("png", "pdf", "json")] + [
        str(out / "report.html")
    ]


def test_all_draws_possible_figures_and_names_the_others(run, capsys):
    assert cli.main(["all", str(run)]) == 0
    out = capsys.readouterr().out
    for name in ("curves", "confusion", "groups", "class_accuracy"):
        assert str(run / f"figures/{name}.png") in out
    assert "images: not drawn: " in out and "subsets: not drawn: " in out


# --- at the end of a run


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz", (24, 12, 6, 3, 2))


def train(npz, workdir, *more):
    config = f"--config=tests/tiny_cli.py:{npz}"
    return training.main(["main", config, f"--workdir={workdir}", *more])


@pytest.mark.slow
def test_a_run_ends_with_its_report(npz, tmp_path, capsys):
    assert train(npz, tmp_path, "--config.report=true") == 0
    text, reader = read((tmp_path / "report.html").read_text())
    accuracy = json.loads((tmp_path / "summary.json").read_text())["test_accuracy"]
    assert f"test accuracy {100 * accuracy:.1f} %" in text
    assert reader.tags.count("img") == 6, "with the images of a training step"
    out, err = capsys.readouterr()
    assert str(tmp_path / "report.html") in out.splitlines()[-1] and err == ""


@pytest.mark.slow
def test_the_report_can_be_turned_off(npz, tmp_path):
    assert train(npz, tmp_path, "--config.report=false") == 0
    assert (tmp_path / "summary.json").exists() and not (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_report_that_fails_is_one_warning(npz, tmp_path, capsys, monkeypatch):
    def fail(runs):
        raise RuntimeError("no\nink")

    monkeypatch.setattr(html_report, "render", fail)
    assert train(npz, tmp_path, "--config.report=true") == 0
    assert capsys.readouterr().err == "warning: no report was written: no ink\n"
    assert (tmp_path / "summary.json").exists()


def test_frozen_parts_stand_beside_the_methods_of_their_phase(tmp_path):
    config = tiny_config(tmp_path / "none.npz")
    config.phases.initial.freeze = ("backbone",)
    (first, second) = run_tables.phase_rows(SimpleNamespace(config=config))
    assert first.text.endswith(" (backbone frozen)") and "frozen" not in second.text
