"""The notebook under docs/ runs, and its two programs compute the same."""

import json
import os
import re
import sys

import pytest

from tests.docs.pages import DOCS

PATH = DOCS / "notebooks/drop_in.ipynb"
# A cell put at the end, which prints what the test compares.
PROBE = """
import json
print(json.dumps({
    "linen": {f"{place} {name}": np.asarray(value).tolist()
              for place, of_layer in batch_stats.items() for name, value in of_layer.items()},
    "nnx": {f"DARBatchNorm_{place} {name}": np.asarray(getattr(norm.norm, name)[...]).tolist()
            for place, norm in enumerate(model.norms) for name in ("mean", "var")},
    "losses": [np.asarray(linen_losses).tolist(), np.asarray(nnx_losses).tolist()],
    "noise": [int(sum(noise.sum() for _, _, noise in batches(epoch)))
              for epoch in (DEFERRED - 1, DEFERRED)],
    "drawn": np.bincount(np.concatenate([y for _, y, _ in batches(DEFERRED)])).tolist(),
}))
"""


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def printed(cell):
    texts = [o["text"] if "text" in o else o["data"]["text/plain"] for o in cell["outputs"]]
    return "".join("".join(text) for text in texts)


def test_its_stored_outputs_are_those_of_one_run_from_top_to_bottom():
    cells = code(json.loads(PATH.read_text()))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}
    assert {output.get("name") for output in outputs} == {"stdout", None}
    assert all(set(output.get("data", {})) <= {"text/plain"} for output in outputs)
    assert not re.search(r"/(?:home|root|tmp|work|Users)\b", PATH.read_text())
    assert len(PATH.read_text()) < 30_000


def test_the_first_cell_imports_both_halves_of_the_method_and_the_norm():
    first = "".join(code(json.loads(PATH.read_text()))[0]["source"])
    for name in ("balanced_indices", "replace_with_noise", "DARBatchNorm"):
        assert re.search(rf"^ +{name},$", first, re.MULTILINE)


@pytest.mark.slow
def test_it_runs_and_linen_and_nnx_have_the_same_running_statistics(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    stored = nbformat.read(PATH, as_version=4)
    notebook = nbformat.read(PATH, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    *cells, probe = code(notebook)
    for new, old in zip(cells, code(stored), strict=True):
        # Numbers may differ from machine to machine.
        words = [re.sub(r"[-+\d.e]*\d|\s+", " ", printed(cell)) for cell in (new, old)]
        assert words[0].split() == words[1].split()
    found = json.loads("".join(output["text"] for output in probe["outputs"]))
    assert found["linen"].keys() == found["nnx"].keys() and len(found["linen"]) == 4
    for name, values in found["linen"].items():
        assert found["nnx"][name] == pytest.approx(values, rel=1e-6, abs=1e-6)
        # The running statistics have left their start.
        assert max(abs(value - name.endswith("var")) for value in values) > 0.1
    linen, nnx = found["losses"]
    assert nnx == pytest.approx(linen, rel=1e-5, abs=1e-6) and sum(linen[200:240]) < sum(linen[:40])
    before, during = found["noise"]
    assert before == 0 and during > 20
    # The rarest class has 2 of 366 images.
    assert min(found["drawn"]) > 15
