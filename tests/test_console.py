"""What the screen shows."""

import io

import pytest
from rich.console import Console

from purenoise_jax.console import Display, class_counts_line, duration, percent, phases_line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (20 * 3600 + 61, "20 h 1 min"),
     (3 * 86400 + 7200 + 5, "3 d 2 h")],
)  # fmt: skip
def test_durations_have_two_units(seconds, text):
    assert duration(seconds) == text


def test_many_classes_take_one_line():
    assert class_counts_line([5, 3]) == "8 images, 2 classes: 5 3"
    line = class_counts_line(list(range(100, 0, -1)))
    assert "100 99 98 97 96 95 ... 5 4 3 2 1" in line and len(line) < 80


def test_missing_numbers_are_a_dash():
    assert percent(None) == "-" and percent(0.1234) == "12.3"


def test_phases_in_words():
    text = phases_line([(0, ("erm",)), (160, ("rs", "open"))], 97)
    assert text == "erm from epoch 0 (step 0), rs + open from epoch 160 (step 15,520)"


def shown(estimate):
    out = io.StringIO()
    display = Display(console=Console(file=out, width=200))
    for _ in range(9):
        display.estimate_once(*estimate)
    return out.getvalue()


def test_a_run_that_is_too_long_is_called_so():
    assert shown((None, 1000, "cpu")) == ""
    assert "too slow" not in shown((0.01, 1000, "H100"))
    text = shown((30.0, 19400, "cpu"))
    assert "30.0 s/step here, so about 6 d 17 h" in text and text.count("cpu) is too slow") == 1


def test_an_inactive_display_writes_nothing(capsys):
    display = Display(active=False)
    display.header({"a": "b"})
    display.start_progress(10, 0)
    display.doing("epoch 1")
    display.advance(5, 10.0)
    display.stop_progress()
    display.note("text")
    assert capsys.readouterr() == ("", "")
