"""The front page is short, and says what is there."""

import re

import jax
import numpy as np

from purenoise_jax import main as cli
from purenoise_jax.config.resolve import resolved
from purenoise_jax.data.sources.registry import SOURCES
from purenoise_jax.methods import METHODS
from purenoise_jax.models import MODELS, NORMS
from purenoise_jax.training.build import build, run_options
from purenoise_jax.training.records import header_lines
from tests.docs.pages import DOCS, README, blocks, commands, names_of

TEXT = README.read_text()


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 120


def test_its_layer_takes_the_place_of_batch_norm():
    (code,) = blocks(README, "python")
    scope: dict = {}
    exec(code, scope)
    images = np.random.default_rng(0).random((8, 6, 6, 3), np.float32)
    net, noise = scope["Net"](), np.arange(8) < 2
    variables = net.init(jax.random.key(0), images, train=False)
    _, updated = net.apply(variables, images, noise, mutable=["batch_stats"])
    _, natural = net.apply(variables, images[2:], mutable=["batch_stats"])
    assert set(updated["batch_stats"]["DARBatchNorm_0"]) == {"mean", "var"}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updated, natural)

    other: dict = {}
    assert "DARBatchNorm(" in code and ")(x, noise_mask)" in code
    exec(
        code.replace("DARBatchNorm(", "nn.BatchNorm(").replace(")(x, noise_mask)", ")(x)"),
        other,
    )
    theirs = {
        kind: {layer.replace("DARBatchNorm", "BatchNorm"): tree for layer, tree in layers.items()}
        for kind, layers in variables.items()
    }
    np.testing.assert_allclose(
        other["Net"]().apply(theirs, images, train=False),
        net.apply(variables, images, train=False),
        rtol=1e-5,
    )


def test_the_first_command_prints_its_header(tmp_path):
    first = next(
        words for words in commands(README) if words[:3] == ["python", "-m", "purenoise_jax.main"]
    )
    config = cli.parse(["main", *first[3:]]).config
    experiment = build(config)
    header = header_lines(run_options(resolved(config)), tmp_path, experiment, experiment.init())
    (output,) = blocks(README, "text")
    printed = dict(re.findall(r"^(\w+) {2,}(.*)$", output, re.MULTILINE))
    assert printed and all(header[label] == value for label, value in printed.items())
    assert "rarest fifth" in output and output.rstrip().endswith("runs/digits/report.html")


def test_its_table_of_what_is_inside_is_complete():
    section = TEXT.partition("## What is inside")[2]
    rows = dict(re.findall(r"^\| \[?(\w+)\S* \| (.*) \|$", section, re.MULTILINE))
    assert set(names_of(rows["methods"])) == set(METHODS)
    assert set(names_of(rows["norms"])) == set(NORMS)
    # Tests and fault injection have networks of their own.
    assert set(names_of(rows["models"])) == set(MODELS) - {"tiny", "one_block"}
    assert set(names_of(rows["data"])) == set(SOURCES)


def test_its_results_are_those_of_the_page():
    rows = [line for line in TEXT.splitlines() if "not run yet" in line]
    assert len(rows) == 3 and all(row in (DOCS / "results.md").read_text() for row in rows)
