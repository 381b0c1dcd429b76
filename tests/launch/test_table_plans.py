"""Tables of the papers: the runs of their cells, their cost, and which of them are shared."""

import numpy as np
import pytest

from launch import planning, reproduce
from launch.noise_papers import CUI
from launch.plan import MINI_MODEL, Plan
from launch.planning import (
    Task,
    cut_counts,
    tasks_of,
    tasks_of_cell,
    tasks_of_table,
    training_pflop,
)
from launch.tables import TABLES, make_table
from purenoise_jax.config.resolve import resolved
from purenoise_jax.config.validation import validate
from purenoise_jax.data.longtail import fingerprint, read_indices
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import METHODS, as_method, build_recipe
from purenoise_jax.runtime.errors import ConfigError
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow


PLANS = {
    "paper": Plan(),
    "rescience": Plan(preset="rescience"),
    "short": Plan(epochs=40, model="resnet32"),
    "quick": Plan(epochs=5, quick=True),
    "two epochs": Plan(epochs=2),
}


# Epochs of training in the sources.
LENGTHS = (200, 300, 320, 400, 520, 591, 684)


def in_second_stage(phase):
    return any(as_method(METHODS[name]).phase.start >= 1 for name in phase.methods)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("name", TABLES)
def test_every_run_of_every_table_can_start(name, plan, tmp_path):
    table = make_table(name, plan)
    assert len({(c.setting, c.method) for c in table.cells}) == len(table.cells)
    tasks = tasks_of_table(table, range(2), tmp_path)
    runnable = [cell for cell in table.cells if cell.config is not None]
    by_cell = [tasks_of_cell(cell, seed, tmp_path) for cell in runnable for seed in (0, 1)]
    last = [tasks_for_one[-1].workdir for tasks_for_one in by_cell]
    assert len(set(last)) == len(last), "no two cells are the same run"
    lengths = {max(plan.scaled(epochs), 1) for epochs in LENGTHS}
    for task in tasks:
        validate(task.config)
        # A second stage follows the epochs that the source has, in proportion to the plan.
        phases = task.config.phases.values()
        second = [p.start_epoch for p in phases if in_second_stage(p)]
        assert (second or [task.config.num_epochs])[0] in lengths
        # One that takes over all epochs of another trains nothing.
        assert (training_pflop(task) > 0) == (task.first_epoch < task.config.num_epochs)
    # One folder is one run: nothing that differs shares one.
    everything = [task for tasks_for_one in by_cell for task in tasks_for_one]
    pairs = {(t.workdir, t.config.to_json()) for t in everything}
    assert len(pairs) == len({workdir for workdir, _ in pairs}) == len(tasks)
    # A run comes after the run that it starts from.
    folders = [str(t.workdir) for t in tasks]
    for position, task in enumerate(tasks):
        if task.config.init_from:
            assert folders.index(task.config.init_from) < position


@pytest.mark.parametrize("name", TABLES)
def test_no_run_is_refused_for_its_data(name, tmp_path):
    level = np.full(3, 0.5, np.float32)
    known = set()
    for task in tasks_of_table(TABLES[name].make(Plan()), range(1), tmp_path):
        config = resolved(task.config)
        counts = cut_counts(config)
        for phase in config.phases.values():
            given = {m: dict(config.method.get(m, {})) for m in phase.methods}
            key = phase.methods, str(given), counts.tobytes()
            if key not in known:
                known.add(key)
                build_recipe(phase.methods, DataStats(counts, (32, 32, 3), *[level] * 6), given)


def test_what_the_cells_train():
    def config(name, setting, method, plan=PLANS["paper"]):
        return next(
            c.config
            for c in TABLES[name].make(plan).cells
            if (c.setting, c.method) == (setting, method)
        )

    aux = config("norms", "CIFAR-10-LT, wrn28_10", "Auxiliary BN", PLANS["rescience"])
    assert aux.model.norm == "aux_bn" and aux.model.noise_grad == "auto"
    dar = config("norms", "CIFAR-10-LT, wrn28_10", "DAR-BN", PLANS["rescience"])
    assert dar.model.norm == "dar_bn" and dar.model.noise_grad == "full_stop"
    assert config("norms", "CIFAR-10-LT, resnet32", "DAR-BN").data.augment == ("flip", "crop")
    grid = config("noise_grad", "Standard BN, noise in raw space", "full_stop")
    assert (grid.model.norm, grid.model.noise_grad) == ("bn", "full_stop")
    # Raw noise differs only in the space, so that plain training is shared.
    assert grid.method.open.space == "raw" and grid.data.normalize == "auto"
    added = config("additive", "Standard BN", "std 75/255", PLANS["rescience"])
    assert added.method.open.additive_std == 75 / 255 and added.method.open.space == "pixel"
    assert config("additive", "DAR-BN", "pure noise").method.open.additive_std == 0
    assert config("noise_ratio", "OPeN", "delta 5/6").method.open.delta == pytest.approx(5 / 6)
    assert config("batch_size", "batch 32", "DRS").batch_size == 32
    cui = config("subsets", "Cui et al.", "ERM")
    assert cui.data.indices == str(CUI)
    full = config("normalization", "whole training set", "OPeN", PLANS["rescience"])
    assert full.data.normalize == "full_train" and full.data.normalize_mean == ()


