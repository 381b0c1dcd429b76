"""The pages under docs/: their code is run, and their tables are complete."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

import purenoise_jax
from docs.draw_batch import COLUMNS, draw
from launch.plan import Plan
from launch.planning import tasks_of_table, training_pflop
from launch.tables import TABLES
from purenoise_jax import main as cli
from purenoise_jax.analysis.__main__ import MORE
from purenoise_jax.analysis.figures import FIGURES
from purenoise_jax.analysis.images import Shown
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.flags import USAGE
from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.config.validation import validate
from purenoise_jax.data.augment.compose import AUGMENTATIONS
from purenoise_jax.data.sources.published_lists import PUBLISHED, Published
from purenoise_jax.data.sources.registry import SOURCES
from purenoise_jax.data.sources.where import WHERE
from purenoise_jax.methods import METHODS, build_recipe
from purenoise_jax.methods.recipe import Recipe, cross_entropy
from purenoise_jax.runtime.errors import INTERRUPTED, TERMINATED, PureNoiseError
from purenoise_jax.training.loop import train_and_evaluate
from tests.docs.pages import DOCS, blocks, names_of, table
from tests.linear_step import STATS
from tests.test_layers import RANK
from tests.tiny import tiny_config, write_npz
from tests.trees import TREES


def test_the_method_of_the_page_is_poly_1_loss_as_in_optax(poly1):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
    target = jnp.eye(3)[jnp.array([0, 1, 2, 0, 1, 2])]
    for epsilon in (-1.0, 0.5, 2.0):
        loss = build_recipe(["poly1"], STATS, {"poly1": {"epsilon": epsilon}}).loss
        for labels in (target, 0.8 * target + 0.2 / 3):
            expected = optax.losses.poly_loss_cross_entropy(logits, labels, epsilon=epsilon)
            np.testing.assert_allclose(loss(logits, labels), expected, rtol=1e-5)
    plain = build_recipe(["poly1"], STATS, {"poly1": {"epsilon": 0.0}}).loss
    np.testing.assert_array_equal(plain(logits, target), cross_entropy(logits, target))


def test_it_trains_and_its_argument_is_a_field(poly1, tmp_path):
    npz = write_npz(tmp_path / "tiny.npz")
    config = tiny_config(npz, num_epochs=1, **{"optimizer.milestones": (), "checkpoint.epochs": ()})
    config.phases = ConfigDict({"initial": make_phase(0, ("poly1",))})
    assert config.method.poly1.epsilon == 2.0
    config.method.poly1.epsilon = 1.0
    validate(config)
    train_and_evaluate(config, tmp_path / "run")


@pytest.mark.parametrize("page", ["add_a_method.md", "architecture.md"])
def test_every_field_of_a_recipe_is_on_the_page(page):
    named = [name for cells in table(DOCS / page, "field") for name in names_of(cells[0])]
    told = (DOCS / page).read_text()
    for field in dataclasses.fields(Recipe):
        assert field.name in named or f"`{field.name}`" in told, field.name


def test_the_phase_of_the_page_is_legal():
    config = default_config()
    config.optimizer.milestones = (160, 180)
    names = {"config": config, "make_phase": make_phase}
    exec(compile(blocks(DOCS / "add_a_method.md", "python")[1], "add_a_method.md", "exec"), names)
    validate(config)
    assert config.phases.retraining.start_epoch == 200


@pytest.mark.slow
def test_the_program_of_the_page_runs():
    code, in_nnx = blocks(DOCS / "flax_program.md", "python")
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
    # The norm of NNX has the moments of the batch, and then the running ones.
    scope["x"] = scope["images"]
    exec(in_nnx.replace("# in training", "\ntrained = y"), scope)
    natural = np.asarray(scope["x"][~noise])
    expected = (natural - natural.mean((0, 1, 2))) / np.sqrt(natural.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(scope["trained"][~noise], expected, atol=1e-4)
    assert (np.asarray(scope["norm"].mean) != 0).all() and scope["y"].shape == scope["x"].shape


def test_the_defaults_that_differ_from_flax_are_those_it_names():
    ours, theirs = purenoise_jax.BatchNorm(), nn.BatchNorm()
    fields = [f.name for f in dataclasses.fields(theirs) if f.name not in ("parent", "name")]
    assert [f for f in fields if getattr(ours, f) != getattr(theirs, f)] == ["momentum"]
    for norm in (purenoise_jax.DARBatchNorm, purenoise_jax.AuxBatchNorm):
        names = [f.name for f in dataclasses.fields(norm)]
        assert names[: len(fields)] == fields
    said = f"`momentum` is {ours.momentum} (there {theirs.momentum})"
    assert said in " ".join((DOCS / "flax_program.md").read_text().split())


def test_the_papers_tables_are_those_of_the_command():
    rows = table(DOCS / "reproduce.md", "`TABLE`")
    assert [names_of(cells[0]) for cells in rows] == [[name] for name in TABLES]


@pytest.mark.slow
def test_the_papers_tables_cost_what_the_page_says(tmp_path):
    rows = table(DOCS / "reproduce.md", "`TABLE`")
    for (name, entry), cells in zip(TABLES.items(), rows, strict=True):
        # Every seed costs the same.
        tasks = tasks_of_table(entry.make(Plan()), range(1), tmp_path)
        assert f"{4 * sum(map(training_pflop, tasks)):,.0f}" == cells[-1], name


def test_every_source_method_and_figure_is_described():
    for page, header, names in (
        ("data.md", "source", {*SOURCES}),
        ("data.md", "augmentation", {*AUGMENTATIONS}),
        ("methods.md", "name", {*METHODS}),
        ("analysis.md", "`FIGURE`", {*FIGURES, *MORE} - {"all"}),
    ):
        rows = table(DOCS / page, header)
        assert {name for cells in rows for name in names_of(cells[0])} == names, page


def test_the_exit_codes_of_the_page_are_those_of_the_errors():
    rows = table(DOCS / "reliability.md", "exit code")
    listed = {int(code) for cells in rows for code in cells[0].split(",")}
    own = {error.exit_code for error in PureNoiseError.__subclasses__()}
    assert listed == {0, INTERRUPTED, TERMINATED} | own
    for code in sorted(own):
        assert re.search(rf"\b{code} \w", USAGE.partition("exit codes:")[2])


def test_the_folders_of_the_page_have_the_ranks_of_the_layers():
    rows = table(DOCS / "architecture.md", "rank")
    told = {
        cells[1].strip("`").removesuffix("/").removesuffix(".py"): int(cells[0]) for cells in rows
    }
    assert told == {folder: rank for folder, rank in RANK.items() if folder}


def test_the_picture_sorts_a_batch_by_class_and_frames_its_noise():
    images = np.random.default_rng(0).random((5, 4, 4, 1), np.float32)
    labels, noise = np.array([2, 0, 1, 1, 0]), np.array([1, 0, 1, 0, 0], bool)
    figure = draw(Shown(0, 0, ("open",), images, labels, noise, np.arange(5)))
    tiles = figure.axes[:5]
    assert len(figure.axes) == COLUMNS
    assert [tile.get_title() for tile in tiles] == ["0", "0", "1", "1", "2"]
    assert [tile.axison for tile in tiles] == [False, False, False, True, True]
    assert np.array_equal(tiles[3].images[0].get_array(), images[2, ..., 0])


def test_the_page_has_every_published_data_set_with_the_place_of_its_files():
    rows = table(DOCS / "data.md", "config")
    assert [names_of(cells[0]) for cells in rows] == [[name] for name in TREES]
    for cells in rows:
        (name,) = names_of(cells[0])
        config = cli.parse(["main", f"--config={name}"]).config
        assert cells[1] == WHERE[config.data.name]
        assert config.data.source in names_of(cells[2])


def test_the_counts_of_published_lists_are_those_that_are_compared():
    found = {}
    for name, images, classes, sizes in table(DOCS / "data.md", "`data.name`"):
        numbers = re.findall(r"[\d,]+\d|\d", sizes)
        both = [int(number.replace(",", "")) for number in (images, classes, *numbers)]
        found[name.strip("`")] = Published(*both)
    assert found == PUBLISHED
