"""Images by overlapping tiles: how they are blended, what seams split, and what memory is taken."""

import itertools
import logging
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.core.arrays import Float32
from steelseg.predict import inference, tiles
from steelseg.predict.inference import Runtime, answers
from steelseg.predict.postprocess import ClassRule, Prediction, postprocess, postprocess_maps
from steelseg.predict.tiles import Maps, tile_starts, tiled
from steelseg.predict.views import Network

RNG = np.random.default_rng(3)
IMAGE = RNG.integers(0, 256, (1, 64, 96), dtype=np.uint8)
RULE = ClassRule(threshold=0.5, min_component_area=40)


def grey(images: np.ndarray) -> Float32:
    """Answer each pixel by its grey level alone: the same in all tiles."""
    return (images / np.float32(255)).astype(np.float32)


def blurred(images: np.ndarray) -> Float32:
    """Answer each pixel by the mean of the 9x9 around it: what lies beyond a tile is not known."""
    soft = [cv2.blur(image[0].astype(np.float32), (9, 9)) for image in images]
    return np.stack(soft)[:, None] / np.float32(255)


def edgy(images: np.ndarray) -> Float32:
    """Answer by the place in the tile as well, so that tiles contradict each other."""
    rows, columns = np.indices(images.shape[2:])
    return (grey(images) + ((rows + columns) % 7 / 7).astype(np.float32)) / 2


def maps_of(network: Network, image_chw: np.ndarray, tile=(32, 32), overlap=0.25, batch=1) -> Maps:
    """Return the maps of an image by tiles, as they come."""
    _, height, width = image_chw.shape
    return Maps((height, width), tiled(network, image_chw, tile, overlap, batch))


