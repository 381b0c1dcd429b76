"""The installed command: which program a subcommand starts, and with which arguments."""

import pytest

from launch import compare, reproduce, tune
from purenoise_jax import calibrate, cli, export, main, predict
from purenoise_jax.analysis import __main__ as analysis
from purenoise_jax.chaos import __main__ as chaos
from purenoise_jax.checkpoint import __main__ as checkpoint


@pytest.mark.parametrize(
    ("given", "program", "arguments"),
    [
        (["predict", "runs/a", "x.png"], predict, ["runs/a", "x.png"]),
        (["export", "runs/a", "--to", "onnx"], export, ["runs/a", "--to", "onnx"]),
        (["calibrate", "runs/a", "val"], calibrate, ["runs/a", "val"]),
        (["report", "runs/a", "runs/b"], analysis, ["runs/a", "runs/b", "report"]),
        (["compare", "--config", "x"], compare, ["--config", "x"]),
        (["tune", "--config", "x"], tune, ["--config", "x"]),
        (["reproduce", "main"], reproduce, ["main"]),
        (["chaos", "--quick"], chaos, ["--quick"]),
        (["verify", "runs/a"], checkpoint, ["purenoise-jax", "verify", "runs/a"]),
        (
            ["train", "--config", "digits_lt"],
            main,
            ["purenoise-jax train", "--config", "digits_lt"],
        ),
        (["--config", "digits_lt"], main, ["purenoise-jax train", "--config", "digits_lt"]),
        (
            ["--config=digits_lt", "--debug"],
            main,
            ["purenoise-jax train", "--config=digits_lt", "--debug"],
        ),
    ],
)
def test_a_subcommand_starts_its_program(given, program, arguments, monkeypatch):
    seen = []
    monkeypatch.setattr(program, "main", lambda argv, *more: seen.append([*argv, *more]) or 7)
    assert cli.main(["purenoise-jax", *given]) == 7
    assert seen == [arguments]


@pytest.mark.parametrize("given", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_all_subcommands(given, capsys):
    assert cli.main(["purenoise-jax", *given]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)


def test_an_unknown_subcommand_is_refused_in_one_line(capsys):
    assert cli.main(["purenoise-jax", "predcit"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: COMMAND='predcit' is unknown; legal: train, predict, export, calibrate, report, "
        "compare, tune, reproduce, verify, chaos; did you mean 'predict'?"
    )


def test_training_needs_a_config(capsys):
    assert cli.main(["purenoise-jax", "train"]) == 2
    assert "--config=FILE is missing" in capsys.readouterr().err
