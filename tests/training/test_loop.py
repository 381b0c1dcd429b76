"""Whole runs on a tiny problem: what they leave behind, how they continue, what they refuse."""

import json
import shutil

import chex
import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams

from purenoise_jax.checkpoint.digest import state_digest
from purenoise_jax.checkpoint.init_transforms import without_aux_norm
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.data.sampling import EpochSampler
from purenoise_jax.runtime import files
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.training import provenance, setup
from purenoise_jax.training.build import build
from purenoise_jax.training.confusion import FILES, load
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.metric_writer import read_metrics
from purenoise_jax.training.provenance import versions
from purenoise_jax.training.resume import find_restore_point
from tests.notes import Notes
from tests.tiny import COUNTS, STEPS_PER_EPOCH, tiny_config, write_npz

LAST = 4 * STEPS_PER_EPOCH


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def through(npz, tmp_path_factory):
    """A run that was never interrupted, with a checkpoint of every step."""
    workdir = tmp_path_factory.mktemp("through")
    config = tiny_config(npz, **{"checkpoint.every_steps": 1, "checkpoint.keep": 100})
    state = train_and_evaluate(config, workdir)
    return config, workdir, state


def summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


def test_summary_says_what_ran(through):
    _, workdir, state = through
    there = summary(workdir)
    assert there["class_counts"] == list(COUNTS)
    assert (there["epochs"], there["steps"], there["seed"]) == (4, LAST, 0)
    assert there["state_digest"] == state_digest(state)
    assert len(there["dataset_fingerprint"]) == len(there["config_hash"]) == 64
    assert there["seconds"] > 0 and there["images_per_second"] > 0
    assert there["versions"]["jax"] and there["versions"]["device"].startswith("cpu")
    assert len(there["per_class_accuracy"]) == 4
    confusion = np.array(there["confusion_matrix"])
    assert confusion.sum() == 40 and there["test_accuracy"] == np.trace(confusion) / 40
    saved = load(workdir / FILES["test"], LAST)
    np.testing.assert_array_equal(saved.dense(), confusion)
    assert not (workdir / FILES["val"]).exists()
    assert "many_accuracy" not in there and "group_accuracy" not in there, "no such classes"
    assert there["medium_accuracy"] is not None


def test_metrics_have_one_record_an_epoch(through):
    _, workdir, _ = through
    records = read_metrics(workdir / "metrics.jsonl")
    assert [r["step"] for r in records] == [3, 6, 9, 12]
    assert [r["train/methods"] for r in records] == [["erm"]] * 2 + [["open"]] * 2
    assert [r["train/noise_fraction"] > 0 for r in records] == [False, False, True, True]
    assert ["test/accuracy" in r for r in records] == [False, True, False, True]
    assert [r["train/learning_rate"] for r in records] == [0.1, 0.1, 0.1, pytest.approx(1e-3)]


def test_tensorboard_events_hold_the_same_numbers(through):
    _, workdir, _ = through
    events = EventAccumulator(str(workdir / "tensorboard")).Reload()
    records = read_metrics(workdir / "metrics.jsonl")
    seen = {e.step: e.value for e in events.Scalars("train/loss")}
    assert seen == {r["step"]: pytest.approx(r["train/loss"]) for r in records}
    for label in range(4):
        points = events.Scalars(f"test_by_class/{label}_{label}")
        assert [(e.step, e.value) for e in points] == [
            (r["step"], pytest.approx(r["test/per_class_accuracy"][label]))
            for r in records
            if "test/per_class_accuracy" in r
        ]
    (table,) = events.Tensors("classes/text_summary")
    assert "| 0 | 0 | 24 | 10 |" in table.tensor_proto.string_val[0].decode()
    start, end = (
        events.SummaryMetadata(tag).plugin_data.content
        for tag in (hparams.SESSION_START_INFO_TAG, hparams.SESSION_END_INFO_TAG)
    )
    fields = hparams.parse_session_start_info_plugin_data(start).hparams
    assert (fields["num_epochs"].number_value, fields["phases.deferred.methods"].string_value) == (
        4,
        "open",
    )
    # 1 is success.
    assert hparams.parse_session_end_info_plugin_data(end).status == 1


@pytest.mark.slow
def test_it_learns(npz, tmp_path):
    config = tiny_config(npz, num_epochs=40, **{"phases.deferred.start_epoch": 35})
    config.optimizer.milestones = (35,)
    train_and_evaluate(config, tmp_path)
    assert summary(tmp_path)["test_accuracy"] > 0.8


