"""The config for a user's own images: what a path leads to, and the settings that fit."""

import numpy as np
import pytest
from PIL import Image

from configs import images
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.own_images import BATCHES, OwnImages, find_images, fit
from purenoise_jax.config.validation import validate
from purenoise_jax.config.validation_images import has_validation
from purenoise_jax.methods import METHODS
from purenoise_jax.models import MODELS
from purenoise_jax.runtime.errors import ConfigError, DataError
from purenoise_jax.training.build import build


def write_images(folder, count=3, size=(20, 10)):
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


@pytest.fixture
def photos(tmp_path):
    for split, count in (("train", 3), ("test", 1)):
        for name in ("cat", "dog"):
            write_images(tmp_path / split / name, count)
    return tmp_path


def write_npz(path, shape=(6, 8, 9)):
    labels = np.arange(shape[0]) % 2
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.savez(path, train_images=pixels, train_labels=labels,
             test_images=pixels[:2], test_labels=labels[:2])  # fmt: skip
    return path


def write_list(path, names):
    path.write_text("path,label\n" + "".join(f"{n},{n.split('/')[-2]}\n" for n in names))
    return path


def test_a_folder_of_splits_is_found(photos):
    own = find_images(str(photos))
    assert own == OwnImages({"source": "folder", "path": str(photos)}, 6, 20, 10)


def test_a_folder_of_class_folders_is_found_and_a_fifth_of_each_class_validates(photos):
    config = images.get_config(f"path={photos}/train")
    assert config.data.val_fraction == 0.2 and config.data.source == "folder"
    experiment = build(config)
    assert experiment.training.stats.class_counts.tolist() == [2, 2]
    assert experiment.training.val_labels.tolist() == [0, 1]
    folds = images.get_config(f"path={photos}/train,folds=3,fold=1")
    assert (folds.data.val_fraction, folds.data.folds, folds.data.fold) == (0, 3, 1)
    validate(folds)


def test_validation_images_of_their_own_are_enough(photos):
    (photos / "test").rename(photos / "val")
    config = images.get_config(f"path={photos}")
    assert config.data.val_fraction == 0 and has_validation(config.data)
    assert build(config).dataset.shown == "val"


def test_validation_images_are_found_wherever_own_data_have_them(photos, tmp_path):
    own = default_config().data
    own.source, own.path = "folder", str(photos)
    assert not has_validation(own)
    write_images(photos / "val" / "cat")
    assert has_validation(own)
    # Of such a folder, the test set is val.
    (photos / "test").rename(tmp_path / "unused")
    own.test_split, own.train_split = "val", "train"
    assert not has_validation(own)
    own.path = str(tmp_path / "nowhere")
    assert not has_validation(own)
    own.source, own.path = "npz", str(write_npz(tmp_path / "own.npz"))
    assert not has_validation(own)
    with np.load(own.path) as arrays:
        held = {name.replace("test", "val"): arrays[name] for name in arrays.files}
    np.savez(own.path, **held)
    assert has_validation(own)
    own.source = "list"
    assert not has_validation(own)
    own.val_list = "val.csv"
    assert has_validation(own)
    own.source = "digits"
    assert not has_validation(own)


@pytest.mark.parametrize(("shape", "channels"), [((6, 8, 9), 1), ((6, 8, 9, 3), 3)])
def test_an_npz_file_is_found_by_its_headers(shape, channels, tmp_path):
    path = str(write_npz(tmp_path / "own.npz", shape))
    assert find_images(path) == OwnImages(
        {"source": "npz", "path": path}, 6, 8, 9, channels, in_files=False
    )


def test_lists_are_found_and_their_images_lie_beside_them_unless_a_root_is_given(photos, tmp_path):
    train = write_list(
        tmp_path / "a.csv", [f"train/{c}/{i}.png" for c in ("cat", "dog") for i in range(3)]
    )
    test = write_list(tmp_path / "b.csv", ["test/cat/0.png", "test/dog/0.png"])
    config = images.get_config(f"path={train},test={test}")
    assert config.data.path == str(tmp_path) and config.data.source == "list"
    validate(config)
    assert build(config).training.stats.class_counts.tolist() == [3, 3]
    elsewhere = images.get_config(f"path={train},test={test},root={photos}/train/..")
    assert elsewhere.data.path == f"{photos}/train/.."


