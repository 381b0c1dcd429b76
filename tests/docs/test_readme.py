"""What the README says is what there is."""

import dataclasses
import re
import shlex
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn

import purenoise_jax
from benchmarks import run
from launch.plan import Plan
from launch.planning import tasks_of_table, training_pflop
from launch.tables import TABLES
from purenoise_jax import main as cli
from purenoise_jax.config.fields import field_of, validate
from purenoise_jax.data.sources.registry import SOURCES
from purenoise_jax.runtime.errors import INTERRUPTED, TERMINATED, PureNoiseError

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    head, tail = code.split("probs = ")
    rng = np.random.default_rng(0)
    scope: dict = {
        "class_counts": [50, 10, 5],
        "key": jax.random.key(0),
        "epoch": 7,
        "batch_size": 60,
        "train_images": rng.random((65, 6, 6, 3), np.float32),
        "train_labels": np.repeat(np.arange(3), [50, 10, 5]),
        "mean": np.full(3, 0.5, np.float32),
        "std": np.full(3, 0.2, np.float32),
    }
    exec(head, scope)
    scope["variables"] = scope["Net"]().init(jax.random.key(1), scope["train_images"][:1])
    with jax.numpy_rank_promotion("allow"):
        exec("probs = " + tail, scope)
    assert scope["logits"].shape == (60, 10) and scope["noise_mask"].shape == (60,)
    assert set(scope["updated"]["batch_stats"]["DARBatchNorm_0"]) == {"mean", "var"}
    drawn = np.bincount(scope["train_labels"][scope["order"]])
    assert len(scope["order"]) == 65 and (drawn > 10).all()
    noise = np.asarray(scope["noise_mask"])
    assert noise.any() and not noise[scope["train_labels"][scope["rows"]] == 0].any()
    # Not clipped into a pile: noise of images in [0, 1] has hardly a pixel at the very ends.
    assert ((scope["images"][noise] == 0) | (scope["images"][noise] == 1)).mean() < 0.05


def test_the_defaults_that_differ_from_flax_are_those_it_names():
    ours, theirs = purenoise_jax.BatchNorm(), nn.BatchNorm()
    fields = [f.name for f in dataclasses.fields(theirs) if f.name not in ("parent", "name")]
    assert [f for f in fields if getattr(ours, f) != getattr(theirs, f)] == ["momentum"]
    for norm in (purenoise_jax.DARBatchNorm, purenoise_jax.AuxBatchNorm):
        names = [f.name for f in dataclasses.fields(norm)]
        assert names[: len(fields)] == fields
    said = f"`momentum` is {ours.momentum} (there {theirs.momentum})"
    assert said in " ".join(README.split())


def test_its_commands_parse_and_its_fields_exist():
    commands = re.findall(r"^ {4}(.*python -m purenoise_jax\.main (?:.*\\\n)*.*)$", README, re.M)
    assert len(commands) >= 4
    for command in commands:
        line = command.partition("purenoise_jax.main")[2].replace("\\\n", " ")
        validate(cli.parse(["main", *shlex.split(line)]).config)
    for field in re.findall(r"--config\.([a-z_.]+)=", README):
        assert field_of(field), field


def test_its_benchmark_commands_parse():
    commands = re.findall(r"python -m benchmarks\.run(.*)$", README, re.M)
    assert commands
    for arguments in commands:
        run.parse(arguments.split())
    for script in re.findall(r"`bash (\S+) OUT`", README):
        assert (ROOT / script).is_file()


def test_its_tables_are_those_of_the_command_and_cost_what_it_says(tmp_path):
    section = README.partition("## The papers' tables")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \|$", section, re.M)
    assert [name for name, _ in rows] == list(TABLES)
    for name, cost in rows:
        tasks = tasks_of_table(TABLES[name](Plan()), range(4), tmp_path)
        assert f"{sum(map(training_pflop, tasks)):,.0f}" == cost, name


def test_every_source_is_described():
    table = README.partition("## Your data")[2].partition("## In your")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == set(SOURCES)


def test_all_public_names_can_be_imported():
    for name in ("AuxBatchNorm", "DARBatchNorm", "balanced_indices", "create_model", "long_tail_indices",
                 "replace_probs", "replace_with_noise"):  # fmt: skip
        assert name in purenoise_jax.__all__ and callable(getattr(purenoise_jax, name))


def test_its_exit_codes_are_those_of_the_errors():
    table = README.partition("| exit code | |")[2].partition("\n\n")[0]
    listed = {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for code in row.split(",")
    }
    own = {error.exit_code for error in PureNoiseError.__subclasses__()}
    assert listed == {0, INTERRUPTED, TERMINATED} | own
    for code in sorted(own):
        assert re.search(rf"\b{code} \w", cli.USAGE.partition("exit codes:")[2])
