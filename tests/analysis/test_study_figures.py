"""Figures of the studies: planes and areas, re-balanced epochs, maps, subsets, errors of halves."""

import json

import numpy as np
import pytest

from purenoise_jax.analysis import (
    activation_maps,
    boundaries,
    class_areas,
    class_errors,
    plane_areas,
    rebalanced,
    subset_images,
)
from purenoise_jax.analysis.figure_style import Options, save
from purenoise_jax.analysis.plane_areas import Areas, Drawn
from purenoise_jax.analysis.planes import plane_through, window_of
from purenoise_jax.config.fields import default_config
from purenoise_jax.data.longtail import long_tail_indices
from purenoise_jax.data.sampling import EpochSampler
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import Run, load_runs
from purenoise_jax.models.norm_inputs import norm_inputs
from purenoise_jax.runtime.errors import ConfigError, DataError
from tests.fake_runs import diagonal, write_run
from tests.tiny import COUNTS, STEPS_PER_EPOCH, tiny_config, write_npz
from tests.tiny_run import changed, train_tiny


def run_of(npz, tmp_path, label="run", **overrides):
    return Run(tmp_path / label, label, tiny_config(npz, **overrides), [], None)


def draw(figure, runs, tmp_path, **options):
    """Draws and saves a figure, so that warnings of matplotlib fail; returns the saved numbers."""
    drawing = figure.draw(runs, Options(**options))
    paths = save(drawing, tmp_path / "figures", "one")
    return drawing, json.loads(paths[2].read_text())


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


# --- planes


def areas_like(run, seed, classes=4, planes=5, shift=0):
    """Areas of a network that predicts classes at random; the planes go through test images."""
    rng = np.random.default_rng(seed)
    images, labels = run.experiment.dataset.shown_images
    triples = np.array([[0, 11, 22], [5, 1, 33], [30, 20, 10], [7, 8, 9], [38, 0, 19]])[:planes]
    triples = triples + shift
    drawn = []
    for places in triples[:3]:
        plane = plane_through(images[places] / 255)
        predicted = rng.integers(0, classes, (50, 50))
        window = window_of(plane)
        drawn.append(Drawn(places, plane, window, predicted, images[places], labels[places]))
    area = rng.dirichlet(np.ones(classes), planes)
    return Areas(3, triples, labels[triples], area, tuple(drawn))


@pytest.mark.slow
def test_planes_are_drawn_by_frequency_with_their_images(npz, tmp_path, monkeypatch):
    runs = [run_of(npz, tmp_path, label) for label in ("a", "b$x", "c")]
    # The third run has other images, so it has a strip of its own.
    given = {r.label: areas_like(r, i, shift=i == 2) for i, r in enumerate(runs)}
    monkeypatch.setattr(boundaries, "areas_of", lambda run, options: given[run.label])
    drawing, numbers = draw(boundaries, runs, tmp_path)
    images = [axes for axes in drawing.figure.axes if axes.images]
    planes = [axes for axes in images if axes.images[0].get_array().shape == (50, 50)]
    assert (len(planes), len(images) - len(planes)) == (9, 2 * 9)
    for run, row in zip(runs, np.reshape(planes, (3, 3)), strict=True):
        assert row[0].get_title(loc="left") == run.label
        for axes, known in zip(row, given[run.label].drawn, strict=True):
            # COUNTS fall, so the ranks of the classes are their labels.
            np.testing.assert_array_equal(axes.images[0].get_array(), known.predicted)
            places = [text.get_position() for text in axes.texts]
            np.testing.assert_allclose(places, known.plane.corners)
            left, right, bottom, top = axes.images[0].get_extent()
            assert (left, bottom) == known.window[:2]
            assert right - left == pytest.approx(known.window.width) == top - bottom
    first = numbers["a"]
    assert first["triples"] == given["a"].triples.tolist() and first["planes"] == 5
    np.testing.assert_allclose(first["area"], given["a"].area.mean(axis=0))
    shares = np.bincount(given["a"].drawn[1].predicted.ravel(), minlength=4) / 2500
    np.testing.assert_allclose(first["drawn"][1]["area"], shares)
    assert first["drawn"][0]["classes"] == ["0", "1", "2"]
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend == [f"{k} ({n})" for k, n in enumerate(COUNTS)]


