"""The study of boundaries in the plane: its data, its numbers and its command line."""

import json

import numpy as np
import pytest
from matplotlib.colors import to_hex

from launch.studies import toy
from launch.studies.toy import COUNTS, METHODS, SIDE, Trained


def test_half_moons_are_half_circles_with_noise():
    points, labels = toy.half_moons((4000, 3000), np.random.default_rng(0))
    assert points.shape == (7000, 1, 1, 2) and points.dtype == np.uint8
    assert np.bincount(labels).tolist() == [4000, 3000]
    x = toy.LOW + points[:, 0, 0] / (SIDE - 1) * (toy.HIGH - toy.LOW)
    for k, centre, up in ((0, (0, 0), 1), (1, (1, 0.5), -1)):
        away = x[labels == k] - centre
        # The mean distance of a noisy point of a circle is slightly above its radius.
        distance = np.linalg.norm(away, axis=1)
        assert distance.mean() == pytest.approx(1 + toy.NOISE**2 / 2, abs=0.02)
        assert distance.std() == pytest.approx(toy.NOISE, abs=0.02)
        assert np.mean(up * away[:, 1]) == pytest.approx(2 / np.pi, abs=0.02)


def test_the_plane_has_every_point_once():
    points = toy.plane()[:, 0, 0].astype(int)
    np.testing.assert_array_equal(points[:3], [[0, 0], [1, 0], [2, 0]])
    assert np.unique(points[:, 1] * SIDE + points[:, 0]).size == SIDE**2


def networks(*accuracies):
    regions = np.zeros((SIDE, SIDE), int)
    regions[:, : SIDE // 4] = 1
    return [Trained(regions, np.array(each), float(regions.mean())) for each in accuracies]


def test_numbers_are_means_over_the_seeds():
    found = toy.summarize(networks((0.9, 0.5), (1.0, 0.2)))
    assert found["seeds"] == 2 and found["minority_area"] == 0.25
    assert found["balanced_accuracy"] == pytest.approx(0.65)
    assert found["minority_accuracy"] == pytest.approx(0.35)
    error = np.std([0.5, 0.2], ddof=1) / np.sqrt(2)
    assert found["minority_accuracy_error"] == pytest.approx(error)
    assert toy.summarize(networks((0.9, 0.5)))["balanced_accuracy_error"] is None


def test_regions_and_points_are_drawn():
    drawing = toy.draw({"ERM": networks((0.9, 0.5)), "SAM-A": networks((0.8, 0.7))})
    assert set(drawing.numbers["methods"]) == {"ERM", "SAM-A"}
    axes = drawing.figure.axes[1]
    assert axes.get_title() == "SAM-A\n75.0 % balanced"
    np.testing.assert_array_equal(axes.images[0].get_array(), networks((0, 0))[0].predicted)
    sizes = [len(dots.get_offsets()) for dots in axes.collections]
    assert sizes == list(COUNTS)
    colors = {to_hex(dots.get_facecolor()[0]) for dots in axes.collections}
    assert len(colors) == 2
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend == [f"majority, {COUNTS[0]} points", f"minority, {COUNTS[1]} points"]


@pytest.mark.slow
def test_balanced_softmax_leaves_more_room_to_the_minority(tmp_path, monkeypatch, capsys):
    chosen = {name: METHODS[name] for name in ("ERM", "balanced softmax")}
    monkeypatch.setattr(toy, "METHODS", chosen)
    arguments = [f"--out={tmp_path}", "--seeds=1", "--epochs=20"]
    assert toy.main(arguments) == 0
    numbers = json.loads((tmp_path / "toy.json").read_text())["methods"]
    plain, adjusted = numbers["ERM"], numbers["balanced softmax"]
    assert adjusted["minority_area"] > plain["minority_area"] > 0
    assert adjusted["minority_accuracy"] > plain["minority_accuracy"]
    assert plain["majority_accuracy"] > 0.9
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ERM") and lines[-1] == str(tmp_path / "toy.json")
    first = (tmp_path / "toy.json").read_bytes()
    assert toy.main(arguments) == 0
    assert (tmp_path / "toy.json").read_bytes() == first


@pytest.mark.parametrize("option", ["--seeds=0", "--epochs=-1"])
def test_numbers_below_one_are_refused_in_one_line(option, capsys):
    assert toy.main([option]) == 2
    err = capsys.readouterr().err
    assert "legal: at least 1" in err and err.count("\n") == 1
