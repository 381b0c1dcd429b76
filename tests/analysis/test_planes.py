"""Planes through three images: exact geometry, the drawn triples, and areas of known regions."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from purenoise_jax.analysis import plane_areas
from purenoise_jax.analysis.figure_style import Options
from purenoise_jax.analysis.plane_areas import AT_ONCE, SHOWN, Areas, areas_of, summarize
from purenoise_jax.analysis.planes import (
    MARGIN,
    Plane,
    cell_centres,
    class_triples,
    plane_through,
    window_of,
)
from purenoise_jax.inference.network import Outputs
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from tests.tiny import tiny_config, write_npz


def test_the_plane_of_a_right_triangle_is_known_exactly():
    plane = plane_through([np.array([1, 1, 1]), np.array([4, 1, 1]), np.array([3, 1, 5])])
    np.testing.assert_array_equal(plane.basis, [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(plane.corners, [[0, 0], [3, 0], [2, 4]])
    np.testing.assert_array_equal(plane.points(np.array([[0.5, 2]])), [[1.5, 1, 3]])
    # The longer extent, 4, has the margin on both sides; the other has the window's centre, too.
    width = 4 * (1 + 2 * MARGIN)
    np.testing.assert_allclose(window_of(plane), [1.5 - width / 2, 2 - width / 2, width])


@pytest.mark.parametrize("shape", [(8, 8, 3), (6, 6, 1), (5,)])
def test_the_images_lie_on_their_plane_and_its_basis_is_orthonormal(shape):
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1, 255):
        images = scale * rng.random((3, *shape))
        # Nearly on a line, so that one orthogonalisation alone would not do.
        images[2] = (images[0] + images[1]) / 2 + 1e-6 * images[2]
        plane = plane_through(images)
        np.testing.assert_allclose(plane.basis @ plane.basis.T, np.eye(2), atol=1e-12)
        np.testing.assert_allclose(
            plane.points(plane.corners), images.reshape(3, -1), atol=1e-12 * scale
        )
        inside = window_of(plane)
        low = np.array([inside.left, inside.bottom])
        assert ((plane.corners > low) & (plane.corners < low + inside.width)).all()


def test_images_on_a_line_have_no_plane():
    a, b = np.random.default_rng(0).random((2, 4, 4, 3))
    assert plane_through([a, a, b]) is None
    assert plane_through([a, b, a]) is None
    assert plane_through([a, b, b]) is None
    assert plane_through([a, b, a + 3 * (b - a)]) is None
    assert plane_through([a, a, a]) is None


def test_cells_of_a_window():
    window = window_of(Plane(np.zeros(2), np.eye(2), np.array([[0, 0], [10, 0], [10, 10]])))
    assert window.width == pytest.approx(12)
    found = cell_centres(window, 3)
    np.testing.assert_allclose(found[:3], [[1, 1], [5, 1], [9, 1]])
    np.testing.assert_allclose(found[::3, 1], [1, 5, 9])


@pytest.mark.parametrize("counts", [(5, 5, 5, 5), (9, 1, 1), (3, 1), (4,), (0, 2, 1)])
def test_triples_are_different_images_of_as_many_classes_as_there_are(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    present = len(np.unique(labels))
    triples = list(islice(class_triples(labels, 1), 60))
    assert all(len(set(t.tolist())) == 3 for t in triples)
    assert all(len(set(labels[t].tolist())) == min(present, 3) for t in triples)
    np.testing.assert_array_equal(triples, list(islice(class_triples(labels, 1), 60)))
    if present > 1:
        assert not np.array_equal(triples, list(islice(class_triples(labels, 2), 60)))
    # More triples than images: every image is in one of them.
    assert set(np.ravel(triples).tolist()) == set(range(len(labels)))


def test_every_class_is_a_corner_equally_often():
    labels = np.repeat(np.arange(6), [50, 20, 10, 5, 2, 1])
    corners = labels[list(islice(class_triples(labels, 0), 1500))]
    shares = np.bincount(corners.ravel(), minlength=6) / 1500
    np.testing.assert_allclose(shares, 0.5, atol=0.05)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def run_of(npz, tmp_path, label="run"):
    return Run(tmp_path / label, label, tiny_config(npz), [], None)


@pytest.fixture
def nearest(monkeypatch):
    """Every network predicts one of the first classes by the nearest of given images."""

    def give(centres):
        flat = np.asarray(centres, np.float64).reshape(len(centres), -1)

        class Nearest:
            def __init__(self, run, epoch=None):
                self.run, self.experiment = run, run.experiment
                self.state = SimpleNamespace(step=7)

            def evaluate(self, inputs):
                builder = self.experiment.batch_builder
                pixels = np.asarray(inputs, np.float64) * builder.std + builder.mean
                x = pixels.reshape(len(inputs), -1)
                logits = np.full((len(x), 4), -1e30)
                # Without the squares of x, which all classes have in common.
                logits[:, : len(flat)] = 2 * x @ flat.T - np.square(flat).sum(axis=1)
                return Outputs(np.zeros((len(x), 1)), logits)

        monkeypatch.setattr(plane_areas, "Network", Nearest)

    return give


def test_areas_of_a_bisected_window_are_halves(npz, tmp_path, nearest):
    run = run_of(npz, tmp_path)
    images = run.experiment.dataset.test_images / 255
    (first,) = islice(class_triples(run.experiment.dataset.test_labels, 3), 1)
    # Two centres on the plane's first axis, on both sides of the window's middle.
    plane = plane_through(images[first])
    window = window_of(plane)
    middle = np.array([window.left, window.bottom]) + window.width / 2
    nearest(plane.points(middle + np.array([[-0.1, 0], [0.1, 0]])))
    found = areas_of(run, Options(seed=3, images=1))
    np.testing.assert_array_equal(found.area, [[0.5, 0.5, 0, 0]])
    np.testing.assert_array_equal(found.triples, [first])
    drawn = found.drawn[0].predicted
    assert (drawn[:, :25] == 0).all() and (drawn[:, 25:] == 1).all()


def test_regions_are_those_of_the_nearest_image(npz, tmp_path, nearest):
    run = run_of(npz, tmp_path)
    images, labels = run.experiment.dataset.shown_images
    centres = images[[0, 10, 20]] / 255
    nearest(centres)
    found = areas_of(run, Options(images=AT_ONCE + 2))
    assert found.step == 7 and found.triples.shape == (AT_ONCE + 2, 3)
    # Classes 0 and 3 are the most and the least frequent.
    wide = [i for i, row in enumerate(found.labels) if {0, 3} <= set(row.tolist())]
    assert len(found.drawn) == SHOWN <= len(wide)
    for i, drawn in zip(wide, found.drawn, strict=False):
        np.testing.assert_array_equal(drawn.places, found.triples[i])
        np.testing.assert_array_equal(drawn.images, images[drawn.places])
    np.testing.assert_array_equal(found.labels, labels[found.triples])
    np.testing.assert_allclose(found.area.sum(axis=1), 1)
    # The last plane, by a loop over its points.
    a, b, c = (images[i].astype(float).ravel() / 255 for i in found.triples[-1])
    e1 = (b - a) / np.linalg.norm(b - a)
    e2 = (c - a) - ((c - a) @ e1) * e1
    e2 /= np.linalg.norm(e2)
    xs = [0, (b - a) @ e1, (c - a) @ e1]
    ys = [0, 0, (c - a) @ e2]
    size = 1.2 * max(max(xs) - min(xs), max(ys) - min(ys))
    counts = np.zeros(4)
    for i in range(16):
        for j in range(16):
            x = (max(xs) + min(xs)) / 2 + size * ((j + 0.5) / 16 - 0.5)
            y = (max(ys) + min(ys)) / 2 + size * ((i + 0.5) / 16 - 0.5)
            point = a + x * e1 + y * e2
            counts[np.argmin([np.linalg.norm(point - d.ravel()) for d in centres])] += 1
    np.testing.assert_allclose(found.area[-1], counts / 256, atol=1.5 / 256)
    assert areas_of(run, Options(images=AT_ONCE + 2)) is found
    assert areas_of(run, Options(images=2)) is not found


def test_means_and_errors_over_planes():
    area = np.array([[0.5, 0.25, 0.25], [0.1, 0.4, 0.5], [0.3, 0.6, 0.1]])
    labels = np.array([[0, 1, 1], [1, 0, 0], [1, 1, 1]])
    areas = Areas(1, np.zeros((3, 3), int), labels, area, ())
    found = summarize(areas, [np.array([0]), np.array([1, 2]), np.array([2])])
    assert found["area"] == pytest.approx([0.3, 0.7, 0.85 / 3])
    assert found["area_error"][0] == pytest.approx(0.2 / np.sqrt(3))
    assert found["own_planes"] == [2, 3, 0]
    assert found["own_area"][:2] == pytest.approx([0.3, 0.7])
    assert found["own_area_error"][0] == pytest.approx(np.std([0.5, 0.1], ddof=1) / np.sqrt(2))
    assert found["own_area"][2] is None and found["own_area_error"][2] is None
    one = summarize(areas._replace(area=area[:1], labels=labels[:1]), [np.array([0])])
    assert one["area"] == [0.5] and one["area_error"] == [None]


def test_images_that_span_no_plane_are_refused(tmp_path, nearest):
    nearest(np.zeros((2, 8, 8, 3)))
    npz = write_npz(tmp_path / "few.npz", (4, 3))
    with np.load(npz) as file:
        arrays = dict(file)
    arrays["test_images"][:] = 9
    np.savez(npz, **arrays)
    with pytest.raises(ConfigError, match="equal or lie on a line") as error:
        areas_of(run_of(npz, tmp_path), Options(images=2))
    assert "\n" not in str(error.value)
    np.savez(npz, **{k: v[:2] if k.startswith("test") else v for k, v in arrays.items()})
    with pytest.raises(ConfigError, match="has 2 test images, and a plane goes through three"):
        areas_of(run_of(npz, tmp_path), Options())


def test_logits_that_are_not_finite_are_refused(npz, tmp_path, nearest):
    nearest(np.full((2, 8, 8, 3), np.nan))
    with pytest.raises(CheckpointError, match="logits that are not finite"):
        areas_of(run_of(npz, tmp_path), Options(images=1))
