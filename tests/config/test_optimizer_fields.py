"""Fields of the optimiser and its schedule: contradictions, older runs, and the end of a cosine."""

import pytest

from purenoise_jax.config.fields import default_config
from purenoise_jax.config.flags import parse
from purenoise_jax.config.identity import config_hash, fixed_fields
from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.config.run_record import CONFIG_FILE, refuse_other_run, saved_config
from purenoise_jax.config.validation import validate
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.runtime.files import read_json, write_json

COSINE = {"optimizer.schedule": "cosine", "optimizer.milestones": ()}
ADDED = ("optimizer.schedule", "optimizer.nesterov", "optimizer.clip_norm")


def config_with(fields, num_epochs=200):
    config = default_config()
    config.num_epochs = num_epochs
    config.update_from_flattened_dict(fields)
    return config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"optimizer.schedule": "cosine"},
            r"optimizer\.milestones=\(160, 180\) is used only with optimizer\.schedule=step, but "
            r"optimizer\.schedule=cosine; legal: \(\)",
        ),
        (
            COSINE | {"optimizer.gamma": 0.5},
            r"optimizer\.gamma=0\.5 is used only with optimizer\.schedule=step, .*; legal: 0\.01",
        ),
        (
            {"optimizer.name": "adam", "optimizer.nesterov": True},
            r"optimizer\.nesterov=True is used only with optimizer\.name=sgd, but .*=adam",
        ),
        (
            {"optimizer.name": "adamw", "optimizer.nesterov": True},
            r"optimizer\.nesterov=True is used only with optimizer\.name=sgd, but .*=adamw",
        ),
        (
            {"optimizer.momentum": 0.0, "optimizer.nesterov": True},
            r"optimizer\.nesterov=True has no effect with optimizer\.momentum=0",
        ),
        (
            COSINE | {"optimizer.warmup_epochs": 201},
            r"optimizer\.warmup_epochs=201 goes beyond num_epochs=200",
        ),
    ],
)
def test_fields_without_effect_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        validate(config_with(fields))


def parsed(*fields):
    words = (f"--config.{field}" for field in fields)
    return parse(["main", "--config=digits_lt:method=crt", *words]).config


def test_a_cosine_of_the_command_line_leaves_the_drops_of_the_config_out():
    step, by_hand = parsed(), parsed("optimizer.schedule=cosine", "optimizer.milestones=()")
    assert step.optimizer.milestones and step.phases.second_stage.milestones
    config = parsed("optimizer.schedule=cosine")
    validate(config)
    assert config_hash(config) == config_hash(by_hand) != config_hash(step)
    assert config.phases.second_stage.milestones == step.phases.second_stage.milestones
    second = parsed("phases.second_stage.schedule=cosine")
    validate(second)
    assert second.phases.second_stage.milestones == () and second.optimizer == step.optimizer
    # Drops of the command line contradict it; a step has drops as before.
    for field in ("optimizer.milestones=(3,)", "optimizer.gamma=0.5"):
        with pytest.raises(ConfigError, match=r"is used only with optimizer\.schedule=step"):
            validate(parsed("optimizer.schedule=cosine", field))
    assert parsed("optimizer.schedule=step").optimizer == step.optimizer


@pytest.mark.parametrize(
    "fields",
    [
        COSINE,
        {"optimizer.nesterov": True, "optimizer.clip_norm": 0.5},
        {"optimizer.name": "adamw", "optimizer.clip_norm": 1.0},
    ],
)
def test_legal_fields_are_part_of_the_run(fields):
    config = config_with(fields)
    validate(config)
    assert fields.items() <= {k: tuple(v) if isinstance(v, list) else v
                              for k, v in fixed_fields(config).items()}.items()  # fmt: skip


def test_a_run_from_before_the_fields_goes_on_and_is_read(tmp_path):
    config = default_config()
    saved = saved_config(config)
    for path in ADDED:
        assert path not in saved["fixed"], "a hash without them is that of older versions"
        del saved["config"]["optimizer"][path.partition(".")[2]]
    del saved["config"]["phases"]["initial"]["schedule"]
    write_json(tmp_path / CONFIG_FILE, saved)
    refuse_other_run(config, tmp_path)
    (run,) = load_runs([tmp_path])
    assert (
        config_hash(run.config) == config_hash(config) == read_json(tmp_path / CONFIG_FILE)["hash"]
    )


def own_cosine(num_epochs):
    config = config_with({"optimizer.milestones": (3,)}, num_epochs)
    config.phases.second = make_phase(4, ("crt",), learning_rate=0.1, schedule="cosine")
    return config


def early_cosine(num_epochs):
    config = own_cosine(num_epochs)
    config.phases.third = make_phase(6, ("erm",))
    return config


def whole_cosine(num_epochs):
    return config_with(COSINE, num_epochs)


@pytest.mark.parametrize(
    ("make", "same"), [(whole_cosine, False), (own_cosine, False), (early_cosine, True)]
)
@pytest.mark.parametrize("epochs", [(8, 10), (10, 8)])
def test_a_run_whose_cosine_would_end_elsewhere_is_another(make, same, epochs, tmp_path):
    there, here = epochs
    write_json(tmp_path / CONFIG_FILE, saved_config(make(there)))
    refuse_other_run(make(there), tmp_path)
    if same:
        refuse_other_run(make(here), tmp_path)
    else:
        with pytest.raises(CheckpointError, match=rf"num_epochs: {there} there, {here} here"):
            refuse_other_run(make(here), tmp_path)


def test_a_change_to_a_cosine_names_the_schedule(tmp_path):
    write_json(tmp_path / CONFIG_FILE, saved_config(config_with({"optimizer.milestones": ()})))
    with pytest.raises(
        CheckpointError, match=r"of another run; optimizer\.schedule: 'step' there, 'cosine' here;"
    ):
        refuse_other_run(config_with(COSINE), tmp_path)
