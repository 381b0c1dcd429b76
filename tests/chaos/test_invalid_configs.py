"""Illegal values derived from every config field are all refused in one line.

So are combinations of legal values that contradict each other.
"""

import numpy as np
import pytest
from ml_collections import ConfigDict

from purenoise_jax import main as cli
from purenoise_jax.chaos.invalid_configs import as_flag, bad_values, field_paths, with_value
from purenoise_jax.config.fields import default_config, field_of, flatten
from purenoise_jax.config.validation import validate
from purenoise_jax.runtime.errors import ConfigError, DataError, shown
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from tests.tiny import tiny_config, write_npz

PATHS = field_paths()


def test_every_leaf_of_the_default_config_has_bad_values():
    assert set(flatten(default_config())) == set(PATHS)
    for path in PATHS:
        values = bad_values(path)
        assert len({repr(value) for value in values}) == len(values) >= 6, path
    with pytest.raises(KeyError):
        bad_values("optimizer.absent")


@pytest.mark.parametrize("path", PATHS)
def test_every_bad_value_is_refused_in_one_line_that_says_what_is_legal(path):
    legal = str(field_of(path).legal)
    for value in bad_values(path):
        with pytest.raises(ConfigError) as refusal:
            validate(with_value(default_config(), path, value))
        message = str(refusal.value)
        assert message.isprintable() and len(message) < 1000, message
        assert message.startswith(f"{path}={shown(value)} is not legal; legal: ") or (
            # A dictionary is not a value but another level of fields.
            value == {} and message.startswith(f"{path} is missing; legal: ")
        ), message
        assert legal in message


@pytest.mark.every(40)
@pytest.mark.parametrize("path", PATHS)
def test_every_bad_value_is_refused_on_the_command_line(path, tmp_path, capsys):
    texts = [text for value in bad_values(path) if (text := as_flag(path, value)) is not None]
    assert len(texts) >= 3
    for text in texts:
        command = ["main", "--config=configs/cifar10_lt.py", f"--workdir={tmp_path / 'run'}"]
        assert cli.main([*command, f"--config.{path}={text}"]) == 2, text
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"error: {path}="), (text, err)
        assert err.count("\n") == 1 and "; legal: " in err, err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "value", "nearest"),
    [
        ("model.name", "wrn28-10", "wrn28_10"),
        ("data.source", "cifar-dir", "cifar_dir"),
        ("data.augment", ("flip", "cutuot"), "cutout"),
        ("phases.initial.methods", ("opne",), "open"),
    ],
)
def test_the_nearest_name_is_suggested(path, value, nearest):
    with pytest.raises(ConfigError, match=f"; did you mean '{nearest}'\\?$"):
        validate(with_value(default_config(), path, value))


def test_defaults_and_the_ends_of_every_range_are_legal():
    for path in PATHS:
        field = field_of(path)
        assert field.legal.allows(field.default), path
    for path, value in [
        ("seed", 2**32 - 1),
        ("batch_size", 1),
        ("optimizer.momentum", 0),
        ("method.open.delta", 1),
        ("method.append.share", 1.0),
        ("data.path", "/ein Ordner/größer/π/数据"),
        ("data.path", "x" * 4096),
        ("optimizer.milestones", ()),
    ]:
        validate(with_value(default_config(), path, value))


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        (3, "phases=3 is not legal"),
        (None, "phases=None is not legal"),
        ({}, "none starts at epoch 0"),
        ({"a": 3}, "phases.a must have start_epoch and methods; legal: start_epoch, methods"),
        ({"a": {"start_epoch": 0}}, "phases.a must have start_epoch and methods"),
        ({"a": {"start_epoch": 0, "methods": ("erm",), "end": 3}}, "legal: start_epoch, methods"),
        ({"a": {"start_epoch": 1, "methods": ("erm",)}}, "none starts at epoch 0"),
        ({"a": {"start_epoch": 200, "methods": ("erm",)}}, "must be below num_epochs=200"),
        ({"a\nb": {"start_epoch": 200, "methods": ("erm",)}}, "must be below num_epochs=200"),
        ({1: {"start_epoch": 200, "methods": ("erm",)}}, "must be below num_epochs=200"),
    ],
)
def test_odd_phases(phases, message):
    config = default_config()
    with config.ignore_type():
        config.phases = ConfigDict(phases) if isinstance(phases, dict) else phases
    with pytest.raises(ConfigError, match=message) as refusal:
        validate(config)
    assert str(refusal.value).isprintable()


def test_missing_parts():
    for name in ("phases", "data", "seed"):
        config = default_config()
        del config[name]
        with pytest.raises(ConfigError, match=name):
            validate(config)


def test_the_nearest_field_is_suggested_for_a_misspelt_one_of_a_config_file():
    config = default_config()
    config.optimizer.momentun = 0.5
    with pytest.raises(
        ConfigError, match=r"optimizer\.momentun is not a config field; did you mean 'optimizer\.mo"
    ):
        validate(config)


