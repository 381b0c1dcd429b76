"""Small data sets in the exact layouts in which the published ones are distributed.

Each function writes one below a folder, and returns the config fields that name its files.
"""

import csv
import gzip
import os
import pickle
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

Fields = dict[str, str]
# The number of training images of each class, where a layout leaves it open.
COUNTS = (6, 4, 3)
IDX = {
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}


def pixels(name: str, height: int, width: int, channels: int = 3) -> np.ndarray:
    """An image that follows from the name of its file."""
    rng = np.random.default_rng(zlib.crc32(os.fsencode(name)))
    coarse = rng.integers(0, 256, (2, 2, channels), np.uint8)
    return np.kron(coarse, np.ones((height // 2, width // 2, 1), np.uint8))


def save(path: Path, height: int = 8, width: int = 8, grey: bool = False, name: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels(name or path.name, height, width))
    image = image.convert("L") if grey else image
    image.save(path, "PNG" if path.suffix == ".png" else "JPEG")
    return path


def write_lists(root: Path, name: str, splits: dict[str, list[tuple[str, int]]]) -> Fields:
    """Photos of several sizes, and lists beside them."""
    fields = {"data.path": str(root / "images")}
    for split, rows in splits.items():
        for i, (path, _) in enumerate(rows):
            save(root / "images" / path, 20 + 2 * (i % 3), 24 - 4 * (i % 2))
        file = root / f"{name}_{split}.txt"
        file.write_text("".join(f"{path} {label}\n" for path, label in rows))
        fields[f"data.{split}_list"] = str(file)
    return fields


def per_class(counts: Iterable[int], form: str) -> list[tuple[str, int]]:
    """Rows of `counts[k]` images of class k; the form has the fields k and i."""
    return [(form.format(k=k, i=i), k) for k, count in enumerate(counts) for i in range(count)]


def imagenet_lt(root: Path) -> Fields:
    train = per_class(COUNTS, "train/n0144{k:04d}/n0144{k:04d}_{i}.JPEG")
    val = per_class((1, 1, 1), "train/n0144{k:04d}/n0144{k:04d}_9{i}.JPEG")
    test = per_class((2, 2, 2), "val/n0144{k:04d}/ILSVRC2012_val_000{k}{i:04d}.JPEG")
    return write_lists(root, "ImageNet_LT", {"train": train, "val": val, "test": test})


def places_lt(root: Path) -> Fields:
    train = per_class(COUNTS, "train/place_{k}/{i:08d}.jpg")
    val = per_class((1, 1, 1), "train/place_{k}/9{i:07d}.jpg")
    test = per_class((2, 2, 2), "val/place_{k}/Places365_val_{k}{i:07d}.jpg")
    return write_lists(root, "Places_LT", {"train": train, "val": val, "test": test})


def inaturalist18(root: Path) -> Fields:
    train = per_class(COUNTS, "train_val2018/Aves/{k}/{i:032x}.jpg")
    test = per_class((2, 2, 2), "train_val2018/Aves/{k}/f{i:031x}.jpg")
    fields = write_lists(root, "iNaturalist18", {"train": train, "val": test})
    fields["data.test_list"] = fields.pop("data.val_list")
    return fields


def celeba5(root: Path) -> Fields:
    """The lists have the folders of their authors, and some images in two classes."""
    splits = {
        "train": [(f"{i:06d}.jpg", i % 5) for i in range(1, 14)],
        "val": [(f"{i:06d}.jpg", i % 5) for i in range(20, 25)] + [("000024.jpg", 1)],
        "test": [(f"{i:06d}.jpg", i % 5) for i in range(30, 39)] + [("000001.jpg", 4)],
    }
    fields = write_lists(root, "celebA", splits)
    for split in splits:
        file = Path(fields[f"data.{split}_list"]).rename(root / f"celebA_{split}_orig.txt")
        fields[f"data.{split}_list"] = str(file)
        lines = file.read_text().splitlines()
        file.write_text("".join(f"/home/author/CelebA/image64/{line}\n" for line in lines))
    return fields


def tiny_imagenet(root: Path) -> Fields:
    tree = root / "tiny-imagenet-200"
    wnids = ("n02124075", "n01443537", "n04067472")
    for k, wnid in enumerate(wnids):
        for i in range(4):
            # Some of the photos are grey.
            save(tree / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", 16, 16, grey=i == 3)
        (tree / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t15\t15\n")
        save(tree / "test" / "images" / f"test_{k}.JPEG", 16, 16)
    rows = [(f"val_{i}.JPEG", wnids[i % 3]) for i in range(6)]
    for name, _ in rows:
        save(tree / "val" / "images" / name, 16, 16)
    lines = "".join(f"{name}\t{wnid}\t0\t0\t10\t12\n" for name, wnid in rows)
    (tree / "val" / "val_annotations.txt").write_text(lines)
    (tree / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (tree / "words.txt").write_text("".join(f"{wnid}\tan animal, a thing\n" for wnid in wnids))
    return {"data.path": str(tree)}


def tiered_imagenet(root: Path) -> Fields:
    for split, classes in {
        "train": ("n03", "n01"),
        "val": ("n05",),
        "test": ("n02", "n04"),
    }.items():
        for wnid in classes:
            for i in range(58 + len(split)):
                save(root / split / wnid / f"{wnid}_{i:04d}.png")
    return {"data.path": str(root)}


def python2_array(array: np.ndarray) -> bytes:
    """The part of a pickle, as Python 2 writes it with its last protocol, that makes an array."""
    name = {"uint8": b"u1", "int32": b"i4"}[array.dtype.name]
    shape = b"".join(b"J" + struct.pack("<i", n) for n in array.shape)
    order = b"|" if name == b"u1" else b"<"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01("
        + shape
        + b"tcnumpy\ndtype\nU\x02" + name + b"K\x00K\x01\x87R(K\x03U\x01" + order
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", array.nbytes) + array.tobytes() + b"tb"
    )  # fmt: skip


def python2_text(text: str) -> bytes:
    return b"U" + bytes([len(text)]) + text.encode()


def tiered_imagenet_pickles(
    root: Path, splits: dict[str, tuple[str, ...]] | None = None, protocol: int = 2
) -> Fields:
    """The files of the authors; each class has 58 images and as many more as its split has letters.

    The images of the classes come in turn. Protocol 2 is that of Python 2, others are Python 3's.
    """
    splits = splits or {"train": ("dog", "crane"), "val": ("owl",), "test": ("crane", "cat, tom")}
    for split, names in splits.items():
        count = 58 + len(split)
        numbers = np.tile(np.arange(len(names), dtype=np.int32), count)
        arrays = []
        for i, k in enumerate(numbers.tolist()):
            file = save(root / "once.png", 8, 8, name=f"{split}{k}_{i}")
            # OpenCV makes columns.
            arrays.append(np.frombuffer(file.read_bytes(), np.uint8)[:, None])
        content = {"label_specific": numbers, "label_general": numbers * 0,
                   "label_specific_str": [*names], "label_general_str": ["animal"]}  # fmt: skip
        if protocol == 2:
            images = b"\x80\x02](" + b"".join(map(python2_array, arrays)) + b"e."
            labels = b"\x80\x02}("
            for key, value in content.items():
                labels += python2_text(key)
                if isinstance(value, np.ndarray):
                    labels += python2_array(value)
                else:
                    labels += b"](" + b"".join(map(python2_text, value)) + b"e"
            labels += b"u."
        else:
            images, labels = pickle.dumps(arrays, protocol), pickle.dumps(content, protocol)
        (root / f"{split}_images_png.pkl").write_bytes(images)
        (root / f"{split}_labels.pkl").write_bytes(labels)
    (root / "once.png").unlink()
    return {"data.path": str(root)}


def cinic10(root: Path) -> Fields:
    for split in ("train", "valid", "test"):
        for name in ("airplane", "bird", "truck"):
            for i in range(4):
                save(root / "CINIC-10" / split / name / f"{name}-{split}-{i}.png")
    (root / "CINIC-10" / "README.md").touch()
    return {"data.path": str(root / "CINIC-10")}


def eurosat(root: Path) -> Fields:
    for k, name in enumerate(("AnnualCrop", "Forest", "SeaLake")):
        for i in range(1, 11 + k):
            save(root / "EuroSAT_RGB" / name / f"{name}_{i}.jpg")
    return {"data.path": str(root)}


def svhn(root: Path) -> Fields:
    from scipy.io import savemat

    for split, count in (("train", 40), ("test", 20)):
        images = [pixels(f"{split}{i}", 8, 8) for i in range(count)]
        # The digit 0 has the label 10.
        labels = np.array([[(i % 10) or 10] for i in range(count)], np.uint8)
        content = {"X": np.stack(images, axis=-1), "y": labels}
        savemat(root / f"{split}_32x32.mat", content, do_compression=True)
    return {"data.path": str(root)}


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def fashion_mnist(root: Path) -> Fields:
    for split, count in (("train", 40), ("t10k", 20)):
        images = np.stack([pixels(f"{split}{i}", 8, 8, 1)[..., 0] for i in range(count)])
        labels = np.arange(count) % 10
        (root / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        packed = gzip.compress(idx_bytes(labels))
        (root / f"{split}-labels-idx1-ubyte.gz").write_bytes(packed)
    return {"data.path": str(root)}


def _table(root: Path, header: list[str], rows: list[list[str]], images: Path) -> Fields:
    with open(root / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return {"data.path": str(images), "data.train_list": str(root / "train.csv")}


def aptos(root: Path) -> Fields:
    rows = [[f"{i:012x}", str(i % 5)] for i in range(25)]
    for code, _ in rows:
        save(root / "train_images" / f"{code}.png", 20, 28)
    return _table(root, ["id_code", "diagnosis"], rows, root / "train_images")


def isic2020(root: Path) -> Fields:
    header = ["image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge",
              "diagnosis", "benign_malignant", "target"]  # fmt: skip
    rows = [
        [f"ISIC_{i:07d}", f"IP_{i // 2:07d}", "female", "45.0", "head/neck", "unknown"]
        + (["malignant", "1"] if i % 4 == 0 else ["benign", "0"])
        for i in range(20)
    ]
    for name, *_ in rows:
        save(root / "jpeg" / "train" / f"{name}.jpg", 20, 28)
    return _table(root, header, rows, root / "jpeg" / "train")


# Config file -> layout.
TREES: dict[str, Callable[[Path], Fields]] = {
    "imagenet_lt": imagenet_lt,
    "places_lt": places_lt,
    "inaturalist18": inaturalist18,
    "celeba5": celeba5,
    "tiny_imagenet_lt": tiny_imagenet,
    "tiered_imagenet_lt": tiered_imagenet,
    "cinic10_lt": cinic10,
    "eurosat_lt": eurosat,
    "svhn_lt": svhn,
    "fashion_mnist_lt": fashion_mnist,
    "aptos": aptos,
    "isic2020": isic2020,
}
