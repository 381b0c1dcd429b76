"""Config files by name and by path, from a checkout and from an installed wheel."""

import ast
import json
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from purenoise_jax import main as cli
from purenoise_jax.config import packaged, parts
from purenoise_jax.config.identity import config_hash
from purenoise_jax.runtime.errors import ConfigError
from tests.tiny import write_npz
from tests.trees import TREES
from tests.wheels import build, environment

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
NO_REPORT = ("--config.report=False",)
# As in copies that users made of earlier config files.
OLD_COPY = """\
from configs import common
from purenoise_jax.config import default_config
def get_config(arg=None):
    config = default_config()
    common.set_methods(config, "erm", common.parse_arg(arg, epochs=3).epochs)
    return config
"""


def parsed(*argv):
    return cli.parse(["main", *argv]).config


def test_names_are_those_of_the_config_files():
    ours = {"cifar10", "cifar100", "cifar100_lt", "cifar10_lt", "digits_lt", "images"}
    assert packaged.names() == sorted(ours | {*TREES})


@pytest.mark.parametrize("name", packaged.names())
def test_every_spelling_of_a_file_gives_the_same_config(name, tmp_path, monkeypatch):
    """The hash depends neither on the spelling of the path nor on the current folder."""
    args = "epochs=7"
    if name == "images":
        args += f",path={write_npz(tmp_path / 'own.npz')}"
    expected = config_hash(parsed(f"--config={CONFIGS}/{name}.py:{args}"))
    monkeypatch.chdir(tmp_path)
    for given in (name, f"configs/{name}.py", f"./configs/{name}.py"):
        assert config_hash(parsed(f"--config={given}:{args}")) == expected
        assert config_hash(parsed("--config", f"{given}:{args}")) == expected


def test_a_file_of_the_user_takes_precedence_over_the_package(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/digits_lt.py").write_text(OLD_COPY)
    monkeypatch.chdir(tmp_path)
    assert parsed("--config=configs/digits_lt.py:epochs=5").data.source == "auto"
    assert parsed("--config=digits_lt:epochs=5").data.source == "digits"


def test_a_message_names_the_file_that_is_used_if_it_is_not_the_given_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").touch()
    line = f"config file {CONFIGS}/digits_lt.py, which comes with the package"
    for given in ("digits_lt", "digits_lt:epochs=3", "configs/digits_lt.py:method=erm"):
        assert packaged.told(["main", "--config", given, "--workdir=digits_lt"]) == [line]
        assert packaged.told(["main", f"-config={given}"]) == [line]
    for given in ("my.py", "./my.py:a=digits_lt", f"{CONFIGS}/digits_lt.py"):
        assert packaged.told(["main", f"--config={given}", "--debug"]) == []
    assert packaged.told(["main", "--config"]) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("digit_lt:epochs=3", "--config=digit_lt: there is no such file; by name: aptos, celeba5, "),
        ("digit_lt", "tiny_imagenet_lt; did you mean 'digits_lt'?"),
        ("configs/cifar_10lt.py", "did you mean 'cifar10_lt'?"),
        ("digits_lt.py", "did you mean 'digits_lt'?"),
        ("other/digits_lt.py", "--config=other/digits_lt.py: there is no such file"),
        ("common", "--config=common: there is no such file"),
        ("__init__", "--config=__init__: there is no such file"),
        ("", "--config=: there is no such file"),
        ("c:/my.py:epochs=3", "its path must not contain a colon"),
    ],
)  # fmt: skip
def test_an_unknown_config_file_is_refused(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        parsed(f"--config={given}")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_copies_of_config_files_run_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(CONFIGS / "cifar10_lt.py", "mine.py")
    assert parsed("--config=mine.py:epochs=5").num_epochs == 5
    (tmp_path / "older.py").write_text(OLD_COPY)
    assert parsed("--config=older.py:epochs=5").num_epochs == 5
    shutil.copy(CONFIGS / "cifar100_lt.py", "hundred.py")
    with pytest.raises(
        ConfigError, match=r"cifar10_lt\.py: there is no such file, and hundred\.py"
    ):
        parsed("--config=hundred.py")
    shutil.copy(CONFIGS / "cifar10_lt.py", ".")
    assert parsed("--config=hundred.py").data.name == "cifar100"


def test_config_files_import_only_installed_modules():
    for path in CONFIGS.glob("*.py"):
        if path.stem != "__init__":
            assert (
                "from configs" not in path.read_text() and "import configs" not in path.read_text()
            )
    from configs import common

    assert common is parts


def contents(wheel: Path) -> dict[str, int]:
    return {file.filename: file.CRC for file in zipfile.ZipFile(wheel).infolist()}


def test_launch_imports_nothing_of_a_checkout():
    """In a wheel it lies within the package, so that it names its own modules by relative imports."""
    for path in (ROOT / "launch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            else:
                continue
            tops = {name.partition(".")[0] for name in names}
            assert not tops & {"launch", "configs", "benchmarks", "tests"}, path


def test_the_wheel_has_all_its_files_within_its_own_package(wheel):
    files = set(contents(wheel))
    assert {name.partition("/")[0].partition("-")[0] for name in files} == {"purenoise_jax"}
    wanted = {
        f"purenoise_jax/{path.relative_to(ROOT / 'purenoise_jax')}"
        for path in (ROOT / "purenoise_jax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } | {
        f"purenoise_jax/{path.relative_to(ROOT)}"
        for folder in (CONFIGS, ROOT / "launch")
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in files if ".dist-info/" not in name} == wanted
    assert "purenoise_jax/analysis/report.html.j2" in wanted
    assert "purenoise_jax/configs/subsets/cifar10_lt_100_cui.npy" in wanted


def test_a_wheel_built_from_the_source_archive_is_the_same(wheel, tmp_path):
    archive = build(ROOT, tmp_path / "archive", "-t", "sdist")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert contents(build(source, tmp_path / "again", "-t", "wheel")) == contents(wheel)


@pytest.mark.slow
def test_an_installed_wheel_has_the_programs_of_launch(installed, tmp_path):
    """Two runs in processes of their own, started by name within the package."""

    def call(*arguments):
        return subprocess.run(
            [str(installed / "purenoise-jax"), *arguments],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240,
        )  # fmt: skip

    listed = call("reproduce", "main", "--dry-run", "--quick")
    assert listed.returncode == 0 and "runs, " in listed.stdout, listed.stderr[-2000:]
    done = call(
        "compare", "--config", "digits_lt:epochs=1", "--methods=erm,rs", "--seeds=1", "--jobs=2",
        *NO_REPORT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    table = (tmp_path / "runs/compare/tables/comparison.md").read_text()
    assert "| erm | 1 |" in table and "| rs | 1 |" in table


@pytest.mark.slow
def test_an_installed_wheel_trains_from_an_empty_folder(installed, tmp_path):
    def call(*command):
        done = subprocess.run(
            [str(installed / command[0]), *command[1:], "--workdir=run", *NO_REPORT],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    output = call("purenoise-jax", "--config", "digits_lt:epochs=1,method=erm")
    file = r"site-packages/purenoise_jax/configs/digits_lt.py, which comes with the package"
    assert file in output.replace("\n", "")
    first = json.loads((tmp_path / "run/config.json").read_text())
    # The same run, by another spelling: it is complete.
    output = call(
        "python", "-m", "purenoise_jax.main", "--config=configs/digits_lt.py:epochs=1,method=erm"
    )
    assert file in output.replace("\n", "") and "continues at step" in output
    assert json.loads((tmp_path / "run/config.json").read_text()) == first
