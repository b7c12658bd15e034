"""Metrics of defects one by one are those of components counted by hand."""

import numpy as np
import pytest

from steelseg.core import arrays
from steelseg.tune.defects import figures
from steelseg.tune.matching import Matching, match

SIZE_HW = (40, 60)


def line(*lengths: int) -> str:
    """The RLE of vertical lines of some lengths, in every other column."""
    return " ".join(f"{2 * SIZE_HW[0] * at + 1} {n}" for at, n in enumerate(lengths))


def test_figures_of_two_images() -> None:
    """Of three defects one is found whole, one by a third, one not at all; and one is false."""
    images = [
        [match(line(9, 6), line(9, 2), SIZE_HW), match("", "1 4", SIZE_HW)],
        [match(line(3), "", SIZE_HW), match("", "", SIZE_HW)],
    ]
    scores = figures(images, np.array([0, 1]), [1, 2])
    assert scores["panoptic_quality"] == pytest.approx(1 / (1 + (2 + 2) / 2))
    assert scores["detection_f1_50"] == pytest.approx(1 / 3)
    assert scores["detection_f1_25"] == scores["detection_f1_10"] == pytest.approx(2 / (2 + 1))
    assert scores["false_components"] == 1 / 2
    assert scores["defect_recall"] == pytest.approx(2 / 3)
    assert 0 <= scores["defect_recall_low"] < 2 / 3 < scores["defect_recall_high"] <= 1
    assert [scores[f"defect_recall_quarter_{n}"] for n in (1, 2, 3)] == [0, 1, 1]
    assert [scores[f"defect_size_quarter_{n}"] for n in (1, 2, 3)] == [3, 6, 9]
    assert "a50_class_1" not in scores, "sizes tell found from missed: there is no curve"


def of_many_sizes() -> tuple[list[list[Matching]], arrays.Int64]:
    """Draw 80 images of one defect each, of which large ones are found more often."""
    rng = np.random.default_rng(1)
    images: list[list[Matching]] = []
    for size in rng.integers(1, 40, 80).tolist():
        is_found = rng.random() < size / (size + 8)
        images.append([match(line(size), line(size) if is_found else "", SIZE_HW)])
    return images, np.arange(80)


def test_sizes_of_the_curve() -> None:
    """Large defects are found more often, so that a90 lies above a50, and its bound above both."""
    images, groups = of_many_sizes()
    scores = figures(images, groups, [7])
    assert 1 < scores["a50_class_7"] < scores["a90_class_7"] < scores["a90_95_class_7"]
    assert scores["detection_f1_50"] == scores["panoptic_quality"]


def test_sizes_in_millimetres() -> None:
    """The curve and the quarters are scaled, and nothing else."""
    images, groups = of_many_sizes()
    in_pixels, in_mm = figures(images, groups, [7]), figures(images, groups, [7], 0.25)
    sizes = {"a50_class_7", "a90_class_7", "a90_95_class_7"}
    sizes |= {f"defect_size_quarter_{n}" for n in (1, 2, 3, 4)}
    assert sizes < in_pixels.keys() == in_mm.keys()
    for name, value in in_pixels.items():
        expected = value / 4 if name in sizes else value
        assert in_mm[name] == pytest.approx(expected, rel=1e-4), name


def test_nothing_has_no_figures() -> None:
    """Neither no images nor images of nothing give numbers that are none."""
    assert figures([], np.array([], dtype=np.int64), [1]) == {}
    empty = figures([[match("", "", SIZE_HW)]] * 2, np.array([0, 1]), [1])
    assert empty == {"false_components": 0}