def test_bars_of_areas_have_errors_over_the_planes(npz, tmp_path, monkeypatch):
    runs = [run_of(npz, tmp_path, label) for label in "ab"]
    given = {run.label: areas_like(run, i) for i, run in enumerate(runs)}
    monkeypatch.setattr(class_areas, "areas_of", lambda run, options: given[run.label])
    drawing, numbers = draw(class_areas, runs, tmp_path)
    panels = drawing.figure.axes
    for column, name in enumerate(("area", "own_area")):
        heights = [[bar.get_height() for bar in bars] for bars in panels[column].containers if hasattr(bars, "patches")]  # fmt: skip
        np.testing.assert_allclose(heights, [100 * np.array(numbers[r][name], float) for r in "ab"])
    mean = given["b"].area.mean(axis=0)
    error = given["b"].area.std(axis=0, ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(numbers["b"]["area"], mean)
    np.testing.assert_allclose(numbers["b"]["area_error"], error)
    with_2 = (given["b"].labels == 2).any(axis=1)
    assert numbers["b"]["own_planes"][2] == with_2.sum()
    assert numbers["b"]["own_area"][2] == pytest.approx(given["b"].area[with_2, 2].mean())


def test_areas_of_other_classes_are_not_compared(npz, tmp_path):
    other = write_npz(tmp_path / "other.npz", (9, 5, 2))
    runs = [run_of(npz, tmp_path), run_of(other, tmp_path, "other")]
    with pytest.raises(ConfigError, match="have other classes") as error:
        class_areas.draw(runs, Options(images=1))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_planes_of_a_trained_run(run, tmp_path):
    drawing, numbers = draw(boundaries, [run], tmp_path, images=50)
    assert numbers["run"]["planes"] == 50 and len(numbers["run"]["triples"]) == 50
    assert sum(numbers["run"]["area"]) == pytest.approx(1)
    _, again = draw(class_areas, [run], tmp_path, images=50)
    for name in ("area", "area_error", "own_area", "own_planes"):
        assert again["run"][name] == numbers["run"][name]
    # At an image itself the network predicts what it predicts for the image.
    areas = plane_areas.areas_of(run, Options(images=50))
    network, images = Network(run), run.experiment.dataset.test_images
    drawn = areas.drawn[0]
    logits = network.evaluate(network.images(images[drawn.places])).logits
    cells = ((drawn.plane.corners - drawn.window[:2]) / drawn.window.width * 50).astype(int)
    seen = [int(drawn.predicted[y, x]) for x, y in cells]
    agree = np.array(seen) == logits.argmax(axis=1)
    assert agree.sum() >= 2  # the cell's centre is not the image itself
    assert len(drawing.figure.axes) == 12


@pytest.mark.slow
def test_planes_of_grey_images(tmp_path):
    config = default_config()
    fields = {"data.source": "digits", "data.imbalance_ratio": 50, "model.name": "tiny"}
    config.update_from_flattened_dict({**fields, "batch_size": 32, "num_epochs": 1})
    run = Run(tmp_path, "digits", config, [], None)
    state = run.experiment.init()
    object.__setattr__(run, "state", lambda epoch=None: state)
    drawing, numbers = draw(boundaries, [run], tmp_path, images=2)
    assert numbers["digits"]["planes"] == 2 and len(drawing.figure.axes) == 8


# --- what an epoch shows


@pytest.mark.slow
def test_an_epochs_rows_are_counted_by_class(npz, tmp_path):
    run = run_of(npz, tmp_path)
    drawing, numbers = draw(rebalanced, [run], tmp_path, seed=4, images=2)
    rows = numbers["run"]["rows"]
    assert list(rows) == ["original", "oversampled", "noise (open)"]
    zero = [0] * 4
    assert rows["original"] == {"distinct": list(COUNTS), "repeats": zero, "noise": zero}
    labels = run.experiment.training.labels
    sampler = EpochSampler(labels, 4, 16, seed=4)
    index, valid = sampler.epoch(0, np.full(4, 0.25, np.float32))
    drawn = index[valid]
    shown, distinct = np.bincount(labels[drawn]), np.bincount(labels[np.unique(drawn)])
    assert rows["oversampled"]["distinct"] == distinct.tolist()
    assert rows["oversampled"]["repeats"] == (shown - distinct).tolist()
    assert rows["oversampled"]["noise"] == zero
    noisy = {kind: np.array(values) for kind, values in rows["noise (open)"].items()}
    assert sum(noisy.values()).tolist() == shown.tolist()
    # The most frequent class has no noise, and rarer ones have some.
    assert noisy["noise"][0] == 0 and noisy["noise"][1:].sum() > 0
    assert (noisy["distinct"] <= distinct).all()
    bars = [[bar.get_height() for bar in bars] for bars in drawing.figure.axes[0].containers]
    assert bars == [list(COUNTS), zero, zero]


@pytest.mark.slow
def test_examples_are_rows_of_the_rarest_class(npz, tmp_path):
    run = run_of(npz, tmp_path, **{"data.augment": ()})
    stored = run.experiment.training.images[run.experiment.training.labels == 3] / 255
    plain = rebalanced.epoch_of(run, ("erm",), 0, 12)
    assert len(plain.examples) == 3 and not plain.is_noise.any()
    for methods in (("rs",), ("open",)):
        found = rebalanced.epoch_of(run, methods, 0, 5)
        assert len(found.examples) == 5
        for image, noise in zip(found.examples, found.is_noise, strict=True):
            distance = np.abs(stored - image).max(axis=(1, 2, 3)).min()
            assert (distance > 0.05) if noise else (distance < 1e-6)
    assert found.is_noise.any()


@pytest.mark.slow
def test_appended_noise_is_counted_beside_all_images(npz, tmp_path):
    fields = {"phases.deferred.methods": ("append",), "method.append.share": 0.5}
    run = run_of(npz, tmp_path, **fields)
    methods = rebalanced.rows_of(run)["noise (append)"]
    found = rebalanced.epoch_of(run, methods, 0, 12)
    assert found.distinct.tolist() == list(COUNTS) and not found.repeats.any()
    # floor(16 / 2) rows twice, and floor(13 / 2) in the last batch.
    assert found.noise.sum() == 22 and STEPS_PER_EPOCH == 3


@pytest.mark.slow
def test_balanced_classes_get_no_noise(tmp_path):
    run = run_of(write_npz(tmp_path / "even.npz", (8, 8)), tmp_path)
    found = rebalanced.epoch_of(run, ("open",), 0, 40)
    assert found.noise.tolist() == [0, 0] and len(found.examples) < 16


# --- activation maps


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("tiny"))