def strip(size_hw: tuple[int, int]) -> np.ndarray:
    """Draw dark steel with a bright scratch along its longer side, and a spot: (1, H, W)."""
    image_hw = RNG.integers(0, 20, size_hw, dtype=np.uint8)
    height, width = size_hw
    ends = [(0, height // 2), (width - 1, height - 9)]
    if height > width:
        ends = [(width // 2, 0), (width - 9, height - 1)]
    cv2.line(image_hw, *ends, 255, 12)
    image_hw[9:30, 9:30] = 255
    return image_hw[None]


@pytest.mark.parametrize("tile", [(32, 32), (64, 64), (32, 96), (128, 32), (256, 256)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
def test_tiles_cover_the_image(tile: tuple[int, int], overlap: float) -> None:
    """A network that sees pixels one by one answers as for the whole image, edges too."""
    for image in (IMAGE, IMAGE[:, :50, :75], IMAGE.swapaxes(1, 2)):
        for batch in (1, 3):
            maps = maps_of(grey, image, tile, overlap, batch).whole()
            np.testing.assert_allclose(maps, grey(image), atol=1e-6)


def test_tiles_are_blended_by_distance_from_their_edge() -> None:
    """Two tiles of 64 over 96 columns that say 0 and 1: from 0 to 1 over what they share."""
    answers = iter([0.0, 1.0])

    def constant(images: np.ndarray) -> Float32:
        return np.full((len(images), 1, *images.shape[2:]), next(answers), dtype=np.float32)

    found = maps_of(constant, IMAGE, (64, 64), 0.5).whole()[0, 0]
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


def test_tiles_are_at_most_one_for_each_place() -> None:
    """However near 1 the overlap, 33 tiles of 32 over 64 pixels are all there can be."""
    assert tile_starts(64, 32, 1 - 1e-12) == list(range(33))


def test_tiles_have_all_channels() -> None:
    """An image of three channels is answered by tiles as at once."""

    def mean(images: np.ndarray) -> Float32:
        assert images.shape[1] == 3
        return images.mean(axis=1, keepdims=True, dtype=np.float32) / np.float32(255)

    image = RNG.integers(0, 256, (3, 70, 101), dtype=np.uint8)
    (maps,) = Runtime(mean, 1, tile=(32, 64)).maps([image])
    assert maps.size_hw == (70, 101)
    np.testing.assert_allclose(maps.whole(), mean(image[None])[0], atol=1e-6)


@pytest.mark.parametrize("size_hw", [(64, 96), (50, 700), (700, 50), (300, 301)])
def test_blocks_cover_an_image_once_and_none_is_large(size_hw: tuple[int, int]) -> None:
    """Each goes across the shorter side, and along the longer one no further than a tile."""
    covered = np.zeros(size_hw, dtype=int)
    for top, left, block_chw in maps_of(grey, np.zeros((1, *size_hw), np.uint8)).blocks:
        _, height, width = block_chw.shape
        assert min(height, width) <= 32
        covered[top : top + height, left : left + width] += 1
    assert (covered == 1).all()


def test_a_tile_alone_answers_as_the_network_does() -> None:
    """Where no other tile reaches, and for an image of one tile, to the last digit."""
    assert np.array_equal(maps_of(edgy, IMAGE, (64, 96)).whole(), edgy(IMAGE[None])[0])
    found = maps_of(edgy, IMAGE, (64, 64), 0.5).whole()
    assert np.array_equal(found[..., :32], edgy(IMAGE[None])[0, ..., :32])


@given(
    size_hw=st.tuples(st.integers(1, 110), st.integers(1, 110)),
    network=st.sampled_from([grey, blurred, edgy]),
    overlap=st.sampled_from([0.0, 0.25, 0.7]),
    batch=st.integers(1, 4),
    threshold=st.sampled_from([0.45, 0.5, 0.55]),
    least=st.integers(0, 30),
    seed=st.integers(0, 99),
)
def test_components_are_those_of_the_whole_map(
    size_hw, network, overlap, batch, threshold, least, seed
) -> None:
    """However many seams go through an image, its masks are those of the blended map as one."""
    image = np.random.default_rng(seed).integers(0, 256, (1, *size_hw), dtype=np.uint8)
    rule = ClassRule(threshold=threshold, min_component_area=least)
    whole = maps_of(network, image, overlap=overlap).whole()
    pieces = maps_of(network, image, overlap=overlap, batch=batch)
    assert postprocess_maps(pieces, [rule]) == [postprocess(whole[0], rule)]


@pytest.mark.parametrize("size_hw", [(100, 1000), (1000, 100)])
def test_a_scratch_over_all_seams_is_one(size_hw: tuple[int, int]) -> None:
    """No tile holds enough of it to be kept; together they do, and a speck is dropped."""
    image = strip(size_hw)
    n_labels, _, stats, _ = cv2.connectedComponentsWithStats((grey(image)[0] > 0.5).view(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA]
    assert n_labels == 3  # the background, the spot and the scratch
    scratch = sorted(areas)[1]
    assert scratch > 10 * 32 * 32
    rule = ClassRule(threshold=0.5, min_component_area=scratch)
    (found,) = postprocess_maps(maps_of(grey, image), [rule])
    assert found.area == scratch
    assert postprocess_maps(maps_of(grey, image), [RULE])[0].area == areas[1:].sum()


def test_a_huge_image_is_that_of_one_pass_in_the_middle_of_tiles() -> None:
    """4,096 x 8,192 in tiles of 1,024, through a network that sees 4 pixels around each."""
    image = strip((4096, 8192))
    whole = blurred(image[None])[0]
    size_hw, blocks = maps_of(blurred, image, (1024, 1024))
    blocks = list(blocks)
    found = Maps(size_hw, blocks).whole()
    for top, left in itertools.product(
        tile_starts(4096, 1024, 0.25), tile_starts(8192, 1024, 0.25)
    ):
        middle = (0, slice(top + 256, top + 768), slice(left + 256, left + 768))
        assert np.abs(found[middle] - whole[middle]).max() <= 1e-3
    mask_hw, expected_hw = ((maps[0] > 0.5).astype(np.uint8) for maps in (found, whole))
    assert cv2.connectedComponents(mask_hw)[0] == cv2.connectedComponents(expected_hw)[0]
    assert postprocess_maps(Maps(size_hw, blocks), [RULE]) == [postprocess(found[0], RULE)]


@pytest.mark.parametrize("is_tall", [False, True])
def test_memory_does_not_grow_with_the_length_of_a_line_scan(is_tall: bool) -> None:
    """Beside the image itself, and its masks."""

    def peak(length: int) -> int:
        image = np.zeros((1, length, 64) if is_tall else (1, 64, length), dtype=np.uint8)
        tracemalloc.start()
        assert postprocess_maps(maps_of(grey, image, (64, 64)), [RULE]) == [Prediction("", 0, 0)]
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    short = peak(4_000)
    assert short < 2**20
    assert peak(40_000) < short + 36_000 * 16  # the tiles' weights; the maps would take 256


def test_only_images_that_are_too_large_are_tiled_unasked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What differs for them is said, once."""
    monkeypatch.setattr(tiles, "WHOLE", 64 * 96)
    monkeypatch.setattr(inference, "TILE", (32, 64))
    inference._say_tiled.cache_clear()
    seen: list[tuple[int, ...]] = []

    def spy(images: np.ndarray) -> Float32:
        seen.append(images.shape)
        return grey(images)

    large_hw = RNG.integers(0, 256, (65, 96), dtype=np.uint8)
    images = [IMAGE[0], IMAGE[0], large_hw, large_hw]
    with caplog.at_level(logging.WARNING):
        found = answers(images, lambda image: image, Runtime(spy, 1, 2), lambda _, m: m.whole())
        for image_hw, maps_chw in found:
            np.testing.assert_allclose(maps_chw[0], grey(image_hw), atol=1e-6)
    assert seen[0] == (2, 1, 64, 96)
    assert {shape[2:] for shape in seen[1:]} == {(32, 64)}
    (message,) = caplog.messages
    assert "images of more than" in message
    assert "overlapping tiles of 32x64" in message