@pytest.mark.every(4)
@pytest.mark.parametrize("step", range(1, LAST + 1))
def test_resume_from_any_step_is_bitwise(through, tmp_path, step):
    config, workdir, state = through
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    for later in range(step + 1, LAST + 1):
        shutil.rmtree(tmp_path / "checkpoints" / str(later))
    (tmp_path / "summary.json").unlink()
    resumed = train_and_evaluate(config, tmp_path)
    assert state_digest(resumed) == state_digest(state)
    whole, parts = summary(workdir), summary(tmp_path)
    for name in ("test_accuracy", "test_nll", "confusion_matrix", "steps", "config_hash"):
        assert parts[name] == whole[name]
    assert parts["seconds"] > 0
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in records] == [3, 6, 9, 12]


@pytest.mark.slow
def test_other_seed_other_state(through, npz, tmp_path):
    state = train_and_evaluate(tiny_config(npz, seed=1), tmp_path)
    assert state_digest(state) != state_digest(through[2])


@pytest.mark.slow
def test_steps_in_a_loop_on_the_device_resume_bitwise_too(through, npz, tmp_path):
    """As on an accelerator: several steps a call, cut at the epoch's end and where it saves."""
    looped = {"steps_per_call": 2, "checkpoint.every_steps": 5, "checkpoint.keep": 100}
    whole = train_and_evaluate(tiny_config(npz, **looped), tmp_path / "whole")
    assert Checkpoints(tmp_path / "whole").steps() == [3, 5, 6, 9, 10, 12]
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    for later in (9, 10, 12):
        shutil.rmtree(tmp_path / "parts/checkpoints" / str(later))
    parts = train_and_evaluate(tiny_config(npz, **looped), tmp_path / "parts")
    assert state_digest(parts) == state_digest(whole)
    chex.assert_trees_all_close(
        jax.device_get(whole.params), jax.device_get(through[2].params), rtol=1e-3, atol=1e-4
    )


def test_every_epoch_draws_and_learns_as_its_phase_and_schedule_say(npz, tmp_path, monkeypatch):
    drawn = []
    real = EpochSampler.epoch

    def epoch(sampler, number, class_probs):
        drawn.append((number, class_probs is not None))
        return real(sampler, number, class_probs)

    monkeypatch.setattr(EpochSampler, "epoch", epoch)
    train_and_evaluate(tiny_config(npz), tmp_path)
    assert drawn == [(0, False), (1, False), (2, True), (3, True)]
    records = read_metrics(tmp_path / "metrics.jsonl")
    rates = [record["train/learning_rate"] for record in records]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.1, 0.001])
    assert [record["train/methods"] for record in records] == [["erm"]] * 2 + [["open"]] * 2
    assert [record["train/noise_fraction"] > 0 for record in records] == [False] * 2 + [True] * 2


@pytest.mark.slow
def test_validation_set_is_evaluated_when_there(npz, tmp_path):
    arrays = dict(np.load(npz))
    arrays |= {"val_images": arrays["test_images"][:7], "val_labels": arrays["test_labels"][:7]}
    np.savez(tmp_path / "val.npz", **arrays)
    train_and_evaluate(tiny_config(tmp_path / "val.npz", num_epochs=3), tmp_path / "run")
    numbers = summary(tmp_path / "run")
    first_7 = np.array(numbers["val_accuracy"]) * 7
    assert first_7 == pytest.approx(round(float(first_7))), "counted over seven images"
    last = read_metrics(tmp_path / "run/metrics.jsonl")[-1]
    assert np.sum(last["val/confusion_matrix"]) == 7 and np.sum(last["test/confusion_matrix"]) == 40
    for split in ("test", "val"):
        saved = load(tmp_path / "run" / FILES[split], last["step"]).dense()
        assert saved.tolist() == last[f"{split}/confusion_matrix"]


def test_how_often_a_run_saves_and_evaluates_does_not_change_it(through, npz, tmp_path):
    config = tiny_config(npz, **{"checkpoint.every_epochs": 0, "eval.every_epochs": 0})
    state = train_and_evaluate(config, tmp_path)
    assert state_digest(state) == state_digest(through[2])
    assert Checkpoints(tmp_path).steps() == [6, LAST], "named and last"


