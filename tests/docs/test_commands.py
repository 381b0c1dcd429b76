"""Every command of README.md and of docs/ is one that its program takes."""

import os
import re
import tomllib

import pytest
from PIL import Image

from benchmarks import memory, run
from benchmarks.gpu_program import __main__ as gpu_program
from launch import compare, reproduce, tune
from launch.studies import tabular, toy
from launch.tables import TABLES
from purenoise_jax import calibrate, export, predict
from purenoise_jax import main as cli
from purenoise_jax.analysis.__main__ import MORE
from purenoise_jax.analysis.__main__ import parser as analysis_parser
from purenoise_jax.analysis.figures import FIGURES
from purenoise_jax.chaos.__main__ import parser as chaos_parser
from purenoise_jax.checkpoint.__main__ import parser as checkpoint_parser
from purenoise_jax.checkpoint.convert_weights import parser as weights_parser
from purenoise_jax.cli import COMMANDS
from purenoise_jax.config.fields import field_of
from purenoise_jax.config.validation import validate
from purenoise_jax.data.feed import FEEDS
from tests.docs.pages import PAGES, ROOT, commands, inline_code, name
from tests.tiny import write_npz

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
MARKERS = [m.partition(":")[0] for m in PYPROJECT["tool"]["pytest"]["ini_options"]["markers"]]
FIELD = re.compile(
    r"(?:--config\.|(?=(?:data|model|optimizer|method|checkpoint|eval)\.))([a-z0-9_.]+)"
)


def train(arguments):
    validate(cli.parse(["main", *arguments]).config)


def analyse(arguments):
    given = analysis_parser().parse_args(arguments)
    assert given.figure in {*FIGURES, *MORE}


def make_table(arguments):
    if arguments[0] == tabular.NAME:
        given = tabular.parser().parse_args(arguments[1:])
        assert bool(given.csv) == bool(given.label)
        return
    assert reproduce.parser().parse_args(arguments).table in TABLES


def compare_methods(arguments):
    for cell in compare.make_table(*compare.parser().parse_known_args(arguments)).cells:
        validate(cell.config)


def search_fields(arguments):
    # Its draws need no folder.
    args, fields = tune.parser().parse_known_args(arguments)
    plan = tune.SearchPlan(args, fields, ROOT / "absent")
    validate(plan.config_of(0, plan.rounds[0].epochs))


def run_installed(arguments):
    if arguments[0] not in COMMANDS:
        return train(arguments)
    if len(arguments) == 1:
        # Only named.
        return
    module = {"train": "main", "report": "analysis", "verify": "checkpoint"}
    folder = "launch" if arguments[0] in ("compare", "tune", "reproduce") else "purenoise_jax"
    program = f"python -m {folder}.{module.get(arguments[0], arguments[0])}"
    first = arguments[:1] if arguments[0] in ("report", "verify") else []
    PROGRAMS[program]([*first, *arguments[1:]])


def start_processes(arguments):
    assert int(arguments[0]) > 0
    train(arguments[1:])


def install(arguments):
    (extras,) = re.findall(r"^install (?:-e )?\.(?:\[([\w,]+)\])?$", " ".join(arguments))
    assert set(filter(None, extras.split(","))) <= set(EXTRAS)


def run_tests(arguments):
    if arguments[:1] == ["-m"]:
        assert arguments[1] in MARKERS
        arguments = arguments[2:]
    assert all((ROOT / path).is_file() for path in arguments)


def run_script(arguments):
    assert (ROOT / arguments[0]).is_file()


def run_batch_script(arguments):
    run_script(arguments)
    train(arguments[1:])


def run_with_slurm(arguments):
    assert os.access(ROOT / "tests/local_slurm.sh", os.X_OK)
    check(arguments)


def measure_memory(arguments):
    _, count, feed = arguments
    assert int(count) > 0 and feed in FEEDS


def apply_to_cluster(arguments):
    assert arguments[:-1] == ["apply", "-f"]
    run_script(arguments[-1:])