def test_the_second_norm_and_the_last_with_wide_maps_are_shown():
    shapes = {
        "bn1": (2, 16, 16, 8),
        "bn2": (2, 16, 16, 8),
        "bn3": (2, 4, 4, 8),
        "bn4": (2, 2, 2, 9),
    }
    assert activation_maps.layers_of(shapes) == ["bn2", "bn3"]
    assert activation_maps.layers_of({**shapes, "flat": (2, 8)}) == ["bn2", "bn3"]
    assert activation_maps.layers_of({"norm": (2, 8, 8, 8)}) == ["norm"]
    assert activation_maps.layers_of({"norm": (2, 2, 2, 8)}) == ["norm"]
    assert activation_maps.layers_of({"norm": (2, 8)}) == []


@pytest.mark.slow
def test_maps_are_those_of_the_first_natural_and_noise_rows(run, tmp_path):
    drawing, numbers = draw(activation_maps, [run, run], tmp_path)
    layer = numbers["run"]["layers"]["norm"]
    assert layer["shape"] == [8, 8, 8] and layer["shown"] == list(range(8))
    (batch,) = activation_maps.noisy_batches(run, 1, 0)
    noise, builder = np.asarray(batch["noise_mask"]), run.experiment.batch_builder
    rows = [np.flatnonzero(~noise)[0], np.flatnonzero(noise)[0]]
    seen = norm_inputs(
        run.experiment.model, Network(run).variables, builder.normalize(batch["image"]),
        batch["noise_mask"], batch["valid"], train=False,
    )  # fmt: skip
    # Before the only norm nothing depends on the mode.
    maps = np.asarray(seen["norm"], np.float64)[rows]
    np.testing.assert_allclose(layer["natural"]["mean"], maps[0].mean(axis=(0, 1)), atol=1e-5)
    np.testing.assert_allclose(layer["noise"]["std"], maps[1].std(axis=(0, 1)), atol=1e-5)
    axes = drawing.figure.axes
    np.testing.assert_allclose(axes[9 + 3].images[0].get_array(), maps[1, :, :, 2], atol=1e-5)
    assert axes[3].images[0].get_clim() == axes[12].images[0].get_clim()
    assert numbers["run"]["classes"]["noise"] == str(int(batch["label"][rows[1]]))


