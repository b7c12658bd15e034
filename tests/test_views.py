"""Flips, turns, tiles and means of networks, on networks simple enough to compute by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from steelseg.core.arrays import Float32
from steelseg.predict.views import ViewsConfig, mean_of, tile_starts, with_flips, with_tiles

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


@pytest.mark.parametrize("tile", [(32, 32), (64, 64), (32, 96), (128, 32), (256, 256)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
def test_tiles_cover_the_image(tile: tuple[int, int], overlap: float) -> None:
    """A network that sees pixels one by one answers as for the whole image, edges too."""
    tiled = with_tiles(grey, tile, overlap)
    np.testing.assert_allclose(tiled(IMAGES), grey(IMAGES), atol=1e-6)


def test_tiles_are_blended_by_distance_from_their_edge() -> None:
    """Two tiles of 64 over 96 columns that say 0 and 1: from 0 to 1 over what they share."""
    answers = iter([0.0, 1.0])

    def constant(images: np.ndarray) -> Float32:
        return np.full((len(images), 1, *images.shape[2:]), next(answers), dtype=np.float32)

    found = with_tiles(constant, (64, 64), 0.5)(IMAGES)[0, 0, 0]
    assert found[:32].max() == 0.0
    assert found[64:].min() == 1.0
    shared = found[32:64]
    assert (np.diff(shared) > 0).all()
    assert shared[15:17].mean() == pytest.approx(0.5)


@given(
    size=st.integers(1, 50), tile=st.integers(1, 50), overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9])
)
def test_tiles_overlap_enough(size: int, tile: int, overlap: float) -> None:
    """They begin at 0, end at the end, leave no gap, and share at least what was asked for."""
    tile, size = min(tile, size) * 32, size * 32
    starts = tile_starts(size, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] + tile == size
    for first, second in itertools.pairwise(starts):
        assert first < second <= first + tile * (1 - overlap) + 1


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


def test_tiles_are_at_most_one_for_each_place() -> None:
    """However near 1 the overlap, 33 tiles of 32 over 64 pixels are all there can be."""
    assert tile_starts(64, 32, 1 - 1e-12) == list(range(33))