CONTRADICTIONS = {
    "nothing left to train": (
        {"init_from": "runs/erm", "init_epoch": 200, "phases.initial.methods": ("ldam", "tau_norm")},
        "init_epoch=200 must be below num_epochs=200, because ldam has to train, and no epoch would",
    ),
    "start after the end": (
        {"init_from": "runs/erm", "init_epoch": 201},
        "init_epoch=201 must be at most num_epochs=200; init_epoch=0 takes over",
    ),
    "explicit without numbers": (
        {"data.normalize": "explicit"},
        r"data\.normalize=explicit needs one number per channel in both data\.normalize_mean=\(\)",
    ),
    "means and deviations of different length": (
        {"data.normalize": "explicit", "data.normalize_mean": (0.5,), "data.normalize_std": (1,) * 3},
        "needs one number per channel in both",
    ),
    "means that are not used": (
        {"data.normalize_mean": (0.5,) * 3},
        r"data\.normalize_mean=.* is used only with data\.normalize=explicit, but",
    ),
    "lists that are not used": (
        {"data.source": "folder", "data.val_list": "val.txt"},
        r"data\.val_list=val\.txt is used only with data\.source=list, but data\.source=folder; "
        r"legal: ''$",
    ),
    "a column that is not used": (
        {"data.label_column": "target"},
        r"data\.label_column=target is used only with data\.source=list, .*; legal: 'label'$",
    ),
    "deviations that are not used": (
        {"phases.initial.methods": ("open",), "method.open.std": (0.5,) * 3},
        r"method\.open\.std=.* is used only with method\.open\.noise_stats=explicit",
    ),
    "noise without numbers": (
        {"phases.initial.methods": ("append",), "method.append.noise_stats": "explicit"},
        r"method\.append\.noise_stats=explicit needs one number per channel",
    ),
    "less than one noise image": (
        {"phases.initial.methods": ("append",), "method.append.share": 0.05, "batch_size": 16},
        r"method\.append\.share=0\.05 of batch_size=16 is less .* legal: at least 0\.0625",
    ),
    "warm-up beyond a drop": (
        {"optimizer.warmup_epochs": 161},
        r"optimizer\.warmup_epochs=161 .* optimizer\.milestones=\(160, 180\).* at most 160",
    ),
    "no drop is ever reached": (
        {"num_epochs": 40},
        r"optimizer\.milestones=\(160, 180\): num_epochs=40 ends before the drop at epoch 160, .*"
        r"epochs=N scales the whole schedule",
    ),
    "the last drop is never reached": (
        {"num_epochs": 180},
        r"optimizer\.milestones=\(160, 180\): num_epochs=180 ends before the drop at epoch 180",
    ),
    "warm-up that is never over": (
        {"num_epochs": 4, "optimizer.milestones": ()},
        r"optimizer\.warmup_epochs=5 goes beyond num_epochs=4, .* at most 4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_fields_that_contradict_each_other_are_refused(case):
    changes, message = CONTRADICTIONS[case]
    config = default_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message):
        validate(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_epochs": 181},
        {"num_epochs": 300},
        {"num_epochs": 10, "optimizer.milestones": ()},
        {"num_epochs": 5, "optimizer.milestones": (), "optimizer.warmup_epochs": 5},
    ],
)
def test_a_schedule_that_reaches_its_last_drop_is_legal(changes):
    config = default_config()
    config.update_from_flattened_dict(changes)
    validate(config)


def test_fields_that_no_phase_uses_are_not_checked():
    config = default_config()
    config.update_from_flattened_dict(
        {"method.append.mean": (0.5,), "method.open.noise_stats": "explicit", "init_epoch": 999}
    )
    validate(config)


def test_a_message_is_one_printable_line():
    error = DataError("a\nfile \x1b[31mred\u202e\r\n  of \udcff two\u2028lines\x00: größer\n")
    assert str(error) == "a file \\x1b[31mred\\u202e of \\udcff two lines\\x00: größer"
    assert "a file" in repr(error) and error.exit_code == 3
    long = shown(["name"] * 1000)
    assert len(long) < 130 and long.startswith("['name', ") and long.endswith("'name']")


WITH_THE_DATA = {
    "hole larger than the image": (
        {"data.augment": ("cutout",)},
        r"data\.cutout_size=16 for images of 8 x 8: .* at most 8",
    ),
    "padding as large as the image": (
        {"data.crop_padding": 8},
        r"data\.crop_padding=8 for images of 8 x 8: .* below 8",
    ),
    "more steps than can be counted": (
        {"num_epochs": 1_000_000, "batch_size": 1, "data.limit": 0},
        r"num_epochs=1000000 of 2159 steps each .* at most 994665",
    ),
    "numbers for another count of channels": (
        {
            "data.normalize": "explicit",
            "data.normalize_mean": (0.5,),
            "data.normalize_std": (0.5,),
        },
        r"data\.normalize_mean=\(0\.5,\) must be 3 finite numbers",
    ),
    "ratio that empties classes": (
        {"data.profile": "exp", "data.imbalance_ratio": 2000.0},
        r"data\.imbalance_ratio=2000\.0 leaves classes \[2, 3\] without an image",
    ),
    "path that the source does not read": (
        {"data.source": "digits"},
        r"data\.path=.* is not read: the digits come with scikit-learn",
    ),
}


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz", (2000, 100, 50, 9))


@pytest.mark.parametrize("case", WITH_THE_DATA)
def test_fields_that_contradict_the_data_are_refused_and_nothing_is_written(case, npz, tmp_path):
    changes, message = WITH_THE_DATA[case]
    if "imbalance_ratio" in message:
        npz = write_npz(tmp_path / "even.npz", (50,) * 4)
    config = tiny_config(npz, **changes)
    with pytest.raises(ConfigError, match=message):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_limit_leaves_no_class_empty(npz):
    for limit in (1, 2, 9):
        experiment = build(tiny_config(npz, **{"data.limit": limit}))
        counts = experiment.training.stats.class_counts
        assert counts.min() == 1 and counts.max() == limit
        assert np.bincount(experiment.dataset.test_labels).tolist() == [limit] * 4