@pytest.mark.slow
def test_rolling_checkpoints_are_pruned_and_named_ones_kept(npz, tmp_path):
    config = tiny_config(npz, **{"checkpoint.every_steps": 1, "checkpoint.keep": 2})
    train_and_evaluate(config, tmp_path)
    assert Checkpoints(tmp_path).steps() == [6, 11, 12]


@pytest.mark.slow
def test_more_epochs_continue_a_finished_run(npz, tmp_path):
    train_and_evaluate(tiny_config(npz), tmp_path)
    state = train_and_evaluate(tiny_config(npz, num_epochs=8), tmp_path)
    assert int(state.step) == 8 * STEPS_PER_EPOCH
    # Epoch 2 is named, 4 was the last once; the others are the two newest.
    assert Checkpoints(tmp_path).steps() == [6, 12, 21, 24]
    path = tmp_path / "config.json"
    saved = files.read_json(path)
    saved["named_epochs"].append("eight")
    files.write_json(path, saved)
    train_and_evaluate(tiny_config(npz, num_epochs=11), tmp_path)
    assert Checkpoints(tmp_path).steps() == [6, 12, 24, 30, 33]
    with pytest.raises(
        ConfigError, match=r"num_epochs=4 .* already at step 33; legal: at least 11"
    ):
        train_and_evaluate(tiny_config(npz), tmp_path)


@pytest.mark.slow
def test_second_stage_from_another_run_is_bitwise_the_run_in_one_piece(through, npz, tmp_path):
    _, workdir, state = through
    erm = tiny_config(npz, num_epochs=2)
    del erm.phases["deferred"]
    train_and_evaluate(erm, tmp_path / "erm")
    start = {"init_from": str(tmp_path / "erm"), "init_epoch": 2}
    second = train_and_evaluate(tiny_config(npz, **start), tmp_path / "open")
    assert state_digest(second) == state_digest(state)
    origin = {"workdir": str(tmp_path / "erm"), "epoch": 2}
    assert summary(tmp_path / "open")["init_from"] == origin
    # Continued without the argument, it still says where it began; with another, it refuses.
    train_and_evaluate(tiny_config(npz, num_epochs=5), tmp_path / "open")
    assert summary(tmp_path / "open")["init_from"] == origin
    other = tiny_config(npz, num_epochs=6, init_from=str(workdir), init_epoch=2)
    with pytest.raises(CheckpointError, match=r"began from \{'workdir': .*/erm'"):
        train_and_evaluate(other, tmp_path / "open")
    assert Checkpoints(tmp_path / "erm").steps() == [3, 6], "source untouched"


@pytest.mark.slow
def test_where_a_run_began_may_be_spelled_another_way(through, npz, tmp_path, monkeypatch):
    start = {"init_from": str(through[1]), "init_epoch": 2, "num_epochs": 3}
    train_and_evaluate(tiny_config(npz, **start), tmp_path / "open")
    monkeypatch.chdir(through[1].parent)
    again = {**start, "init_from": through[1].name, "num_epochs": 4}
    assert int(train_and_evaluate(tiny_config(npz, **again), tmp_path / "open").step) == LAST


@pytest.mark.slow
def test_second_stage_may_have_another_batch_size(npz, tmp_path):
    erm = tiny_config(npz, num_epochs=2)
    del erm.phases["deferred"]
    train_and_evaluate(erm, tmp_path / "erm")
    start = {"init_from": str(tmp_path / "erm"), "init_epoch": 2, "batch_size": 8}
    state = train_and_evaluate(tiny_config(npz, **start), tmp_path / "open")
    records = read_metrics(tmp_path / "open/metrics.jsonl")
    assert [(r["step"], r["epoch"], r["train/methods"]) for r in records] == [
        (18, 3, ["open"]), (24, 4, ["open"])]  # fmt: skip
    assert int(state.step) == 24


def test_finished_run_started_again_keeps_its_numbers(npz, tmp_path):
    train_and_evaluate(tiny_config(npz), tmp_path)
    first = summary(tmp_path)
    train_and_evaluate(tiny_config(npz), tmp_path)
    again = summary(tmp_path)
    assert first.pop("seconds") > 0
    assert again.pop("seconds") > Checkpoints(tmp_path).record(LAST)["seconds"]
    assert again == first and first["images_per_second"] > 0


def test_step_checkpoints_fall_on_epoch_ends_too(npz, tmp_path):
    saving = {"checkpoint.every_epochs": 0, "checkpoint.every_steps": 3, "checkpoint.keep": 100}
    train_and_evaluate(tiny_config(npz, **saving), tmp_path)
    assert Checkpoints(tmp_path).steps() == [3, 6, 9, 12]