@pytest.mark.slow
def test_a_run_without_noise_has_no_maps_of_it(run):
    with pytest.raises(ConfigError, match="puts no noise"):
        activation_maps.draw([changed(run, **{"method.open.delta": 0.0})], Options())


# --- subsets


@pytest.fixture(scope="module")
def even(tmp_path_factory):
    folder = tmp_path_factory.mktemp("even")
    profile = {"data.profile": "exp", "data.imbalance_ratio": 4.0}
    return run_of(write_npz(folder / "even.npz", (20, 20, 20, 20)), folder, **profile)


def write_list(path, indices):
    path.write_text("".join(f"{i}\n" for i in indices))
    return str(path)


@pytest.mark.slow
def test_images_of_one_subset_alone(even, tmp_path):
    labels = even.experiment.dataset.train_labels
    sets = {
        rule: set(long_tail_indices(labels, imbalance_ratio=4, rule=rule).tolist())
        for rule in ("cao", "first")
    }
    sets |= {"A $x": set(range(30)), "B": set(range(0, 80, 2))}
    files = [(n, write_list(tmp_path / f"{n[0]}.txt", sets[n])) for n in ("A $x", "B")]
    drawing, numbers = draw(subset_images, [even], tmp_path, indices=tuple(files), images=3)
    images = even.experiment.dataset.train_images
    axes = iter(drawing.figure.axes)
    for name, found in sets.items():
        alone = {i for i in found if not any(i in s for n, s in sets.items() if n != name)}
        row = numbers["run"][name]
        assert row["images"] == len(found) and row["only"] == len(alone)
        assert row["only_by_class"] == np.bincount(labels[sorted(alone)], minlength=4).tolist()
        assert len(row["shown"]) == min(3, len(alone)) and set(row["shown"]) <= alone
        block = [next(axes) for _ in range(10)]
        for place, cell in zip(row["shown"], block, strict=False):
            np.testing.assert_allclose(cell.images[0].get_array(), images[place] / 255)
            assert cell.get_title() == str(labels[place])
    other = subset_images.draw([even], Options(indices=tuple(files), images=3, seed=1)).numbers
    assert other != numbers


