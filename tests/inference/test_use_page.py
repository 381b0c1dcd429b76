"""The code of docs/use.md runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from purenoise_jax import export
from tests.docs.pages import DOCS, blocks, inline_code


@pytest.fixture
def page(finished, tmp_path, monkeypatch):
    """The blocks of Python, in a folder with the files that they name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").symlink_to(finished.run.path)
    for name in ("one.png", "two.png"):
        Image.fromarray(finished.images[0]).save(name)
    return blocks(DOCS / "use.md", "python")


def test_the_program_of_the_page_runs(page, finished):
    names: dict = {}
    exec(compile(page[0], "use.md", "exec"), names)
    assert (
        names["names"] == ("0", "1", "2", "3")
        and list(names["classes"]) == [names["names"][names["probabilities"][0].argmax()]] * 2
    )
    assert names["probabilities"].shape == (1, 4) and names["features"].shape == (5, 32)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "block"), [("stablehlo", 1), ("onnx", 2)])
def test_an_export_is_read_as_the_page_does(kind, block, page, finished, classifier):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("jax2onnx")
    assert export.main(["runs/mine", "--to", kind, "--out", f"classifier.{kind}"]) == 0
    names: dict = {"images": finished.images[:7]}
    exec(compile(page[block], "use.md", "exec"), names)
    expected = classifier.predict_proba(finished.images[:7])
    np.testing.assert_allclose(names["probabilities"], expected, atol=1e-5)


@pytest.mark.slow
def test_the_page_names_what_a_description_has(page, finished):
    assert export.main(["runs/mine", "--to", "safetensors", "--out", "classifier.safetensors"]) == 0
    told = json.loads(Path("classifier.safetensors.json").read_text())
    assert "create_model" in told["weights"] and "`create_model`" in (DOCS / "use.md").read_text()
    assert "purenoise_jax.load" in inline_code(DOCS / "use.md")
