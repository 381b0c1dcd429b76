"""Every command of docs/tutorial.md, in its order, on generated images with every oddity.

The commands are those of an installed wheel, and nothing of the checkout is seen.
"""

import csv
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from purenoise_jax.runtime.files import read_json
from tests.docs.pages import DOCS, blocks
from tests.encoded import png16
from tests.wheels import environment

pytestmark = pytest.mark.slow

# Twelve classes, in sizes that the folds of small classes have to cope with.
COUNTS = (40, 30, 22, 16, 12, 9, 7, 5, 4, 3, 2, 1)
FORMATS = ("png", "JPEG", "webp", "gif", "bmp", "tiff")
# The field that the first message names.
SKIP = "--config.data.on_bad=skip"


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
            suffix = FORMATS[i % 6] if image.mode != "RGBA" else "png"
            image.save(folder / f"class {label:02d}/größe {i}.{suffix}")
    (folder / "class 00/notes.txt").write_text("taken in June")
    (folder / ".DS_Store").write_bytes(b"\0")


def add_oddities(folder: Path) -> list[str]:
    """Images as they come: rotated by EXIF, CMYK, 16 bits, twice; and four that are none.

    Returns:
        The places of the four.
    """
    rng, first, second = np.random.default_rng(0), folder / "class 00", folder / "class 01"
    image = Image.open(first / "größe 1.JPEG")
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(first / "turned.jpg", exif=exif)
    image.convert("CMYK").save(first / "print.jpg")
    (first / "scan.png").write_bytes(png16(rng.integers(0, 65536, (30, 20, 3)).astype(np.uint16)))
    for i in range(6):
        shutil.copy(first / "größe 0.png", second / f"copy {i}.png")
    damaged = (first / "größe 1.JPEG").read_bytes()
    (first / "damaged.jpg").write_bytes(damaged[: len(damaged) // 2])
    (second / "phone.heic").write_bytes(b"x")
    (second / "link.png").symlink_to("nowhere")
    (folder / "class of none").mkdir()
    return ["class 00/damaged.jpg", "class 01/phone.heic", "class 01/link.png", "class of none"]


def test_a_newcomer_gets_from_photos_to_a_table_of_predictions(installed, tmp_path):
    photos, new = tmp_path / "photos", tmp_path / "new"
    write_photos(photos, COUNTS)
    bad = add_oddities(photos)
    write_photos(new, (3, 2))
    add_oddities(new)
    path = f"{installed}{os.pathsep}{os.environ['PATH']}"
    lines = [line for block in blocks(DOCS / "tutorial.md", "bash") for line in block.splitlines()]
    assert lines[0] == "pip install ." and len(lines) == 6
    failed, printed = [], []
    for line in lines[1:]:
        # The page's schedule takes long.
        command = line.replace("images:path=photos", "images:path=photos,epochs=2")
        command = re.sub(r"--methods \S+ --seeds 3", "--methods erm,drs --seeds 1", command)
        while True:
            # What a first start has named holds for the next commands.
            more = [SKIP] if failed and "images:path" in command else []
            done = subprocess.run(
                [*shlex.split(command), *more], cwd=tmp_path, capture_output=True, text=True,
                env={**environment(), "PATH": path, "JAX_PLATFORMS": "cpu"}, timeout=600,
            )  # fmt: skip
            printed.append(done.stdout + done.stderr)
            if not done.returncode or (" predict " in command and done.returncode == 3):
                break
            failed.append(done.stderr)
            assert len(failed) == 1, f"{command}\n{printed[-1]}"
    # One start fails; its message names all faults, one base for all, and the field to go on with.
    (message,) = failed
    assert message.startswith(f"error: photos: {len(bad)} faults: ") and message.count("\n") == 1
    assert all(f" {place}: " in message for place in bad), message
    assert SKIP.removeprefix("--config.") in message
    shared = r"\d+ of \d+ validation images (is a training image|are training images) too"
    assert re.search(shared, printed[1]), printed[1]
    summary = read_json(tmp_path / "runs/photos/summary.json")
    assert summary["shown"] == "val" and len(summary["class_names"]) == 12
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # Those of the oddities that are images are among them.
    assert len(rows) == 5 + 3 + 6
    assert {row["label"] for row in rows} == {"class 00", "class 01"}
    assert "3 images were left out; the table has all others" in printed[-2]
    for row in rows:
        shares = [float(row[f"p_class {label:02d}"]) for label in range(12)]
        assert abs(sum(shares) - 1) < 1e-5 and float(row["probability"]) == max(shares)
    assert (tmp_path / "runs/compared/tables/comparison.md").exists()
    assert (tmp_path / "insects.stablehlo.md").exists()
