"""Tables of comma-separated values: numbers, categories, what is missing, what is refused."""

import numpy as np
import pytest

from launch.studies import csv_rows
from launch.studies.csv_rows import read_two_classes
from purenoise_jax.runtime.errors import ConfigError, DataError

PEOPLE = """age, work ,score,income
39, State,1e3,<=50K
50,Private,?,<=50K

38, Private ,-2.5,>50K
,Own,inf,<=50K
"""


def write(tmp_path, text, name="rows.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_are_a_feature_and_texts_one_for_each(tmp_path):
    rows = read_two_classes(write(tmp_path, PEOPLE), "income")
    nan = np.nan
    # Age; Own, Private and State; score.
    np.testing.assert_array_equal(
        rows.features,
        [[39, 0, 0, 1, 1000], [50, 0, 1, 0, nan], [38, 0, 1, 0, -2.5], [nan, 1, 0, 0, nan]],
    )
    assert rows.numeric.tolist() == [True, False, False, False, True]
    assert rows.names == ("<=50K", ">50K") and rows.labels.tolist() == [0, 0, 1, 0]
    assert rows.left_out == 0 and len(rows.sha256) == 64


def test_columns_without_names_have_numbers(tmp_path):
    rows = read_two_classes(write(tmp_path, "1,a,0\n2,b,0\n3,b,1\n"), "3", header=False)
    assert rows.features.tolist() == [[1, 1, 0], [2, 0, 1], [3, 0, 1]]
    assert rows.labels.tolist() == [0, 0, 1]


def test_columns_can_be_left_out(tmp_path):
    rows = read_two_classes(write(tmp_path, PEOPLE), "income", drop=["work", "age"])
    assert rows.features.shape == (4, 1)


def test_of_several_classes_the_two_largest_are_kept_or_those_that_are_named(tmp_path):
    path = write(tmp_path, "x,y\n1,a\n2,b\n3,b\n4,c\n5,c\n6,c\n7,?\n")
    rows = read_two_classes(path, "y")
    assert (rows.names, rows.labels.tolist()) == (("c", "b"), [1, 1, 0, 0, 0])
    assert rows.features[:, 0].tolist() == [2, 3, 4, 5, 6] and rows.left_out == 2
    rows = read_two_classes(path, "y", classes=["a", "b"])
    assert (rows.names, rows.labels.tolist()) == (("b", "a"), [1, 0, 0])


WRONG = {
    "unknown label": (PEOPLE, {"label": "wage"}, ConfigError, "--label='wage'"),
    "unknown column": (PEOPLE, {"drop": ["wage"]}, ConfigError, "--drop='wage'"),
    "label left out": (PEOPLE, {"drop": ["income"]}, ConfigError, "has the labels"),
    "unknown class": (PEOPLE, {"classes": ["<=50K", "rich"]}, ConfigError, "--classes='rich'"),
    "short row": ("a,income\n1,x\n2\n", {}, DataError, "line 3: 1 entries, not 2"),
    "one class": ("a,income\n1,x\n2,x\n", {}, DataError, "fewer than two classes"),
    "no rows": ("a,income\n", {}, DataError, "has no rows"),
    "empty": ("", {}, DataError, "has no rows"),
    "label alone": ("income\nx\ny\n", {}, DataError, "no column beside the label"),
    "one name twice": ("a,a,income\n1,2,x\n", {}, DataError, "two columns have one name"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "options", "error", "message"), WRONG.values(), ids=WRONG)
def test_it_is_refused(text, options, error, message, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(error) as caught:
        read_two_classes(path, options.pop("label", "income"), **options)
    assert message in str(caught.value)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("a,income\nö,x\n".encode("latin-1"))
    with pytest.raises(DataError, match="is no table"):
        read_two_classes(path, "income")


def test_a_column_of_names_is_no_category(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows, "CATEGORIES", 2)
    with pytest.raises(DataError, match="column work has 3 different texts"):
        read_two_classes(write(tmp_path, PEOPLE), "income")
