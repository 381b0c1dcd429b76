"""`python -m purenoise_jax.predict`: tables of predictions for folders, files and tables."""

import csv
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import purenoise_jax
from purenoise_jax import predict
from purenoise_jax.data.sources.lists import NO_LISTS, Lists
from purenoise_jax.inference import predict_files
from purenoise_jax.inference.listed_images import list_images
from purenoise_jax.inference.prediction_table import Tally
from purenoise_jax.inference.trained import load_trained
from purenoise_jax.training.intervals import accuracy_intervals
from purenoise_jax.training.metrics import ClassResults
from tests.encoded import png16
from tests.tiny_run import changed


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_balanced_accuracy_is_the_mean_over_the_classes_that_occur():
    tally = Tally()
    assert tally.accuracy is None and tally.balanced_accuracy is None
    for label, predicted in ("aa", "aa", "aa", "ab", "ba", ("", "a")):
        tally.add(label, predicted)
    assert (tally.images, tally.known, tally.correct) == (6, 5, 3)
    assert tally.accuracy == 3 / 5 and tally.balanced_accuracy == (3 / 4 + 0) / 2


@pytest.fixture
def table(finished, tmp_path, capsys, monkeypatch):
    """Runs the command, and returns its exit code, the rows of its table and its messages."""
    monkeypatch.setattr(predict_files, "BATCH_SIZE", 16)

    def run(*arguments):
        out = tmp_path / "predictions.csv"
        code = predict.main([str(finished.run.path), *map(str, arguments), "--out", str(out)])
        rows = rows_of(out.read_text(encoding="utf-8")) if out.exists() else None
        return code, rows, capsys.readouterr().err

    return run


def test_the_accuracy_on_the_test_folder_is_that_of_the_run(finished, table):
    code, rows, err = table(finished.folder)
    assert code == 0 and len(rows) == 40
    assert list(rows[0]) == [
        "path",
        "label",
        "predicted",
        "probability",
        *(f"p_{k}" for k in range(4)),
    ]
    right = [row["label"] == row["predicted"] for row in rows]
    accuracy = finished.run.summary["test_accuracy"]
    assert sum(right) / len(right) == accuracy
    assert f"40 images in {finished.run.path.parent}"[:9] in err
    # As in the run's report.
    images = np.bincount([int(row["label"]) for row in rows])
    correct = np.bincount([int(row["label"]) for row in rows], right).astype(int)
    spread = accuracy_intervals(ClassResults(images, correct))
    summary = finished.run.summary["intervals"]["test"]
    assert summary["accuracy"] == [*spread.accuracy]
    assert summary["balanced_accuracy"] == [*spread.balanced_accuracy]
    assert summary["per_class_accuracy"] == [[*ends] for ends in spread.per_class]
    interval, of_balanced = (
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f})" for low, high in spread[:2]
    )
    assert f"accuracy {100 * accuracy:.2f} % {interval}, {sum(right)} of 40" in err
    balanced = finished.run.summary["balanced_accuracy"]
    assert f"balanced accuracy {100 * balanced:.2f} % {of_balanced}" in err


def test_its_numbers_are_those_of_the_classifier(finished, table, classifier):
    _, rows, _ = table(finished.folder)
    expected = classifier.predict_proba([row["path"] for row in rows])
    seen = np.array([[row[f"p_{k}"] for k in range(4)] for row in rows], np.float32)
    np.testing.assert_allclose(seen, expected, atol=1e-6)
    for row, numbers in zip(rows, seen, strict=True):
        assert row["predicted"] == str(numbers.argmax())
        assert np.float32(row["probability"]) == numbers.max()


def test_an_npz_and_a_table_of_paths_give_what_the_folder_gives(finished, table, tmp_path):
    _, expected, _ = table(finished.folder)
    shutil.copytree(finished.folder, tmp_path / "flat")
    with (tmp_path / "list.csv").open("w") as file:
        file.write("label,path\n")
        for row, (path, label) in enumerate(
            zip(sorted((tmp_path / "flat").rglob("*.png")), finished.labels, strict=True)
        ):
            path.rename(tmp_path / f"{row}.png")
            file.write(f"{label},{row}.png\n")
    for given, first in ((finished.npz, f"{finished.npz}[0]"), (tmp_path / "list.csv", None)):
        code, rows, _ = table(given)
        assert code == 0 and [r["predicted"] for r in rows] == [r["predicted"] for r in expected]
        assert [r["label"] for r in rows] == [r["label"] for r in expected]
        assert rows[0]["path"] == (first or str(tmp_path / "0.png"))