def test_columns_of_lists_have_arguments_and_paths_may_have_commas(photos, tmp_path):
    table = tmp_path / "my lists, 2024.csv"
    rows = [f"train/{c}/{i}.png,{c}" for c in ("cat", "dog") for i in range(3)]
    table.write_text("\n".join(["file,animal", *rows]))
    with pytest.raises(DataError, match=r"data\.path_column, or the argument path_column="):
        images.get_config(f"path={table}")
    config = images.get_config(f"path={table},path_column=file,label_column=animal,method=erm")
    assert config.data.train_list == str(table)
    assert (config.data.path_column, config.data.label_column) == ("file", "animal")
    assert build(config).training.stats.class_counts.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("arg", "error", "words"),
    [
        ("", ConfigError, "path is missing"),
        ("path=nowhere", DataError, "path=nowhere: there is no such file"),
        ("path=a.tar", ConfigError, "path=a.tar is not legal; legal: a folder, an .npz"),
        ("path=.,test=b.csv", ConfigError, "test=b.csv is used only with a list"),
        ("path=.", DataError, "no such folder"),
        ("path=., 2024", DataError, "path=., 2024: there is no such file or folder"),
        ("epochs=3,4", ConfigError, "config argument='4' is unknown"),
        ("path=.,size=-1", ConfigError, "size=-1 must not be below 0"),
        ("path=.,model=resnet9", ConfigError, "resnet9"),
        ("path=.,augment=none", ConfigError, "config argument augment='none' is unknown"),
    ],
)
def test_other_paths_and_arguments_are_refused(arg, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tar").write_text("")
    with pytest.raises(error, match=words):
        images.get_config(arg)


@pytest.mark.parametrize("images_in_all", [1, 15, 371, 1_281, 9_999, 40_000, 115_846, 1_281_167])
@pytest.mark.parametrize("side", [8, 28, 32, 63, 64, 100, 500, 3_000])
def test_settings_fit_number_and_size(images_in_all, side):
    own = OwnImages({}, images_in_all, side, 2 * side)
    found = fit(own)
    assert found.image_size in (32, 64, 128, 224) and found.model in MODELS
    assert found.image_size <= max(side, 32), "images are not enlarged beyond 32 pixels"
    assert found.batch_size in BATCHES
    assert found.batch_size == 16 or images_in_all // found.batch_size >= 10
    assert found.learning_rate / found.batch_size == pytest.approx(0.1 / 128)
    assert 30 <= found.epochs <= 200
    assert 1 <= found.crop_padding < found.image_size and found.cutout_size <= found.image_size
    # More images never have a smaller network, a smaller side or a smaller batch.
    more = fit(OwnImages({}, 10 * images_in_all, side, 2 * side))
    assert more.image_size >= found.image_size and more.batch_size >= found.batch_size


@pytest.mark.parametrize(("count", "side"), [(999, 64), (1_000, 128), (9_999, 128), (10_000, 224)])
def test_few_images_are_resized_to_a_smaller_side(count, side):
    assert fit(OwnImages({}, count, 3_000, 4_000)).image_size == side


def test_stored_sizes_of_arrays_are_kept_unless_a_size_is_asked_for():
    arrays = OwnImages({}, 5_000, 28, 28, channels=1, in_files=False)
    assert fit(arrays).image_size == 0 and fit(arrays).model == "resnet20"
    assert fit(arrays).augment == ("flip", "crop", "cutout"), "grey has no colours"
    assert fit(arrays, 64).image_size == 64 and fit(arrays, 64).model == "resnet10"


def test_every_setting_can_be_overridden(photos):
    config = images.get_config(
        f"path={photos},method=drs,epochs=8,model=resnet32,size=16,augment=cutout"
    )
    assert (config.num_epochs, config.model.name, config.data.image_size) == (8, "resnet32", 16)
    assert config.data.augment == ("flip", "crop", "cutout") and config.data.cutout_size == 8
    assert config.phases.deferred.methods == ("rs",)


@pytest.mark.parametrize("method", [pytest.param(m, id=m) for m in METHODS])
def test_every_method_is_valid(method, photos):
    validate(images.get_config(f"path={photos},method={method}"))


def test_the_whole_config_builds(photos):
    experiment = build(images.get_config(f"path={photos}"))
    assert experiment.training.stats.class_counts.tolist() == [3, 3]
    assert experiment.training.stats.image_shape == (32, 32, 3)
