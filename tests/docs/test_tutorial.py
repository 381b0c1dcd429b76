"""Every command of docs/tutorial.md, in its order, on generated images."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from purenoise_jax.runtime.files import read_json
from tests.docs.pages import DOCS, blocks

pytestmark = pytest.mark.slow

ROOT = DOCS.parent
# Twelve classes, in sizes that the folds of small classes have to cope with.
COUNTS = (40, 30, 22, 16, 12, 9, 7, 5, 4, 3, 2, 1)


def write_photos(folder: Path, counts: tuple[int, ...]) -> None:
    """Patches of a colour for each class, in several sizes, formats, modes and names."""
    rng = np.random.default_rng(len(counts))
    for label, count in enumerate(counts):
        (folder / f"class {label:02d}").mkdir(parents=True)
        for i in range(count):
            sides = rng.integers(20, 60, 2)
            pixels = rng.integers(0, 60, (*sides, 3)) + np.array([label * 15, 100, 190 - label * 9])
            image = Image.fromarray(pixels.astype(np.uint8))
            if i % 5 == 3:
                image = image.convert("L")
            if i % 5 == 4:
                image = image.convert("RGBA")
            suffix = ("png", "JPEG", "webp")[i % 3] if image.mode != "RGBA" else "png"
            image.save(folder / f"class {label:02d}/größe {i}.{suffix}")
    (folder / "class 00/notes.txt").write_text("taken in June")
    (folder / ".DS_Store").write_bytes(b"\0")


def test_a_newcomer_gets_from_photos_to_a_table_of_predictions(tmp_path):
    write_photos(tmp_path / "photos", COUNTS)
    write_photos(tmp_path / "new", (3, 2))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    commands = [
        line for block in blocks(DOCS / "tutorial.md", "bash") for line in block.splitlines()
    ]
    assert len(commands) == 5
    for command in commands:
        # The page's schedule takes long.
        short = command.replace("images:path=photos", "images:path=photos,epochs=2")
        short = re.sub(r"--methods \S+ --seeds 3", "--methods erm,drs --seeds 2", short)
        program = [sys.executable, *shlex.split(short)[1:]]
        done = subprocess.run(
            program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    summary = read_json(tmp_path / "runs/photos/summary.json")
    assert summary["shown"] == "val" and len(summary["class_names"]) == 12
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert {row["label"] for row in rows} == {"class 00", "class 01"}
    for row in rows:
        shares = [float(row[f"p_class {label:02d}"]) for label in range(12)]
        assert abs(sum(shares) - 1) < 1e-5 and float(row["probability"]) == max(shares)
    assert (tmp_path / "runs/compared/tables/comparison.md").exists()
    assert (tmp_path / "insects.stablehlo.md").exists()
