"""Files of weights: what is read of a safetensors file, and the conversion of files of PyTorch."""

import builtins
import hashlib
import os

import numpy as np
import pytest

from purenoise_jax.checkpoint import convert_weights
from purenoise_jax.checkpoint.convert_weights import read_tensors
from purenoise_jax.checkpoint.weights_file import read_weights
from purenoise_jax.runtime.errors import ConfigError, DataError

safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra weights")
ARRAYS = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "fc.bias": np.array([0.5, -2], np.float16),
    "bn1.num_batches_tracked": np.array(3),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.save_file(ARRAYS, path)
    return path


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_arrays_are_read_as_they_were_written_and_the_file_is_known_by_its_hash(file):
    found = read_weights(str(file), "model.pretrained")
    assert_same(found.arrays, ARRAYS)
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "not a complete safetensors file"),
        (lambda data: b"", "not a complete safetensors file"),
        (lambda data: b"PK\x03\x04" + data, "convert_weights"),
        (lambda data: data.replace(b'"F32"', b'"F64"'), "not a complete safetensors file"),
        (lambda data: data.replace(b'"F16"', b'"BF16"'), "BF16"),
        (lambda data: data[:-12] + b"\x00\x00\xc0\x7f" + data[-8:], "NaN"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_in_one_line(file, damage, message):
    before = file.read_bytes()
    file.write_bytes(damage(before))
    if message == "NaN":
        safetensors.save_file({**ARRAYS, "x": np.float32([1, np.nan])}, file)
    elif message == "BF16":
        header = before.replace(b'"F16"', b'"BF16"')
        size = int.from_bytes(before[:8], "little") + 1
        file.write_bytes(size.to_bytes(8, "little") + header[8:])
    with pytest.raises(DataError, match=r"^model\.pretrained=") as error:
        read_weights(str(file), "model.pretrained")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_a_path_without_a_plain_file_is_refused_in_one_line(tmp_path, kind):
    path = tmp_path / "x"
    {"missing": lambda: None, "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[kind]()
    with pytest.raises(DataError, match=r"^model\.pretrained=.*cannot be read"):
        read_weights(str(path), "model.pretrained")


def test_without_the_package_the_message_says_how_to_install_it(file, monkeypatch):
    plain = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match="pip install safetensors"):
        read_weights(str(file), "model.pretrained")


class Hostile:
    """Makes a folder when a pickle of it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_pytorch_are_converted_in_both_of_its_formats(torch, tmp_path, zipped):
    tensors = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    tensors["view"] = torch.arange(12.0).reshape(3, 4).T[1:]
    tensors["half"] = torch.tensor([1.5, -3], dtype=torch.bfloat16)
    source, target = tmp_path / "w.pth", tmp_path / "w.safetensors"
    torch.save(tensors, source, _use_new_zipfile_serialization=zipped)
    assert convert_weights.main(["", str(source), str(target)]) == 0
    expected = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    expected["bn1.num_batches_tracked"] = np.array(3)
    assert_same(read_weights(str(target), "x").arrays, expected)
    assert convert_weights.main(["", str(source), str(target)]) == ConfigError.exit_code


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_and_runs_none(torch, tmp_path, zipped):
    source, trap = tmp_path / "w.pth", tmp_path / "trap"
    content = {"fc.bias": torch.zeros(2), "x": Hostile(str(trap))}
    torch.save(content, source, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=r"not a complete file of tensors \(.*mkdir") as error:
        read_tensors(source)
    assert not trap.exists() and "weights_only" not in str(error.value)
    assert convert_weights.main(["", str(source), str(tmp_path / "t")]) == DataError.exit_code
    assert not (tmp_path / "t").exists()


def test_an_entry_of_a_file_is_chosen_by_its_key(torch, tmp_path):
    source = tmp_path / "w.pth"
    torch.save({"state_dict": {"fc.bias": torch.ones(2)}, "epoch": 3}, source)
    assert_same(read_tensors(source, "state_dict"), {"fc.bias": np.ones(2, np.float32)})
    with pytest.raises(DataError, match="state_dict, epoch holds no tensor; --key"):
        read_tensors(source)
    for key in ("epoch", "other"):
        with pytest.raises(DataError, match=f"its entry '{key}' holds no dictionary"):
            read_tensors(source, key)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_damaged_file_of_pytorch_is_refused_in_one_line(torch, tmp_path, keep):
    source = tmp_path / "w.pth"
    torch.save({"fc.bias": torch.ones(2)}, source)
    source.write_bytes(source.read_bytes()[:keep])
    with pytest.raises(DataError) as error:
        read_tensors(source)
    assert "\n" not in str(error.value)
