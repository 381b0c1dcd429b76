"""The command line: errors of the user are refused in one line, before anything is compiled."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import pytest

from purenoise_jax import main as cli
from purenoise_jax.runtime import exit_codes
from purenoise_jax.training import build
from tests.tiny import write_npz


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture
def no_compilation(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a model was made before the error was found")

    monkeypatch.setattr(build, "create_model", refuse)


def call(*arguments):
    return cli.main(["purenoise_jax.main", *map(str, arguments)])


def error_of(capsys, code, *arguments):
    assert call(*arguments) == code
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert "Traceback" not in err and out == ""
    return err


CIFAR = ("--config", "configs/cifar10_lt.py", "--workdir", "unused")

WRONG = {
    "unknown key": (["--config.seeed=1"], "seeed is not a config field; did you mean seed?"),
    "unknown nested key": (
        ["--config.optimizer.learnign_rate=1"],
        "optimizer.learnign_rate is not a config field; did you mean optimizer.learning_rate?",
    ),
    "wrong type": (["--config.num_epochs=many"], "num_epochs=many is not legal; legal: an integer in 1 .. 1000000"),
    "fraction of an integer": (["--config.num_epochs=1.5"], "num_epochs=1.5 is not legal; legal: an integer"),
    "not a switch": (["--config.method.open.clip=maybe"], "method.open.clip=maybe is not legal; legal: True | False"),
    "seed too large": (["--config.seed=4294967296"], "seed=4294967296 is not legal; legal: an integer in 0 .. 4294967295"),
    "augmentation twice": (["--config.data.augment=('crop','crop')"], "data.augment=('crop', 'crop') is not legal"),
    "nothing left to train": (["--config.init_from=x", "--config.init_epoch=200"], "init_epoch=200 must be below num_epochs=200"),
    "config twice": (["--config", "configs/digits_lt.py"], "--config is given twice"),
    "flag file": (["--flagfile=/nope"], "--flagfile is not supported"),
    "misspelt data set": (["--config.data.name=cifar-10"], "data.name='cifar-10' is unknown; legal: cifar10, cifar100, digits; did you mean 'cifar10'?"),
    "delta above one": (["--config.method.open.delta=1.5"], "method.open.delta=1.5 is not legal; legal: a number in [0, 1]"),
    "delta not a number": (["--config.method.open.delta=nan"], "method.open.delta=nan is not legal"),
    "ratio below one": (["--config.data.imbalance_ratio=0.5"], "data.imbalance_ratio=0.5 is not legal; legal: a finite number of at least 1"),
    "rate of zero": (["--config.optimizer.learning_rate=0"], "optimizer.learning_rate=0.0 is not legal"),
    "dropout of everything": (["--config.model.dropout=1"], "model.dropout=1.0 is not legal; legal: a number in [0, 1), or -1"),
    "momentum of one": (["--config.optimizer.momentum=1"], "optimizer.momentum=1.0 is not legal; legal: a number in [0, 1)"),
    "batch of nothing": (["--config.batch_size=0"], "batch_size=0 is not legal; legal: an integer, at least 1"),
    "unknown model": (["--config.model.name=resnet51"], "model.name='resnet51' is not legal; legal: resnet8 | "),
    "unknown norm": (["--config.model.norm=ln"], "model.norm='ln' is not legal; legal: bn | aux_bn | dar_bn"),
    "unknown augmentation": (["--config.data.augment=('flip','mixup')"], "data.augment=('flip', 'mixup') is not legal"),
    "wrong tuple": (["--config.optimizer.milestones=(1.5,2)"], "optimizer.milestones=(1.5, 2) is not legal"),
    "phase beyond the end": (["--config.num_epochs=10"], "phases.deferred.start_epoch=160 must be below num_epochs=10"),
    "unknown method": (["--config.phases.deferred.methods=('m3m',)"], "phases.deferred.methods=('m3m',) is not legal; legal: a tuple of erm, rs, drs, open"),
    "two phases at once": (["--config.phases.deferred.start_epoch=0"], "both start at epoch 0"),
    "batch and devices": (["--config.batch_size=30"], "batch_size=30 is not divisible by the 8 devices"),
    "too many devices": (["--config.num_devices=9"], "num_devices=9 but this machine has 8"),
    "unknown flag": (["--wrokdir=x"], "--wrokdir is not known; see --help; did you mean --workdir?"),
    "left over": (["now"], "'now' on the command line is not a flag"),
    "half a cluster": (["--num_processes=2"], "need --coordinator=HOST:PORT"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage(case, capsys, no_compilation):
    more, message = WRONG[case]
    assert message in error_of(capsys, 2, *CIFAR, *more)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/absent.py", "configs/absent.py: there is no such file"),
        (
            "configs/cifar10_lt.py:mehtod=erm",
            "config argument='mehtod=erm' is unknown; legal: method=, preset=",
        ),
        ("configs/cifar10_lt.py:method=m3m", "method='m3m' is unknown; legal: erm, rs, drs, open"),
        ("configs/cifar10_lt.py:preset=cvpr", "preset='cvpr' is unknown; legal: paper, rescience"),
        ("configs/cifar10_lt.py:epochs=ten", "epochs='ten' must be an integer"),
        ("configs/cifar10_lt.py:epochs=0", "epochs=0 must be at least 1"),
        ("configs/cifar10_lt.py:ir=0.1", "data.imbalance_ratio=0.1 is not legal"),
    ],
)
def test_wrong_config_file(config, message, capsys):
    assert message in error_of(capsys, 2, "--config", config, "--workdir", "unused")


def test_broken_config_file(tmp_path, capsys):
    path = tmp_path / "broken.py"
    path.write_text("import no_such_module\n")
    message = error_of(capsys, 2, "--config", path, "--workdir", "unused")
    assert "no_such_module" in message
    path.write_text("def get_config(arg=None):\n    return 1 / 0\n")
    assert "division by zero" in error_of(capsys, 2, "--config", path, "--workdir", "unused")


@pytest.mark.parametrize("value", ["None", "{}"])
def test_config_file_that_returns_no_config(value, tmp_path, capsys):
    path = tmp_path / "odd.py"
    path.write_text(f"def get_config(arg=None):\n    return {value}\n")
    error = error_of(capsys, 2, "--config", path, "--workdir", "unused")
    assert "get_config must return a ConfigDict" in error


def test_missing_arguments(capsys):
    assert "--config=FILE is missing" in error_of(capsys, 2)
    assert "--config needs a file" in error_of(capsys, 2, "--config")
    assert "--workdir=DIR is missing" in error_of(capsys, 2, "--config", "configs/digits_lt.py")


def with_arrays(npz, path, **changes):
    arrays = {**dict(np.load(npz)), **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def bad_data(npz, tmp_path):
    arrays = dict(np.load(npz))
    label = arrays["train_labels"].copy()
    label[7] = -3
    truncated = tmp_path / "truncated.npz"
    truncated.write_bytes(npz.read_bytes()[:5000])
    return {
        "label out of range": (with_arrays(npz, tmp_path / "a.npz", train_labels=label), "-3"),
        "wrong image shape": (
            with_arrays(npz, tmp_path / "b.npz", test_images=arrays["test_images"][:, :4]),
            "b.npz, split test: images are 4 x 8 x 3",
        ),
        "class with no image": (
            with_arrays(
                npz, tmp_path / "c.npz", train_labels=np.where(arrays["train_labels"] == 2, 1, arrays["train_labels"])
            ),
            "classes [2]",
        ),
        "truncated file": (truncated, "truncated.npz"),
        "missing file": (tmp_path / "absent.npz", "absent.npz"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "case",
    ["label out of range", "wrong image shape", "class with no image", "truncated file",
     "missing file"],
)  # fmt: skip
def test_bad_data(case, npz, tmp_path, capsys, no_compilation):
    path, message = bad_data(npz, tmp_path)[case]
    error = error_of(
        capsys, 3, "--config", f"tests/tiny_cli.py:{path}", "--workdir", tmp_path / "run"
    )
    assert message in error
    assert not (tmp_path / "run").exists(), "nothing is written"


def test_workdir_that_is_a_file(npz, tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("")
    error = error_of(capsys, 2, "--config", f"tests/tiny_cli.py:{npz}", "--workdir", path)
    assert "is a file" in error


def test_missing_checkpoint_is_exit_code_4(npz, tmp_path, capsys):
    more = ("--config.init_from", tmp_path / "absent", "--config.init_epoch=2")
    arguments = ("--config", f"tests/tiny_cli.py:{npz}", "--workdir", tmp_path / "run")
    assert "no checkpoint after epoch 2" in error_of(capsys, 4, *arguments, *more)


def test_help_names_every_field_and_its_value(capsys):
    assert call("--help", "--config", "configs/cifar10_lt.py:preset=rescience") == 0
    text = capsys.readouterr().out
    assert (
        "model.noise_grad='full_stop'" in text and "auto | affine_stop | full_stop | none" in text
    )
    assert "phases.deferred.start_epoch=160" in text and "--workdir" in text
    assert call("--help") == 0


def test_overrides_of_every_kind_reach_the_config():
    values = cli.parse(
        ["main", "--config=configs/cifar10_lt.py:method=drs", "--config.seed=7",
         "--config.optimizer.milestones=(3,4)", "--config.method.open.clip=false",
         "--config.phases.deferred.start_epoch=100", "--config.data.imbalance_ratio=50"]
    )  # fmt: skip
    config = values.config
    assert (config.seed, config.optimizer.milestones) == (7, (3, 4))
    assert config.method.open.clip is False and config.data.imbalance_ratio == 50.0
    assert config.phases.deferred.methods == ("rs",)
    assert config.phases.deferred.start_epoch == 100


@pytest.mark.slow
def test_output_that_is_not_a_terminal_is_plain_and_short(npz, tmp_path):
    command = [sys.executable, "-m", "purenoise_jax.main", "--config", f"tests/tiny_cli.py:{npz}"]
    done = subprocess.run(
        [*command, "--workdir", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) < 35
    assert any("24 12 6 3" in line for line in lines)
    assert any("erm from epoch 0 (step 0), open from epoch 2 (step 6)" in line for line in lines)
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 12


ENDING = {
    "sys.exit(0)": "(SystemExit: 0)",
    "sys.exit()": "(SystemExit: )",
    r"sys.exit('two\nlines \x1b[31m')": r"(SystemExit: two lines \x1b[31m)",
    "raise KeyboardInterrupt('mine')": "(KeyboardInterrupt: mine)",
}


@pytest.mark.parametrize("statement", ENDING)
@pytest.mark.parametrize("place", ["def get_config(arg=None):\n    ", ""])
def test_a_config_file_that_ends_the_program_is_refused(statement, place, tmp_path, capsys):
    path = tmp_path / "ends.py"
    path.write_text(f"import sys\n{place}{statement}\n")
    error = error_of(capsys, 2, "--config", path, "--workdir", tmp_path / "run")
    assert f"{path}: the config file ends the program {ENDING[statement]}" in error
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_the_config_file_is_read(tmp_path, capsys):
    path = tmp_path / "waits.py"
    path.write_text("raise KeyboardInterrupt\n")
    assert call("--config", path, "--workdir", tmp_path / "run") == 130
    assert capsys.readouterr() == ("", "interrupted before it began\n")


@pytest.mark.parametrize("there", [True, False])
def test_the_command_that_shows_curves_installs_its_program_where_it_lacks(there, monkeypatch):
    def version(name):
        if not there:
            raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    command = "tensorboard --logdir 'runs/my photos'"
    wanted = command if there else f"pip install tensorboard && {command}"
    assert cli._tensorboard(Path("runs/my photos")) == wanted


def test_a_config_file_is_read_once(tmp_path, capsys):
    path = tmp_path / "prints.py"
    path.write_text(
        "from purenoise_jax.config.fields import default_config\n"
        "def get_config(arg=None):\n    print('hello')\n    return default_config()\n"
    )
    values = cli.parse(["main", "--config", str(path), "--config.seed=7", "--workdir", "x"])
    assert (values.config.seed, values.workdir) == (7, "x")
    assert capsys.readouterr().out == "hello\n"


def test_python_may_turn_warnings_into_errors():
    """`python -W error`, although the library loads config files by a deprecated function."""
    command = [sys.executable, "-W", "error", "-m", "purenoise_jax.main"]
    done = subprocess.run(
        [*command, "--config", "configs/digits_lt.py", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "--workdir" in done.stdout


def test_a_user_that_does_not_exist_is_refused_in_every_path(npz, capsys, no_compilation):
    nobody = "~no-such-user/x"
    config = ["--config", f"tests/tiny_cli.py:{npz}"]
    for field, more in {
        "workdir": ["--workdir", nobody],
        "data.path": [f"--config.data.path={nobody}"],
        "data.indices": [f"--config.data.indices={nobody}", "--config.data.profile=exp"],
        "init_from": [f"--config.init_from={nobody}", "--config.init_epoch=1"],
    }.items():
        error = error_of(capsys, 2, *config, "--workdir", "unused", *more)
        assert f"{field}={nobody}: there is no user 'no-such-user'" in error


@pytest.mark.parametrize("name", ["a\nb", os.fsdecode(b"l\xe4uf")])
def test_an_illegal_workdir_is_refused_before_data_are_read(name, tmp_path, capsys):
    error = error_of(
        capsys, 2, "--config", "tests/tiny_cli.py:absent", "--workdir", tmp_path / name
    )
    assert "workdir=" in error and "absent" not in error
    assert list(tmp_path.iterdir()) == []


def test_disabled_compilation_is_refused_at_the_start(tmp_path, capsys):
    with jax.disable_jit():
        error = error_of(
            capsys, 2, "--config", "tests/tiny_cli.py:absent", "--workdir", tmp_path / "run"
        )
    assert "JAX_DISABLE_JIT is set" in error and not (tmp_path / "run").exists()


def test_an_internal_error_gives_exit_code_1_with_its_traceback(monkeypatch, capsys):
    def fail(argv):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(exit_codes, "exit_process", sys.exit)
    with pytest.raises(SystemExit) as ended:
        exit_codes.run_program(fail, [])
    assert ended.value.code == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "unforeseen" in err