@pytest.mark.slow
def test_stage_one_of_plain_batch_norm_serves_dar_bn(npz, tmp_path):
    erm = tiny_config(npz, num_epochs=2, **{"model.norm": "bn"})
    del erm.phases["deferred"]
    train_and_evaluate(erm, tmp_path / "erm")
    start = {"init_from": str(tmp_path / "erm"), "init_epoch": 2}
    state = train_and_evaluate(tiny_config(npz, **start), tmp_path / "open")
    assert int(state.step) == LAST


@pytest.mark.slow
def test_auxiliary_layers_do_not_change_before_there_is_noise(through, npz, tmp_path):
    """So that plain training is the same with any norm, and may be shared by all."""
    erm = tiny_config(npz, num_epochs=2, **{"model.norm": "aux_bn"})
    del erm.phases["deferred"]
    state = train_and_evaluate(erm, tmp_path)
    assert (state.params["norm"]["aux_scale"] == 1).all()
    assert (state.params["norm"]["aux_bias"] == 0).all()
    assert (state.opt_state[1].trace["norm"]["aux_scale"] == 0).all()
    config = through[0]
    target = build(config).target()
    other = Checkpoints(through[1]).restore(6, target)
    chex.assert_trees_all_close(without_aux_norm(state).params, other.params, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fresh", "copy"])
def test_stage_one_without_auxiliary_layers_serves_aux_bn(through, npz, tmp_path, how):
    """The noise rows' layers are new, or copies; all else goes on from the checkpoint."""
    start = {"init_from": str(through[1]), "init_epoch": 2, "model.norm": "aux_bn"}
    config = tiny_config(npz, init_aux_bn=how, **start)
    experiment = build(config)
    checkpoints = Checkpoints(tmp_path / "run")
    found = find_restore_point(
        experiment, checkpoints, init_from=config.init_from, init_epoch=2, init_aux_bn=how
    )().state
    natural = Checkpoints(through[1]).restore(6, without_aux_norm(experiment.target()))
    chex.assert_trees_all_equal(without_aux_norm(found), natural)
    norm, stats = found.params["norm"], found.batch_stats["norm"]
    if how == "copy":
        np.testing.assert_array_equal(norm["aux_scale"], norm["scale"])
        np.testing.assert_array_equal(stats["aux_var"], stats["var"])
    else:
        assert (norm["aux_scale"] == 1).all() and (norm["aux_bias"] == 0).all()
        assert (stats["aux_mean"] == 0).all() and (stats["aux_var"] == 1).all()
    momentum = found.opt_state[1].trace["norm"]
    assert (momentum["aux_scale"] == 0).all() and (momentum["scale"] != 0).any()
    assert not (tmp_path / "run").exists(), "nothing is written yet"
    # It trains, and its own checkpoints restore as they are.
    state = train_and_evaluate(config, tmp_path / "run")
    assert (state.params["norm"]["aux_scale"] != norm["aux_scale"]).any()
    again = train_and_evaluate(config, tmp_path / "run")
    assert state_digest(again) == state_digest(state)
    origin = {"workdir": str(through[1]), "epoch": 2, "aux_bn": how}
    assert summary(tmp_path / "run")["init_from"] == origin


@pytest.mark.slow
def test_an_average_starts_from_a_run_without_one_and_the_other_way_round(through, npz, tmp_path):
    """The memory of a method that a checkpoint lacks begins with the variables that are read."""
    averaged = {"phases.initial.methods": ("ema",), "phases.deferred.methods": ("open", "ema")}
    start = {"init_from": str(through[1]), "init_epoch": 2}
    config = tiny_config(npz, **averaged, **start)
    experiment = build(config)
    found = find_restore_point(
        experiment, Checkpoints(tmp_path / "x"), init_aux_bn="fresh", **start
    )().state
    stored = Checkpoints(through[1]).restore(6, build(tiny_config(npz)).target())
    chex.assert_trees_all_equal(found.replace(extra={}), stored)
    chex.assert_trees_all_equal(found.extra["ema"]["params"], stored.params)
    assert int(found.extra["ema"]["steps"]) == 0
    state = train_and_evaluate(config, tmp_path / "averaged")
    # The average does not touch what trains: the rest is that of the run without it.
    chex.assert_trees_all_equal(state.params, through[2].params)
    back = tiny_config(npz, init_from=str(tmp_path / "averaged"), init_epoch=3)
    again = train_and_evaluate(back, tmp_path / "plain")
    assert state_digest(again) == state_digest(through[2]) and not again.extra


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.name": "resnet8"}, r'model: "tiny" there, "resnet8" here'),
        ({"optimizer.name": "adam"}, "arrays differ: opt_state"),
        ({"data.profile": "exp", "data.imbalance_ratio": 2.0},
         r"class_counts: \[24, 12, 6, 3\] there, \[3, 2, 1, 1\] here; dataset_fingerprint"),
        ({"data.normalize": "explicit", "data.normalize_mean": (0.1,) * 3,
          "data.normalize_std": (3.0,) * 3}, "differing: normalize_mean; normalize_std"),
        ({"init_epoch": 3}, r"no checkpoint after epoch 3 \(init_epoch\); there are 0\.333333"),
    ],
)  # fmt: skip
def test_checkpoint_of_something_else_is_refused(through, npz, tmp_path, overrides, message):
    if "init_epoch" in overrides:
        shutil.copytree(through[1], tmp_path / "source")
        shutil.rmtree(tmp_path / "source/checkpoints/9")
    source = tmp_path / "source" if "init_epoch" in overrides else through[1]
    config = tiny_config(npz, **{"init_from": str(source), "init_epoch": 2} | overrides)
    with pytest.raises(CheckpointError, match=message):
        train_and_evaluate(config, tmp_path / "new")
    assert not (tmp_path / "new").exists(), "nothing is written"