def show_events(arguments):
    assert arguments[0] == "--logdir" and len(arguments) == 2
    assert any(extra.startswith("tensorboard") for extra in EXTRAS["tensorboard"])


def build_pages(arguments):
    assert arguments in (["serve"], ["build", "--strict"])
    assert any(extra.startswith("mkdocs") for extra in EXTRAS["docs"])


PROGRAMS = {
    "bash": run_script,
    "kubectl": apply_to_cluster,
    "mkdocs": build_pages,
    "pip": install,
    "purenoise-jax": run_installed,
    "pytest": run_tests,
    "python -m benchmarks.gpu_program": lambda arguments: gpu_program.parse(list(arguments)),
    "python -m benchmarks.memory": lambda arguments: memory.parse(list(arguments)),
    "python -m benchmarks.run": lambda arguments: run.parse(list(arguments)),
    "python -m launch.compare": compare_methods,
    "python -m launch.local": start_processes,
    "python -m launch.reproduce": make_table,
    "python -m launch.studies.toy": lambda given: toy.parser().parse_args(given),
    "python -m launch.tune": search_fields,
    "python -m purenoise_jax.analysis": analyse,
    "python -m purenoise_jax.calibrate": lambda given: calibrate.parser().parse_args(given),
    "python -m purenoise_jax.chaos": lambda arguments: chaos_parser().parse_args(arguments),
    "python -m purenoise_jax.checkpoint": lambda given: checkpoint_parser().parse_args(given),
    "python -m purenoise_jax.checkpoint.convert_weights": lambda given: weights_parser().parse_args(
        given
    ),
    "python -m purenoise_jax.export": lambda arguments: export.parser().parse_args(arguments),
    "python -m purenoise_jax.main": train,
    "python -m purenoise_jax.predict": lambda arguments: predict.parser().parse_args(arguments),
    "python -m tests.training.feed_memory": measure_memory,
    "sbatch": run_batch_script,
    "tensorboard": show_events,
    "tests/local_slurm.sh": run_with_slurm,
}


def check(words):
    size = 3 if words[0] == "python" else 1
    program = " ".join(words[:size])
    assert program in PROGRAMS, f"no test knows {program!r}"
    PROGRAMS[program](words[size:])


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with the images that commands name, and with the config files."""
    folder = tmp_path_factory.mktemp("own")
    for place in ("", "train", "test"):
        for label in "ab":
            (folder / "photos" / place / label).mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(folder / "photos" / place / label / "1.png")
    write_npz(folder / "images.npz")
    for split in ("train", "test"):
        rows = "".join(f"{split}/{label}/1.png,{label}\n" for label in "ab")
        (folder / f"{split}.csv").write_text(f"path,label\n{rows}")
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_its_commands_parse(page, poly1, own, monkeypatch):
    monkeypatch.chdir(own)
    for words in commands(page):
        try:
            check(words)
        except BaseException as error:
            error.add_note(f"{name(page)}: {' '.join(words)}")
            raise


def test_all_programs_are_among_them():
    used = {
        " ".join(words[: 3 if words[0] == "python" else 1]) for p in PAGES for words in commands(p)
    }
    assert used == set(PROGRAMS)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_command_stands_outside_of_a_block(page):
    assert not re.search(
        r"^ {4}\S*(?:python|pip|pytest|sbatch)\b(?! *=)", page.read_text(), re.MULTILINE
    )


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_its_fields_exist(page, poly1):
    for code in inline_code(page):
        if " " in code or code.endswith((".py", "/", ".json")):
            continue
        found = FIELD.match(code)
        if found:
            assert field_of(found[1]) or found[1].endswith("."), code


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_its_files_of_code_exist(page):
    for code in inline_code(page):
        for path in re.findall(r"^[\w./]+\.(?:py|sh|sbatch|npy)$", code):
            assert (ROOT / path).is_file() or (ROOT / "purenoise_jax" / path).is_file(), path
