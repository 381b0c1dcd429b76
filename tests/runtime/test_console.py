"""Console output: formats, literal text, and escapes."""

import io
import re

import pytest
from rich.text import Text

from purenoise_jax.runtime.console import (
    Display,
    SafeConsole,
    class_counts_line,
    duration,
    percent,
    phases_line,
    show,
    show_error,
    show_traceback,
)


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
    display = Display(console=SafeConsole(file=out, width=200))
    for _ in range(9):
        display.estimate_once(*estimate)
    return out.getvalue()


def test_a_run_that_would_take_too_long_is_reported_once():
    assert shown((None, 1000, "cpu")) == ""
    assert "too slow" not in shown((0.01, 1000, "H100"))
    text = shown((30.0, 19400, "cpu"))
    assert "30.0 s/step here, so about 6 d 17 h" in text and text.count("cpu) is too slow") == 1
    assert "network" not in text
    text = shown((30.0, 19400, "cpu", lambda left: f"fields, {left:.0f}"))
    assert text.endswith("(the config argument epochs=N), or a smaller network: fields, 582000\n")


def test_an_inactive_display_writes_nothing(capsys):
    display = Display(active=False)
    display.header({"a": "b"})
    display.start_progress(10, 0)
    display.doing("epoch 1")
    display.advance(5, 10.0)
    display.stop_progress()
    display.note("text")
    assert capsys.readouterr() == ("", "")


def screen(encoding="utf-8", terminal=False):
    """Returns a console, and a function that returns its output as bytes."""
    out = io.BytesIO()
    console = SafeConsole(
        file=io.TextIOWrapper(out, encoding=encoding, write_through=True),
        soft_wrap=True,
        force_terminal=terminal,
        width=100,
    )
    return console, out.getvalue


ODD = [
    "a [kitten]",
    "[/b]",
    "[red]x",
    ":cat:",
    "x\x1b[31my",
    "caf\udce9",
    "größer",
    "two\nlines",
    "\u202e",
]
WRITTEN = ["a [kitten]", "[/b]", "[red]x", ":cat:", r"x\x1b[31my", r"caf\udce9", "größer", r"two\nlines", r"\u202e"]  # fmt: skip
TEST = {"accuracy": 0.5, "geometric_mean": 0.5, "per_class_accuracy": [0.25] * len(ODD)}


@pytest.mark.parametrize("terminal", [False, True])
def test_text_is_shown_literally_and_cannot_control_the_terminal(terminal):
    """This holds in titles, rows, headers, notes and beside the progress bar."""
    console, written = screen(terminal=terminal)
    display = Display(console=console)
    for text in ODD:
        display.header({"workdir": text})
        display.note(f"note {text}")
        display.start_progress(10, 0)
        display.doing(f"at {text}")
        display.advance(5, 10.0)
        display.stop_progress()
        display.table(f"title {text}", TEST, ODD)
    shown = written().decode()
    # Removes the sequences of Rich itself: colours, and moves of the cursor.
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]", plain) and "\x1b[31m" not in shown
    for text in WRITTEN:
        for line in ("workdir  ", "note ", "title ", "at " if terminal else "note "):
            # Only a table escapes a line break; elsewhere it becomes a space, as in messages.
            assert line + text.replace(r"\n", " ") in plain, (line, text)
        assert re.search(rf"│ {re.escape(text)} +│ +25\.0 % │", plain), text


def test_rows_with_escaped_letters_stay_aligned():
    for encoding in ("utf-8", "ascii", "latin-1"):
        console, written = screen(encoding)
        Display(console=console).table("t", TEST, ODD)
        lines = [line for line in written().decode(encoding).splitlines() if "25.0 %" in line]
        assert len(lines) == len(ODD) and len(set(map(len, lines))) == 1


def test_the_table_shows_intervals_where_they_are_known():
    console, written = screen()
    groups = [None, 0.5, 0.5, 0.5, 0.75]
    numbers = {**TEST, "few_accuracy": 0.25, "group_accuracy": groups}
    ends = [[0.125, 0.5]] * len(ODD)
    intervals = {
        "test": {
            "accuracy": [0.4, 0.6],
            "few_accuracy": [0.1, 0.9],
            "group_accuracy": [None, *[[0.4, 0.6]] * 3, [0.7, 0.8]],
            "per_class_accuracy": ends,
        },
        "val": {"balanced_accuracy": [0.2, 0.3]},
    }
    val = {"accuracy": 0.3, "balanced_accuracy": 0.25}
    Display(console=console).table("t", numbers, ODD, val=val, intervals=intervals)
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in written().decode().splitlines()
    ]
    found = {row[0]: row[1:] for row in rows if len(row) == 3}
    assert found["test accuracy"] == ["50.0 %", "40.0 to 60.0"]
    assert found["validation accuracy"] == ["30.0 %", ""]
    assert found["validation, balanced accuracy"] == ["25.0 %", "20.0 to 30.0"]
    assert found["few (< 20 images)"] == ["25.0 %", "10.0 to 90.0"]
    assert found["group 1 (rarest classes)"] == ["- %", ""]
    assert found["group 5 (most frequent)"] == ["75.0 %", "70.0 to 80.0"]
    assert found["größer"] == ["25.0 %", "12.5 to 50.0"]


def test_a_long_title_stays_in_one_line():
    console, written = screen()
    path = "/a folder/" * 30
    Display(console=console).table(f"{path}, epoch 1", TEST, ODD)
    assert f"{path}, epoch 1\n" in written().decode()


def test_letters_that_an_encoding_lacks_are_escaped():
    console, written = screen("ascii")
    Display(console=console).note("größer \u4e2d")
    console.print(Text("größer"))
    assert written() == rb"gr\xf6\xdfer \u4e2d" + b"\n" + rb"gr\xf6\xdfer" + b"\n"


def test_errors_take_one_line_and_tracebacks_are_escaped(capsys):
    show_error("two\n  [lines]\x1b[2J")
    show("[a]:cat:\x1b")
    try:
        raise ValueError("[a]\x1b[2J")
    except ValueError:
        show_traceback()
    out, err = capsys.readouterr()
    assert out == "[a]:cat:\\x1b\n"
    assert err.startswith("two [lines]\\x1b[2J\nTraceback (most")
    assert err.endswith("ValueError: [a]\\x1b[2J\n") and "\x1b" not in err
