"""Trains and evaluates for an epoch, and prints the largest resident set of the process in MB.

`python -m tests.training.feed_memory FOLDER IMAGES FEED` writes the images to a new folder first.
"""

import io
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from purenoise_jax.models import MODELS
from purenoise_jax.training.loop import train_and_evaluate
from tests.tiny import TinyNet, tiny_config

SHAPE = (32, 32, 3)


def image_of(label: int) -> np.ndarray:
    image = np.full(SHAPE, 60 + 100 * label, np.uint8)
    image[label * 9 : label * 9 + 9] += 30
    return image


def sizes(count: int) -> tuple[tuple[str, int], ...]:
    """One test image for every hundred."""
    return (("train", count), ("test", count // 100))


def write_images(path: Path, count: int) -> Path:
    """Writes images of two classes piece by piece."""
    with zipfile.ZipFile(path, "w") as bundle:
        for split, number in sizes(count):
            labels = np.arange(number) % 2
            with bundle.open(f"{split}_labels.npy", "w") as file:
                np.lib.format.write_array(file, labels)
            header = {"descr": "|u1", "fortran_order": False, "shape": (number, *SHAPE)}
            with bundle.open(f"{split}_images.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for label in labels:
                    file.write(image_of(label).tobytes())
    return path


def write_jpegs(root: Path, count: int) -> Path:
    """Writes images of two classes as files that all differ, by a comment."""
    for label in range(2):
        buffer = io.BytesIO()
        Image.fromarray(image_of(label)).save(buffer, "JPEG")
        start, rest = buffer.getvalue()[:2], buffer.getvalue()[2:]
        for split, number in sizes(count):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(label, number, 2):
                comment = b"\xff\xfe\x00\x0a" + f"{i:08d}".encode()
                (folder / f"{i:08d}.jpg").write_bytes(start + comment + rest)
    return root


class Coarse(TinyNet):
    """Looks at every fourth pixel only, so that the images cost more to read than to train on."""

    def __call__(self, images, *rows, **options):
        return super().__call__(images[:, ::4, ::4], *rows, **options)


if __name__ == "__main__":
    folder, count, feed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    folder.mkdir()
    MODELS["tiny"] = Coarse
    if feed == "decoded":
        path, source = write_jpegs(folder / "images", count), "folder"
    else:
        path, source = write_images(folder / "images.npz", count), "npz"
    config = tiny_config(
        path,
        num_epochs=1,
        batch_size=250,
        **{"data.source": source, "data.feed": feed, "data.workers": 2, "data.augment": ()},
        **{"eval.batch_size": 250},
    )
    del config.phases["deferred"]
    train_and_evaluate(config, folder / "run")
    # Not getrusage's, which begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1000)