@pytest.mark.slow
def test_a_subset_without_images_of_its_own(even, tmp_path):
    every = write_list(tmp_path / "all.txt", range(80))
    drawing, numbers = draw(subset_images, [even], tmp_path, indices=(("all", every),), images=1)
    assert numbers["run"]["cao"]["only"] == 0 and numbers["run"]["cao"]["shown"] == []
    assert drawing.figure.axes[0].texts[0].get_text() == "none"


def test_subsets_that_cannot_be_shown_are_refused(even, npz, tmp_path):
    with pytest.raises(ConfigError, match="subset_images needs exactly one run, got 2"):
        subset_images.draw([even, even], Options())
    with pytest.raises(ConfigError, match="keeps every image"):
        subset_images.draw([run_of(npz, tmp_path)], Options())
    file = write_list(tmp_path / "a.txt", range(3))
    with pytest.raises(ConfigError, match=r"a=\.\.\. is given twice"):
        subset_images.draw([even], Options(indices=(("a", file), ("a", file))))
    with pytest.raises(ConfigError, match="given 7 times; legal: at most 6 times"):
        subset_images.draw([even], Options(indices=tuple((str(i), file) for i in range(7))))
    with pytest.raises(DataError, match=r"^--indices b=/\S+absent\.txt: "):
        subset_images.draw([even], Options(indices=(("b", str(tmp_path / "absent.txt")),)))


# --- errors of halves


def test_errors_of_halves_with_errors_over_seeds(tmp_path):
    counts = [40, 5, 100, 20, 10]
    shares = {"erm/0": [0.8, 0.2, 0.9, 0.7, 0.4], "erm/1": [0.6, 0.0, 0.9, 0.6, 0.4]}
    shares["open"] = [0.5, 0.5, 0.6, 0.7, 0.7]
    paths = [
        write_run(
            tmp_path / name,
            counts=counts,
            evaluations={4: diagonal(recalls)},
            seed=int(name[-1] == "1"),
            **({"batch_size": 64} if name == "open" else {}),
        )
        for name, recalls in shares.items()
    ]
    drawing, numbers = draw(class_errors, load_runs(paths), tmp_path)
    first = numbers["runs"]["0"]
    assert first["majority_classes"] == [2, 0, 3] and first["minority_classes"] == [4, 1]
    assert first["majority"] == pytest.approx(0.2) and first["minority"] == pytest.approx(0.7)
    both, alone = numbers["groups"]
    assert both["runs"] == ["0", "1"] and both["name"] == "erm: 0 to 1"
    assert both["majority"] == pytest.approx((0.2 + 0.3) / 2)
    assert both["minority_error"] == pytest.approx(np.std([0.7, 0.8], ddof=1) / np.sqrt(2))
    assert alone["minority"] == pytest.approx(0.4) and alone["minority_error"] is None
    bars = [c for c in drawing.figure.axes[0].containers if hasattr(c, "patches")]
    widths = [[bar.get_width() for bar in each] for each in bars]
    np.testing.assert_allclose(widths, [[25, 40], [75, 40]])


def test_a_half_without_test_images_has_no_error(tmp_path):
    confusion = diagonal([0.5, 0.6, 0.7])
    confusion[2] = 0
    path = write_run(tmp_path / "run", counts=[9, 5, 2], evaluations={4: confusion})
    drawing, numbers = draw(class_errors, load_runs([path]), tmp_path)
    assert numbers["runs"]["run"]["minority"] is None
    assert drawing.figure.axes[0].texts[-1].get_text() == "\N{EN DASH}"


def test_balanced_data_and_runs_without_an_evaluation_are_refused(tmp_path):
    even = write_run(tmp_path / "even", counts=[7, 7], evaluations={4: diagonal([1, 0.5])})
    none = write_run(tmp_path / "none", counts=[9, 5], evaluations={}, finished=False)
    for path, message in ((even, "all classes have 7 training images"), (none, "no evaluation")):
        with pytest.raises(ConfigError, match=message) as error:
            class_errors.draw(load_runs([path]), Options())
        assert "\n" not in str(error.value)