def test_the_shipped_subset_is_the_published_one():
    indices = read_indices(str(CUI), 50_000)
    assert len(indices) == 12_406
    assert fingerprint(indices).startswith("4817fc3bcc5de2f6fd09733378408007a895af0da8de2631")


def test_plain_training_is_shared_by_all_runs_that_start_from_it(tmp_path):
    table = TABLES["norms"].make(Plan(preset="rescience"))
    tasks = tasks_of_table(table, [0], tmp_path)
    # The plain runs of three networks, and OPeN with three norms from each.
    assert len(tasks) == 12
    plain = [t for t in tasks if not t.config.init_from]
    assert len(plain) == 3
    assert all(t.config.model.norm == "dar_bn" for t in plain)
    assert all(t.config.checkpoint.epochs == (160,) for t in plain)
    for task in tasks:
        if task.config.init_from:
            assert task.first_epoch == task.config.init_epoch == 160
    # The same run as the ERM cells of the main table.
    main = {
        t.workdir
        for t in tasks_of_table(TABLES["main"].make(Plan(preset="rescience")), [0], tmp_path)
    }
    wide = {t.workdir for t in plain if t.config.model.name == "wrn28_10"}
    assert len(wide) == 2 and wide <= main


def test_cost_in_pflop(tmp_path):
    (erm,) = tasks_of(Plan().config("CIFAR-10-LT", "erm"), 0, tmp_path)
    assert training_pflop(erm) == pytest.approx(78, abs=0.5)
    _, drs = tasks_of(Plan().config("CIFAR-10-LT", "drs"), 0, tmp_path)
    assert training_pflop(drs) == pytest.approx(78 / 5, abs=0.1)
    (noisy,) = tasks_of(Plan().config("CIFAR-10", "append"), 0, tmp_path)
    (balanced,) = tasks_of(Plan().config("CIFAR-10", "erm"), 0, tmp_path)
    assert training_pflop(noisy) == pytest.approx(1.25 * training_pflop(balanced))
    quick = Plan(epochs=5, quick=True).config("CIFAR-10-LT", "erm")
    (small,) = tasks_of(quick, 0, tmp_path)
    assert training_pflop(small) < 1e-3


def test_a_cosine_that_is_set_has_no_drops(tmp_path):
    arguments = ["methods", "--set", "optimizer.schedule=cosine", "--epochs", "40"]
    plan = reproduce.make_plan(reproduce.parser().parse_args(arguments))
    config = plan.config("CIFAR-10-LT", "erm")
    validate(config)
    assert config.optimizer.schedule == "cosine" and config.optimizer.milestones == ()


def test_fields_that_change_a_result_change_the_workdir(tmp_path):
    def folder(config):
        return tasks_of(config, 0, tmp_path)[-1].workdir

    fresh, copy = (
        Plan(overrides={"init_aux_bn": how}).config("CIFAR-10-LT", "open", model__norm="aux_bn")
        for how in ("fresh", "copy")
    )
    assert folder(fresh) != folder(copy)
    files = [tmp_path / "a/list.txt", tmp_path / "b/list.txt"]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_text(f"{number}\n")
    for field in ("indices", "train_list", "val_list", "test_list"):
        files[1].write_text("1\n")
        named = ({f"data__{field}": str(file)} for file in files)
        one, two = (Plan().config("CIFAR-10-LT", "erm", **given) for given in named)
        assert folder(one) != folder(two)
        files[1].write_text("0\n")
        assert folder(one) == folder(two), "the path does not matter"
    weights = {"model__pretrained": str(files[0])}
    taken = Plan().config("CIFAR-10-LT", "erm", **weights)
    first = folder(taken)
    assert first != folder(Plan().config("CIFAR-10-LT", "erm"))
    files[0].write_text("1\n")
    assert folder(taken) != first


def test_two_runs_in_one_workdir_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "config_hash", lambda config: "")
    with pytest.raises(ConfigError, match="would be the workdir of two runs"):
        tasks_of_table(make_table("noise_ratio", Plan()), [0], tmp_path)


def test_a_task_without_summary_is_not_finished(tmp_path):
    assert Task(tiny_config("x"), tmp_path).summary is None


@pytest.mark.parametrize(
    "name", [name for name, entry in TABLES.items() if ".studies." in entry.make.__module__]
)
def test_two_cores_finish_the_mini_tier_of_a_study_in_half_an_hour(name, tmp_path):
    # A core of the machine of docs/studies.md trains with 0.8e-5 PFLOP/s, and takes 12 s to start.
    entry = TABLES[name]
    plan = Plan(epochs=entry.mini_epochs, model=MINI_MODEL, mini=True)
    tasks = tasks_of_table(make_table(name, plan), range(entry.mini_seeds), tmp_path)
    assert sum(training_pflop(task) / 0.8e-5 + 12 for task in tasks) < 2 * 1800
