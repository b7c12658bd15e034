"""Flips, turns and means of networks, on networks simple enough to compute by hand."""

import numpy as np
import pytest
from pydantic import ValidationError

from steelseg.core.arrays import Float32
from steelseg.predict.views import ViewsConfig, mean_of, with_flips

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (2, 1, 64, 96), dtype=np.uint8)


def grey(images: np.ndarray) -> Float32:
    """Answer each pixel by its grey level alone: the same in all views."""
    return (images / np.float32(255)).astype(np.float32)


def top_left(images: np.ndarray) -> Float32:
    """Find the top left quarter of whatever it is given."""
    found = np.zeros(images.shape, dtype=np.float32)
    found[..., : images.shape[2] // 2, : images.shape[3] // 2] = 1
    return found


@pytest.mark.parametrize("tta", ["none", "flips", "d4"])
def test_views_are_turned_back(tta: str) -> None:
    """A network that sees pixels one by one answers the same whatever the views."""
    np.testing.assert_allclose(with_flips(grey, tta)(IMAGES), grey(IMAGES), atol=1e-6)


@pytest.mark.parametrize(("tta", "share"), [("none", 1.0), ("flips", 0.25), ("d4", 0.25)])
def test_the_mean_is_over_all_views(tta: str, share: float) -> None:
    """What is found in one corner only is found in each corner by its share of the views."""
    found = with_flips(top_left, tta)(IMAGES)
    assert found.shape == IMAGES.shape
    np.testing.assert_allclose(found[0, 0, 0, 0], share)
    corners = [found[0, 0, row, column] for row in (0, -1) for column in (0, -1)]
    assert sum(corners) == pytest.approx(1.0)


def test_d4_sees_all_eight_views_once() -> None:
    """A square with eight unlike sectors is shown in eight unlike ways, and flips show four."""
    image = RNG.integers(0, 256, (1, 1, 32, 32), dtype=np.uint8)
    for tta, n_views in (("flips", 4), ("d4", 8)):
        seen: list[bytes] = []

        def spy(images: np.ndarray, seen: list[bytes] = seen) -> Float32:
            seen.append(images.tobytes())
            return grey(images)

        with_flips(spy, tta)(image)
        assert len(seen) == len(set(seen)) == n_views
        assert image.tobytes() in seen


def test_members_are_averaged() -> None:
    """0.2, 0.4 and 0.9 make 0.5; the first member's own answer is left as it was."""
    answers = [np.full((1, 1, 32, 32), p, dtype=np.float32) for p in (0.2, 0.4, 0.9)]
    mean = mean_of([lambda _, a=answer: a for answer in answers])(IMAGES)
    np.testing.assert_allclose(mean, 0.5, rtol=1e-6)
    assert answers[0].max() == np.float32(0.2)
    assert mean_of([grey]) is grey


def test_tiles_of_other_than_multiples_of_32_are_refused() -> None:
    """The network could not halve them."""
    with pytest.raises(ValidationError, match="multiples of 32"):
        ViewsConfig(tile=[100, 64])


def test_a_member_is_named_by_its_checksum() -> None:
    """Anything else is no name."""
    with pytest.raises(ValidationError, match="ensemble"):
        ViewsConfig(ensemble=["../other"])


def test_a_member_is_named_once() -> None:
    """Twice it would count twice, and the mean would not be that of the models."""
    with pytest.raises(ValidationError, match="each member once"):
        ViewsConfig(ensemble=["0123456789ab", "0123456789ab"])
