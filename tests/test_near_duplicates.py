"""Near-duplicates: flips, turns and copies are found, look-alikes are not."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.data import near_duplicates
from steelseg.data.near_duplicates import (
    Pairs,
    find_cuts,
    find_pairs,
    group_ids,
    texture,
    thumbnail,
    turn,
)

DATA = Path(os.environ.get("STEELSEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
SEVERSTAL_HW = (256, 1600)


def make_steel(seed, size_hw=(200, 200)):
    """Draw a grey sheet, (H, W) uint8: mottling, streaks along the height, and grain."""
    rng = np.random.default_rng(seed)
    mottling = cv2.GaussianBlur(rng.normal(size=size_hw), (0, 0), size_hw[0] / 20)
    streaks = cv2.GaussianBlur(rng.normal(size=(1, size_hw[1])), (0, 0), 2)
    grain = rng.normal(size=size_hw)
    grey = 110 + 10 * mottling / mottling.std() + 10 * streaks / streaks.std() + 4 * grain
    return np.clip(grey, 0, 255).astype(np.uint8)


def add_black_band(image_hw, share):
    """Blacken the right end, as where a sheet ends before the picture does."""
    banded = image_hw.copy()
    banded[:, round(image_hw.shape[1] * (1 - share)) :] = 0
    return banded


def compress(image_hw, quality=50):
    """Write and read the image as a JPEG."""
    _, data = cv2.imencode(".jpg", image_hw, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def shift(image_hw, pixels):
    """Move the image down and to the right, continued by its mirror image."""
    return np.pad(image_hw, ((pixels, 0), (pixels, 0)), "reflect")[:-pixels, :-pixels]


def brighten(image_hw):
    """Take away contrast and add light."""
    return (image_hw * 0.7 + 40).astype(np.uint8)


def shrink(images):
    """Stack the thumbnails of images."""
    return np.stack([thumbnail(image) for image in images])


def correlate_plainly(a, b):
    """Correlate the pixels of two arrays, in the best of 8 turns: an independent oracle."""
    turned = [f(np.rot90(b, k)) for k in range(4) for f in (np.asarray, np.fliplr)]
    return max(np.corrcoef(a.ravel(), t.ravel())[0, 1] for t in turned)


def as_set(pairs):
    """Take the pairs as a set of tuples."""
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


@st.composite
def graphs(draw):
    """A number of images, and any pairs of them."""
    n = draw(st.integers(1, 30))
    members = st.integers(0, n - 1)
    return n, draw(st.lists(st.tuples(members, members), max_size=40))


def make_pairs(edges):
    """Take (first, second) tuples as pairs."""
    first, second = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    return Pairs(first, second, np.ones(len(edges), np.float32), np.zeros(len(edges), np.int8))


@pytest.mark.parametrize("transform", range(8))
def test_the_turns_of_a_square_image_are_found(transform):
    """Each of the 8 turns is found among other images, and named."""
    image = make_steel(0)
    turned = turn(image[None], transform)[0]
    images = shrink([make_steel(1), image, make_steel(2), turned])
    pairs = find_pairs(images, square=True)
    assert as_set(pairs) == {(1, 3)}
    assert pairs.correlation[0] > 0.99
    assert pairs.transform[0] == transform


@pytest.mark.parametrize("transform", range(4))
def test_the_turns_of_a_rectangle_are_found(transform):
    """Both flips and the half turn are found in images of 256x1600."""
    image = make_steel(0, SEVERSTAL_HW)
    turned = turn(image[None], transform)[0]
    pairs = find_pairs(shrink([image, make_steel(1, SEVERSTAL_HW), turned]), square=False)
    assert as_set(pairs) == {(0, 2)}
    assert pairs.transform.tolist() == [transform]


def test_quarter_turns_are_looked_for_in_squares_only():
    """A rectangle has no quarter turns, so they are not looked for."""
    image = make_steel(0)
    images = shrink([image, np.rot90(image)])
    assert as_set(find_pairs(images, square=False)) == set()
    assert as_set(find_pairs(images, square=True)) == {(0, 1)}


@pytest.mark.parametrize("size_hw", [(200, 200), SEVERSTAL_HW])
@pytest.mark.parametrize(
    "change",
    [
        compress,
        brighten,
        lambda image: shift(image, 1),
        lambda image: shift(image, 2),
        lambda image: compress(brighten(shift(image, 1))),
    ],
    ids=["jpeg", "light", "1 px", "2 px", "all"],
)
def test_a_photograph_is_found_again_after_small_changes(change, size_hw):
    """Recompression, another light and a shift by pixels leave the texture recognisable."""
    image = make_steel(0, size_hw)
    assert as_set(find_pairs(shrink([image, change(image)]), square=False)) == {(0, 1)}


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.8])
def test_a_common_black_band_makes_no_duplicates(share):
    """Different sheets that end at the same place are different, though plain pixels correlate."""
    images = [add_black_band(make_steel(seed, SEVERSTAL_HW), share) for seed in range(20)]
    assert as_set(find_pairs(shrink(images), square=False)) == set()
    again = [compress(image) for image in images]  # while the same sheet is still found
    pairs = find_pairs(shrink(images), shrink(again), square=False)
    assert as_set(pairs) == {(i, i) for i in range(20)}


def test_common_streaks_and_light_make_no_duplicates():
    """Sheets under one lamp with the same scratches along the strip are different."""
    light = np.linspace(-40, 40, 256)[:, None] + np.linspace(30, -30, 1600)
    light[:, [300, 304, 900, 1210]] += 90
    sheets = [np.clip(make_steel(seed, SEVERSTAL_HW) + light, 0, 255) for seed in range(20)]
    images = [sheet.astype(np.uint8) for sheet in sheets]
    assert np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1] > 0.7
    assert as_set(find_pairs(shrink(images), square=False)) == set()


def test_flat_sheets_do_not_chain():
    """Sheets of nothing but faint noise make no groups."""
    rng = np.random.default_rng(0)
    images = [rng.normal(128, 2, (200, 200)).astype(np.uint8) for _ in range(200)]
    pairs = find_pairs(shrink(images), square=True)
    assert group_ids(200, pairs).tolist() == list(range(200))


def test_images_without_texture_are_in_no_pair():
    """Constant images and ramps of light have nothing to be recognised by."""
    ramp = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    images = [np.full((200, 200), grey, np.uint8) for grey in (0, 0, 130, 255)]
    assert as_set(find_pairs(shrink([*images, ramp, ramp.T]), square=True)) == set()


def test_no_image_and_one_image_have_no_pairs():
    """The empty case is a case."""
    nothing = np.empty((0, 32, 32), np.float32)
    one = shrink([make_steel(0)])
    for pairs in (
        find_pairs(nothing, square=True),
        find_pairs(one, square=True),
        find_pairs(nothing, one, square=False),
        find_pairs(one, nothing, square=False),
    ):
        assert as_set(pairs) == set()
        assert [field.dtype for field in pairs] == [np.int64, np.int64, np.float32, np.int8]
    assert group_ids(0, find_pairs(nothing, square=True)).shape == (0,)


def test_pairs_equal_a_plain_loop(monkeypatch):
    """Every pair and every correlation is the one that np.corrcoef finds, over block borders."""
    monkeypatch.setattr(near_duplicates, "_BLOCK", 5)
    photographs = [make_steel(seed) for seed in range(4)]
    images = [*photographs, *(np.rot90(p) for p in photographs), *(p[::-1] for p in photographs)]
    thumbnails = shrink([shift(image, 1 + i % 3) for i, image in enumerate(images)])
    textures = texture(thumbnails)
    expected = {
        (i, j): correlate_plainly(textures[i], textures[j]) for j in range(12) for i in range(j)
    }
    pairs = find_pairs(thumbnails, square=True, threshold=0.1)
    assert list(zip(pairs.first, pairs.second, strict=True)) == sorted(
        pair for pair, correlation in expected.items() if correlation >= 0.1
    )
    for i, j, correlation, transform in zip(*pairs, strict=True):
        assert correlation == pytest.approx(expected[i, j], abs=1e-5)
        turned = turn(textures[i : i + 1], transform)
        assert correlation == pytest.approx((turned * textures[j]).sum(), abs=1e-5)


def test_texture_equals_a_plain_loop():
    """The matrix products are a blur along each axis, taken away, and a division by contrast."""

    def blur(line):
        weights = [np.exp(-((np.arange(len(line)) - i) ** 2) / 8) for i in range(len(line))]
        return np.array([np.average(line, weights=w) for w in weights])

    grey = thumbnail(make_steel(3)).astype(np.float64)
    detail = grey - np.apply_along_axis(blur, 0, grey)
    detail -= np.apply_along_axis(blur, 1, detail)
    power = np.apply_along_axis(blur, 1, np.apply_along_axis(blur, 0, detail**2))
    detail /= np.sqrt(power + 1)
    expected = (detail - detail.mean()) / detail.std() / grey.shape[0]
    np.testing.assert_allclose(texture(grey[None].astype(np.float32))[0], expected, atol=1e-5)


def test_pairs_across_are_the_pairs_within_both():
    """Pairs between two sets are those of their union that have a member in each."""
    images = [make_steel(seed) for seed in range(5)]
    a, b = shrink(images), shrink([np.rot90(images[3]), make_steel(9), images[0][:, ::-1]])
    across = find_pairs(a, b, square=True)
    within = find_pairs(np.concatenate([a, b]), square=True)
    assert as_set(across) == {(0, 2), (3, 0)}
    assert as_set(within) == {(i, j + 5) for i, j in as_set(across)}


def test_inputs_are_left_alone():
    """Neither the image nor the thumbnails are written to."""
    image = make_steel(0)
    image.flags.writeable = False
    thumbnails = shrink([image, image])
    thumbnails.flags.writeable = False
    assert as_set(find_pairs(thumbnails, square=True)) == {(0, 1)}


@pytest.mark.parametrize("shape", [(200, 200, 3), (200,), (0, 5)])
def test_a_thumbnail_needs_a_grey_image(shape):
    """Colour, lines and nothing are refused."""
    with pytest.raises(ValueError, match=r"Expected `image_hw` of shape \(H, W\)"):
        thumbnail(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    "shapes", [((2, 32), (2, 32)), ((2, 32, 16), None), ((2, 8, 8), (2, 9, 9))]
)
def test_thumbnails_of_other_shapes_are_refused(shapes):
    """Thumbnails are square and of one size."""
    a, b = (None if shape is None else np.zeros(shape, np.float32) for shape in shapes)
    with pytest.raises(ValueError, match=r"Expected \(N, T, T\) thumbnails"):
        find_pairs(a, b, square=False)


def test_group_ids_are_numbered_by_first_members():
    """A chain is one group, a single image is another."""
    assert group_ids(6, make_pairs([(1, 5), (3, 5)])).tolist() == [0, 1, 2, 1, 3, 1]


@given(graphs())
def test_groups_are_the_connected_components(graph):
    """Members reach each other over pairs, and groups are numbered by their first members."""
    n, edges = graph
    ids = group_ids(n, make_pairs(edges))
    expected = list(range(n))  # the first member of each image's group
    for _ in range(n):
        for one, other in edges:
            expected[one] = expected[other] = min(expected[one], expected[other])
    numbers = {first: i for i, first in enumerate(dict.fromkeys(expected))}
    assert ids.tolist() == [numbers[first] for first in expected]


@given(graphs(), st.randoms(use_true_random=False))
def test_groups_do_not_depend_on_the_order_of_images(graph, random):
    """Renamed images, and pairs in another order, make the same groups."""
    n, edges = graph
    names = random.sample(range(n), n)
    renamed = [(names[i], names[j]) for i, j in edges]
    random.shuffle(renamed)
    ids, other = group_ids(n, make_pairs(edges)), group_ids(n, make_pairs(renamed))[names]
    assert len(set(zip(ids.tolist(), other.tolist(), strict=True))) == len(set(ids.tolist()))
    assert len(set(ids.tolist())) == len(set(other.tolist()))


def read_real(folder, n_images):
    """Read the first grey images of a folder of real data, or skip the test."""
    paths = sorted((DATA / folder).glob("*.jpg"))[:n_images]
    if not paths:
        pytest.skip(f"no images in {DATA / folder}: set STEELSEG_DATA")
    return np.stack([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths])


def split_into_tiles(image_hw):
    """Cut the detail of a 200x200 image into 100 tiles of 20x20, each of mean 0 and norm 1."""
    grey = image_hw.astype(np.float32)
    tiles = (grey - cv2.GaussianBlur(grey, (0, 0), 5)).reshape(10, 20, 10, 20).swapaxes(1, 2)
    tiles = tiles.reshape(100, 400) - tiles.reshape(100, 400).mean(axis=1, keepdims=True)
    return tiles / np.maximum(np.linalg.norm(tiles, axis=1, keepdims=True), 1e-3)


@pytest.mark.realdata
def test_neu_seg_variants_are_found_and_nothing_else():
    """All variants are found, and what is found shares at least a tenth of its pixels.

    Some images of NEU-Seg are composites, with a part of another image pasted in; so fewer pixels
    than all may be the same.
    """
    images = read_real("neu-seg/train_images", 400)
    halves = [cv2.resize(image, (100, 100), interpolation=cv2.INTER_AREA) for image in images]
    details = np.stack([h - cv2.GaussianBlur(h.astype(np.float32), (0, 0), 4) for h in halves])
    details /= np.sqrt((details**2).sum(axis=(1, 2), keepdims=True))
    flat = details.reshape(400, -1)
    turned = [turn(details, transform).reshape(400, -1) for transform in range(8)]
    variants = np.max([flat @ t.T for t in turned], axis=0) > 0.95
    pairs = find_pairs(shrink(images), square=True)
    assert set(zip(*np.nonzero(np.triu(variants, 1)), strict=True)) <= as_set(pairs)
    assert len(pairs.first) > 60
    for i, j, transform in zip(pairs.first, pairs.second, pairs.transform, strict=True):
        same = split_into_tiles(turn(images[i : i + 1], transform)[0]) * split_into_tiles(images[j])
        assert (same.sum(axis=1) > 0.8).mean() >= 0.1


@pytest.mark.realdata
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.8, 0.9])
def test_severstal_images_are_found_only_when_changed_copies(share):
    """Different sheets are no pairs, with a common black band or not; copies are."""
    images = read_real("severstal-mini/train_images", 22)
    # where most of the sheet is missing already, a band leaves nothing that could be recognised
    images = [
        add_black_band(image, share) for image in images if (image[:, :160] > 20).mean() > 0.9
    ]
    thumbnails = shrink(images)
    assert len(images) >= 12
    assert as_set(find_pairs(thumbnails, square=False)) == set()
    copies = shrink([compress(brighten(shift(image[::-1, ::-1], 1))) for image in images])
    pairs = find_pairs(thumbnails, copies, square=False)
    assert as_set(pairs) == {(i, i) for i in range(len(images))}
    assert set(pairs.transform.tolist()) == {3}


def photograph(seed, exposure=1.0):
    """A tile of 300x260 as it is photographed: gain and offset, saturated light, and grain."""
    rng = np.random.default_rng([seed, round(100 * exposure)])
    steel = make_steel(seed, (300, 260)) * exposure + 20 / exposure
    return np.clip(steel + 2 * rng.normal(size=steel.shape), 0, 235).astype(np.uint8)


def cut(image_hw, top, left, bottom=0, right=0):
    """Cut margins away, as a program that looks for the edges of a tile does."""
    height, width = image_hw.shape
    return image_hw[top : height - bottom, left : width - right]


CUTS = [
    cut(photograph(0, 0.6), 5, 4),
    cut(photograph(0, 1.0), 14, 8, 3, 12),
    cut(photograph(0, 1.8), 0, 13, 20, 2),
    cut(photograph(1, 0.6), 5, 4),
    cut(photograph(1, 1.8), 14, 8, 3, 12),
    cut(photograph(2, 1.0), 0, 13, 20, 2),
]


def find_cuts_of(images, others=None, square=False):
    """The pairs of other crops among images, or of images and others."""
    sizes = [image.shape for image in images]
    if others is None:
        return as_set(find_cuts(shrink(images), sizes, square=square))
    other_sizes = [image.shape for image in others]
    return as_set(find_cuts(shrink(images), sizes, shrink(others), other_sizes, square=square))


def test_other_exposures_and_crops_of_one_tile_are_found():
    """Where a crop differs by a cell of the thumbnail or two, textures do not lie on each other."""
    pairs = find_cuts_of(CUTS)
    assert group_ids(len(CUTS), make_pairs(sorted(pairs))).tolist() == [0, 0, 0, 1, 1, 2]
    assert not pairs <= as_set(find_pairs(shrink(CUTS), square=False))
    assert find_cuts_of(CUTS[:3], CUTS[3:]) == set()
    assert find_cuts_of(CUTS[3:4], CUTS) >= {(0, 3), (0, 4)}


@pytest.mark.parametrize("transform", range(8))
def test_other_crops_are_found_in_any_turn(transform):
    """The sides of the turned image are compared, not its own."""
    turned = turn(CUTS[1][None], transform)[0]
    assert find_cuts_of([turned, CUTS[0]], square=True) == {(0, 1)}
    assert find_cuts_of([CUTS[0], turned, CUTS[3]], square=True) == {(0, 1)}


def test_crops_of_very_different_size_are_no_slightly_other_crops():
    """Nor are black images anything, or images that show something at an edge alone."""
    assert find_cuts_of([CUTS[0], cut(photograph(0, 1.0), 5, 4, 100)]) == set()
    black = np.zeros((300, 260), np.uint8)
    spot, other = black.copy(), black[1:].copy()
    spot[:9, :9] = make_steel(5, (9, 9))
    other[:9, :12] = make_steel(6, (9, 12))
    assert find_cuts_of([black, black[1:], spot, other]) == set()


@pytest.mark.realdata
def test_exposures_of_real_tiles_are_found_and_tiles_are_told_apart(real_data):
    """Of 60 tiles under six exposures each, nearly all stay whole and none is joined to another.

    A tile is a series of rising exposures with consecutive numbers, of which none is within 300 of
    another tile's: some were photographed again, or two by turns.
    """
    paths = sorted(
        (real_data / "magnetic-tile/train").rglob("exp*.jpg"),
        key=lambda path: int(path.stem.split("_")[2]),
    )
    steps = [tuple(map(int, (path.stem[3], path.stem.split("_")[2]))) for path in paths]
    new = [i == 0 or steps[i][0] <= steps[i - 1][0] for i in range(len(paths))]
    tiles = np.cumsum(new)
    apart = [
        np.flatnonzero(tiles == tile)
        for tile in range(1, tiles[-1] + 1)
        if (tiles == tile).sum() == 6
    ]
    chosen = [
        rows
        for rows in apart
        if (rows[0] == 0 or steps[rows[0]][1] - steps[rows[0] - 1][1] > 300)
        and (rows[-1] + 1 == len(steps) or steps[rows[-1] + 1][1] - steps[rows[-1]][1] > 300)
    ][:60]
    images = [cv2.imread(str(paths[row]), cv2.IMREAD_GRAYSCALE) for row in np.concatenate(chosen)]
    square, sizes = True, [image.shape for image in images]
    pairs = as_set(find_cuts(shrink(images), sizes, square=square))
    pairs |= as_set(find_pairs(shrink(images), square=square))
    found = group_ids(len(images), make_pairs(sorted(pairs))).reshape(-1, 6)
    assert len(found) == 60
    assert (found == found[:, :1]).all(axis=1).sum() >= 55
    assert len(np.unique(found[:, 0])) >= 57