def test_a_label_is_only_there_where_the_folder_is_a_class(finished, table, tmp_path):
    source = next(finished.folder.rglob("*.png"))
    for place in ("new/a.png", "new/deep/0/b.png", "new/deep/nothing/c.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tmp_path / place)
    (tmp_path / "new/notes.txt").write_text("no image")
    code, rows, err = table(tmp_path / "new")
    assert code == 0 and [row["label"] for row in rows] == ["", "0", ""]
    assert "of 1 whose class is known" in err
    (tmp_path / "new/deep/0/b.png").unlink()
    assert "accuracy" not in table(tmp_path / "new")[2]


def test_images_that_cannot_be_read_are_named_and_left_out(finished, table, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "photos")
    whole = tmp_path / "photos/1/10.png"
    whole.write_bytes(whole.read_bytes()[:-30])
    (tmp_path / "photos/2/scan.heic").write_bytes(b"x")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    code, rows, err = table(tmp_path / "photos", tmp_path / "dangling.png", tmp_path / "gone")
    assert code == 3 and len(rows) == 39
    _, whole_rows, _ = table(finished.folder)
    expected = [row["predicted"] for row in whole_rows if "10.png" not in row["path"]]
    assert [row["predicted"] for row in rows] == expected
    assert "10.png" not in "".join(row["path"] for row in rows)
    lines = [line for line in err.splitlines() if str(tmp_path / "photos") in line]
    assert len(lines) == 2 and any("10.png: cannot be read as an image" in line for line in lines)
    assert any("scan.heic: has no supported format" in line for line in lines)
    assert "dangling.png: cannot be read (No such file or directory)" in err
    assert err.splitlines()[-1] == "error: 4 images were left out; the table has all others"


def test_without_a_readable_image_there_is_no_table(table, tmp_path):
    (tmp_path / "empty").mkdir()
    code, rows, err = table(tmp_path / "empty")
    assert code == 3 and rows is None
    assert "empty: holds no images" in err and "error: no image could be read" in err


def sixteen_bits(path, end):
    samples = np.random.default_rng(0).integers(0, end, (8, 8, 3), np.uint16)
    path.write_bytes(png16(samples))
    return path


def test_nearly_black_images_of_16_bits_are_named_and_left_out(finished, table, tmp_path):
    dark = [sixteen_bits(tmp_path / f"dark{i}.png", 4096) for i in range(2)]
    code, rows, err = table(dark[0], finished.folder, dark[1])
    assert code == 3 and len(rows) == 40
    assert [row["path"] for row in rows] == [row["path"] for row in table(finished.folder)[1]]
    for path in dark:
        (line,) = [line for line in err.splitlines() if str(path) in line]
        assert "no 16-bit image of those given has a value above" in line and "hold 12 bits" in line
    assert err.splitlines()[-1] == "error: 2 images were left out; the table has all others"
    code, rows, err = table(dark[0])
    assert code == 3 and "error: no image could be read" in err


def test_a_dark_image_of_16_bits_among_others_is_classified(finished, table, tmp_path):
    dark = sixteen_bits(tmp_path / "dark.png", 4096)
    bright = sixteen_bits(tmp_path / "bright.png", 65536)
    given = [dark, finished.folder, bright, finished.folder / "0"]
    code, rows, err = table(*given)
    assert code == 0 and "value above" not in err
    paths = [row["path"] for row in rows]
    assert paths[0] == str(dark) and paths[41] == str(bright) and len(paths) == 42 + 10


def test_an_array_of_one_picture_is_refused(table, tmp_path):
    np.savez(tmp_path / "one.npz", images=np.zeros((8, 8, 3), np.uint8))
    code, rows, err = table(tmp_path / "one.npz")
    assert code == 3 and rows is None
    assert "one.npz: images is uint8[8, 8, 3]; legal: uint8[N, H, W, C]" in err
    np.savez(tmp_path / "grey.npz", images=np.zeros((5, 8, 8), np.uint8))
    code, rows, _ = table(tmp_path / "grey.npz")
    assert code == 0 and len(rows) == 5


def test_the_most_probable_classes_take_the_place_of_all(finished, table):
    _, all_classes, _ = table(finished.folder)
    _, rows, _ = table(finished.folder, "--top", 2)
    assert list(rows[0])[3:] == ["probability", "class_1", "p_1", "class_2", "p_2"]
    for row, full in zip(rows, all_classes, strict=True):
        numbers = {str(k): float(full[f"p_{k}"]) for k in range(4)}
        first, second = sorted(numbers, key=numbers.get, reverse=True)[:2]
        assert (row["class_1"], row["class_2"]) == (first, second)
        assert (float(row["p_1"]), float(row["p_2"])) == (numbers[first], numbers[second])
    assert list(table(finished.folder, "--top", 9)[1][0])[-1] == "p_4"


def test_a_prior_and_costs_change_the_predictions(finished, table, tmp_path):
    _, plain, _ = table(finished.folder)
    costs = np.ones((4, 4)) - np.eye(4)
    costs[3, :3] = 50
    text = [",0,1,2,3", *(f"{k}," + ",".join(map(str, row)) for k, row in enumerate(costs))]
    (tmp_path / "costs.csv").write_text("\n".join(text))
    (tmp_path / "counts.csv").write_text("class,images\n0,1\n1,1\n2,1\n3,7\n")
    files = ("--prior", tmp_path / "counts.csv", "--costs", tmp_path / "costs.csv")
    code, rows, _ = table(finished.folder, *files)
    assert code == 0 and list(rows[0])[4] == "expected_cost"
    loaded = purenoise_jax.load(finished.run.path)
    # OPeN draws all classes alike.
    before = loaded.predict_proba([row["path"] for row in plain]).astype(np.float64)
    expected = before * [1, 1, 1, 7]
    expected /= expected.sum(axis=1, keepdims=True)
    seen = np.array([[row[f"p_{k}"] for k in range(4)] for row in rows], np.float64)
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    sums = expected @ costs
    np.testing.assert_allclose(
        [float(row["expected_cost"]) for row in rows], sums.min(1), atol=1e-4
    )
    assert [row["predicted"] for row in rows] == [str(k) for k in sums.argmin(1)]
    assert [row["predicted"] for row in rows] != [row["predicted"] for row in plain]


def test_without_a_file_the_table_is_printed(finished, capsys):
    path = next(finished.folder.rglob("*.png"))
    assert predict.main([str(finished.run.path), str(path), "--epoch", "1"]) == 0
    printed = capsys.readouterr()
    (row,) = rows_of(printed.out)
    assert row["path"] == str(path) and printed.err.startswith("1 image;")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--top", "-1"], 2, "--top=-1 is not legal"),
        (
            ["--prior", "unifrom"],
            2,
            "prior=unifrom: there is no such file; legal: uniform, train, or a CSV file; did you "
            "mean 'uniform'?",
        ),
        (["--costs", "nowhere.csv"], 2, "costs=nowhere.csv: there is no such file; legal: a CSV"),
        (["--costs", "."], 2, "costs=.: is a folder; legal: a CSV file"),
        (["--temperature", "fited"], 2, "or fitted; did you mean 'fitted'?"),
        (["--epoch", "9"], 4, "has no checkpoint after epoch 9"),
        (["--wrong"], 2, "see --help"),
    ],
)
def test_a_wrong_argument_is_one_line(finished, capsys, arguments, code, message):
    assert predict.main([str(finished.run.path), str(finished.folder), *arguments]) == code
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            b"file,label\nx.png,0\n",
            "wanted one column 'path'; its columns: 'file', 'label'",
        ),
        ("a.csv", b"path,label\n", "a.csv: lists no image"),
        ("a.csv", b"path,label\nx.png,cat\n", "line 2: 'cat' is no class of the run"),
        ("a.csv", b'path\n"x', "a.csv, line 2: unexpected end of data"),
        ("a.npz", b"PK", "cannot be read as .npz"),
    ],
)
def test_a_damaged_list_is_named(table, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    code, rows, err = table(tmp_path / name)
    assert code == 3 and rows is None and message in err


def test_the_folder_of_the_table_is_created_and_only_for_a_table(finished, tmp_path, capsys):
    out, run = tmp_path / "a/b/c.csv", str(finished.run.path)
    assert predict.main([run, str(tmp_path / "gone.png"), "--out", str(out)]) == 3
    assert not (tmp_path / "a").exists()
    one = next(finished.folder.rglob("*.png"))
    assert predict.main([run, str(one), "--out", str(out)]) == 0
    assert len(rows_of(out.read_text())) == 1 and [*out.parent.iterdir()] == [out]


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, fault in (
        ("", " is a folder; legal: the name of a file"),
        ("pipe", " is not a plain file"),
        ("file/a.csv", f": {tmp_path}/file is not a folder"),
    ):
        assert predict.main(["no run", "no images", "--out", f"{tmp_path}/{name}"]) == 2
        assert capsys.readouterr().err == f"error: --out={tmp_path / name}{fault}" + (
            "; legal: the name of a file\n" if name == "pipe" else "\n"
        )


def test_faults_of_the_rows_of_a_table_are_named_and_the_other_rows_are_classified(
    finished, table, tmp_path
):
    files = sorted(finished.folder.rglob("*.png"))[:3]
    lines = ["label,path", f"0,{files[0]}", f"cat,{files[1]}", "1,", "2,a, b.png", f"1,{files[1]}"]
    lines += [f"0,{files[0]}\0", "0,~nobody here/a.png", f" 02 , {files[2]}", "3,gone.png"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    code, rows, err = table(tmp_path / "list.csv")
    assert code == 3
    assert [row["path"] for row in rows] == [*map(str, files)]
    assert [row["label"] for row in rows] == ["0", "1", "2"]
    for fault in (
        "list.csv, line 3: 'cat' is no class of the run",
        "list.csv, line 4: '' is no path",
        "list.csv, line 5: has 3 cells, but 2 columns",
        "0' is no path",
        "there is no user 'nobody here'",
        "gone.png: cannot be read (No such file or directory)",
    ):
        assert sum(fault in line for line in err.splitlines()) == 1, err
    assert err.splitlines()[-1] == "error: 6 images were left out; the table has all others"


def test_a_table_of_predictions_can_be_classified_again(finished, table, tmp_path, monkeypatch):
    """Its paths are as they were given: relative to the working folder, wherever the table lies."""
    shutil.copytree(finished.folder, tmp_path / "here/photos")
    monkeypatch.chdir(tmp_path / "here")
    code, rows, _ = table("photos")
    assert code == 0 and rows[0]["path"].startswith("photos/")
    code, again, err = table(tmp_path / "predictions.csv")
    assert code == 0 and again == rows, err
    # Of two files it is the one in the folder of the table.
    shutil.copytree(finished.folder, tmp_path / "photos")
    assert {row["path"] for row in table(tmp_path / "predictions.csv")[1]} == {
        str(tmp_path / row["path"]) for row in rows
    }


def test_a_table_may_be_made_as_the_lists_of_the_run(tmp_path):
    lists = Lists(path_column="id", label_column="cat, dog", path_suffix=".png", path_parts=2)
    (tmp_path / "root/a").mkdir(parents=True)
    for name in ("1", "2", "3"):
        (tmp_path / f"root/a/{name}.png").touch()
    (tmp_path / "test.csv").write_text(
        "id,dog,cat\nold/a/1,1,-1\nold/a/2,-1,1\nold/a/3,1,1\nold/a/4,0,2\n"
    )
    listed, faults = list_images([tmp_path / "test.csv"], ("cat", "dog"), lists, tmp_path / "root")
    folder = tmp_path / "root/a"
    assert [(each.path, each.label) for each in listed] == [
        (str(folder / "1.png"), "dog"), (str(folder / "2.png"), "cat"), (str(folder / "3.png"), ""),
    ]  # fmt: skip
    assert faults == [f"{tmp_path}/test.csv, line 5: '2' is none of 1, 0 and -1"]
    # A table of predictions has the usual columns, and whole names.
    (tmp_path / "own.csv").write_text("path,label\nroot/a/1.png,dog\n")
    (one,), faults = list_images([tmp_path / "own.csv"], ("cat", "dog"), lists, None)
    assert (one.path, one.label, faults) == (str(folder / "1.png"), "dog", [])
    # So it is if only the column of classes has another name in the lists.
    lists = Lists(path_column="path", label_column="diagnosis")
    (one,), faults = list_images([tmp_path / "own.csv"], ("cat", "dog"), lists, None)
    assert (one.label, faults) == ("dog", [])
    (tmp_path / "bare.csv").write_text("path\nroot/a/1.png\n")
    (one,), faults = list_images([tmp_path / "bare.csv"], ("cat", "dog"), lists, None)
    assert (one.label, faults) == ("", [])


def test_a_run_tells_how_its_lists_are_made(finished):
    usual, listing = (
        load_trained(each)
        for each in (
            finished.run,
            changed(finished.run, **{"data.source": "list", "data.label_column": "grade"}),
        )
    )
    assert usual.lists == NO_LISTS and usual.lists_root is None
    assert listing.lists.label_column == "grade"
    assert listing.lists_root == Path(finished.run.config.data.path)


def test_an_npz_may_have_images_without_labels(finished, table, tmp_path):
    np.savez(tmp_path / "new.npz", images=finished.images[:3])
    code, rows, _ = table(tmp_path / "new.npz")
    assert code == 0 and [row["label"] for row in rows] == [""] * 3
    np.savez(tmp_path / "new.npz", images=finished.images[:3], labels=np.array([0, 1, 4]))
    assert "4" in table(tmp_path / "new.npz")[2]
    np.savez(tmp_path / "new.npz", pictures=finished.images[:3])
    assert "holds no array images or test_images" in table(tmp_path / "new.npz")[2]