@pytest.mark.slow
def test_lines_in_the_metrics_that_are_no_records_cost_nothing(npz, tmp_path):
    train_and_evaluate(tiny_config(npz, num_epochs=3), tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"no": "step"}\n\xff\xfe\n[1]\n{"step": 12, "torn')
    train_and_evaluate(tiny_config(npz), tmp_path)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [3, 6, 9, 12]


def test_init_from_nothing_is_refused(npz, tmp_path):
    config = tiny_config(npz, init_from=str(tmp_path / "absent"), init_epoch=2)
    with pytest.raises(CheckpointError, match=r"absent: no checkpoint after epoch 2 .* none"):
        train_and_evaluate(config, tmp_path / "new")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"seed": 5}, "seed: 0 there, 5 here"),
        ({"method.open.delta": 0.5}, r"method\.open\.delta: 0\.333.* there, 0\.5 here"),
        ({"phases.deferred.methods": ("rs",)}, r"methods: \['open'\] there, \['rs'\] here"),
        ({"model.norm": "bn"}, "model.norm: 'dar_bn' there, 'bn' here"),
    ],
)
def test_workdir_of_another_run_is_refused(through, npz, overrides, message):
    with pytest.raises(CheckpointError, match=message):
        train_and_evaluate(tiny_config(npz, **overrides), through[1])


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_one_changed_pixel_is_refused(split, tmp_path):
    data = write_npz(tmp_path / "data.npz", (200, 6, 4, 3))
    config = tiny_config(data, num_epochs=1, batch_size=128)
    del config.phases["deferred"]
    train_and_evaluate(config, tmp_path / "run")
    arrays = dict(np.load(data))
    arrays[f"{split}_images"][7, 1, 2, 0] ^= 1
    np.savez(data, **arrays)
    config.num_epochs = 2
    with pytest.raises(
        CheckpointError, match=r"data; a new .*init_from.*; differing: dataset_content"
    ):
        train_and_evaluate(config, tmp_path / "run")


@pytest.mark.slow
def test_a_run_says_what_has_changed_since(npz, tmp_path, monkeypatch):
    """Then it will not be the same to the last bit."""
    config = tiny_config(npz, num_epochs=3)
    for epochs, changes in ((3, False), (4, False), (5, True)):
        config.num_epochs = epochs
        if changes:
            monkeypatch.setattr(provenance, "versions", lambda: {**versions(), "jax": "9.9"})
            monkeypatch.setattr(setup, "cores", lambda: 99)
            config.num_devices = 2
        notes = Notes()
        train_and_evaluate(config, tmp_path, notes)
        told = [line for line in notes.lines if line.startswith("changed since")]
        assert len(told) == changes
    jax_there = versions()["jax"]
    assert told[0].startswith(
        f"changed since: jax {jax_there} before, 9.9 now; devices 1 before, 2 now; cores "
    )
    assert " before, 99 now; " in told[0]
