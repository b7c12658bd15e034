"""Near-duplicate images: copies, flips and turns of one photograph, which must share a fold.

Plain thumbnails of steel correlate whenever two images share a black band, a streak or the
lighting, so a thumbnail is reduced to its texture first: the background is removed along both axes,
which also removes edges parallel to an axis, and the contrast is made uniform. Then different
photographs correlate below 0.4 and one photograph, recompressed or shifted by a pixel, above 0.7.
Only where less than a tenth of two pictures shows steel can they be confused.

Images of different sizes were cropped by hand or by a program, so that even two images of one
object need not be aligned. They are found by blurred textures, which tolerate a shift, and then
slid over each other at one scale. In the magnetic tile data set, the best correlation of two
exposures of one tile is above 0.45 in 98 of 100 cases, and that of two tiles below 0.3.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from steelseg.core.arrays import Float16, Float32, Float64, Int8, Int64
from steelseg.core.pixels import Levels
from steelseg.core.sizes import Size

SIZE = 32
THRESHOLD = 0.5
CUT_THRESHOLD = 0.4  # of two images that are slid over each other
CUT_CANDIDATE = 0.4  # of two blurred textures without sliding; one unlike pair in 10,000 is above
_CUT_RATIO = 1.25  # of two sides; larger ratios are not slightly different crops
_CUT_MARGIN = 3  # cells that images are slid in each direction
_CUT_FLAT = 0.1  # least standard deviation to slide; magnetic tiles have 0.4 and more
_SIGMA = 2.0  # cells of the thumbnail; wider structures are background
_NOISE = 1.0  # grey levels; weaker texture is not amplified to full contrast
_FLAT = 1e-3  # RMS of a texture that is only rounding error
_BLOCK = 256  # images; bounds the memory to `_BLOCK` rows of the correlation matrix


class Pairs(NamedTuple):
    """Pairs of near-duplicates, sorted by `first`, then `second`; four arrays of one length.

    `transform` is the turn (see `turn`) that maps the first image onto the second.
    """

    first: Int64
    second: Int64
    correlation: Float32
    transform: Int8


def thumbnail(image_hw: Levels) -> Float32:
    """Shrink an image to (32, 32) float32 by averaging areas, in unrounded grey levels.

    Raises:
        ValueError: the image is not two-dimensional, or has no pixels.
    """
    if image_hw.ndim != 2 or not image_hw.size:
        raise ValueError(f"Expected `image_hw` of shape (H, W), but got {image_hw.shape}")
    grey = image_hw.astype(np.float32)  # uint8 would round away the texture of flat steel
    return np.asarray(cv2.resize(grey, (SIZE, SIZE), interpolation=cv2.INTER_AREA))


def find_pairs(
    a: Float16 | Float32,
    b: Float16 | Float32 | None = None,
    *,
    square: bool,
    threshold: float = THRESHOLD,
) -> Pairs:
    """Find the near-duplicates within `a`, or between `a` and `b`.

    Args:
        a: (N, T, T) thumbnails.
        b: (M, T, T) thumbnails; without them the pairs are within `a`, with first < second.
        square: whether to try quarter turns too, as for square images.
        threshold: least Pearson correlation of two textures, in the best of 4 or 8 turns. 0.5 also
            joins images that share about half of their area, 0.9 only whole copies.

    Returns:
        Each pair once, in its best turn. Images without texture are in no pair.

    Raises:
        ValueError: the thumbnails are not square or differ in size.
    """
    others = a if b is None else b
    if a.ndim != 3 or a.shape[1] != a.shape[2] or others.shape[1:] != a.shape[1:]:
        raise ValueError(f"Expected (N, T, T) thumbnails, but got {a.shape} and {others.shape}")
    return _correlate(texture(a), None if b is None else texture(b), square, threshold)


def find_cuts(
    a: Float16 | Float32,
    sizes_a: Sequence[Size],
    b: Float16 | Float32 | None = None,
    sizes_b: Sequence[Size] | None = None,
    *,
    square: bool,
) -> Pairs:
    """Find images of one object that were cropped slightly differently.

    Args:
        a: (N, T, T) thumbnails.
        sizes_a: height and width of each image in pixels, all of the same scale.
        b: (M, T, T) further thumbnails; without them the pairs are within `a`.
        sizes_b: of the images of `b`.
        square: whether to try quarter turns too.

    Returns:
        Each pair once, in the turn in which it was found, as from `find_pairs`.
    """
    others, sizes_others = (a, sizes_a) if b is None or sizes_b is None else (b, sizes_b)
    blurred_b = None if b is None else _blur(texture(b))
    found = _correlate(_blur(texture(a)), blurred_b, square, CUT_CANDIDATE)
    scores = np.zeros(len(found.first), np.float32)
    for at, (first, second, _, transform) in enumerate(zip(*found, strict=True)):
        height, width = sizes_a[first]
        size_hw = (width, height) if transform & 4 else (height, width)
        turned = turn(a[[first]].astype(np.float32), transform)[0]
        other = others[second].astype(np.float32)
        scores[at] = slide(turned, size_hw, other, sizes_others[second])
    kept = scores >= CUT_THRESHOLD
    return Pairs(found.first[kept], found.second[kept], scores[kept], found.transform[kept])


def slide(one: Float32, size_hw: Size, other: Float32, other_size_hw: Size) -> float:
    """Correlate two thumbnails at one scale, at the best position of the second's middle.

    Returns 0 if the sizes differ too much for slightly different crops.
    """
    ratios = [mine / others for mine, others in zip(size_hw, other_size_hw, strict=True)]
    if not all(1 / _CUT_RATIO <= ratio <= _CUT_RATIO for ratio in ratios):
        return 0
    height, width = (round(SIZE * ratio) for ratio in ratios)
    scaled: Float32 = np.empty((height, width), np.float32)
    cv2.resize(np.ascontiguousarray(one), (width, height), scaled)
    inner = slice(_CUT_MARGIN, -_CUT_MARGIN)
    middle = np.ascontiguousarray(_detail(other)[inner, inner])
    place = _detail(scaled)
    if middle.std() < _CUT_FLAT or min(np.subtract(place.shape, middle.shape)) < 0:
        return 0
    return float(cv2.matchTemplate(place, middle, cv2.TM_CCOEFF_NORMED).max())


def _correlate(
    texture_a: Float32, texture_b: Float32 | None, square: bool, threshold: float
) -> Pairs:
    """Find the pairs whose textures correlate, within `texture_a` if there is no `texture_b`."""
    within = texture_b is None
    flat_b = _flatten(texture_a if texture_b is None else texture_b)
    found = []
    for start in range(0, len(texture_a), _BLOCK):
        first_column = start if within else 0
        for transform in range(8 if square else 4):
            turned = _flatten(turn(texture_a[start : start + _BLOCK], transform))
            correlation = turned @ flat_b[first_column:].T  # (block, columns)
            hits = np.flatnonzero(correlation >= threshold)
            rows, columns = np.divmod(hits, correlation.shape[1])
            found.append((rows + start, columns + first_column, correlation.flat[hits], transform))
    return _keep_best(found, within)


def join(*parts: Pairs) -> Pairs:
    """Concatenate pairs, with repetitions."""
    first, second, correlation, transform = zip(*parts, strict=True)
    return Pairs(
        np.concatenate(first),
        np.concatenate(second),
        np.concatenate(correlation),
        np.concatenate(transform),
    )


def group_ids(n: int, pairs: Pairs) -> Int64:
    """Number the connected components of `n` images: (n,), from 0, by first member."""
    edges = np.ones(len(pairs.first), dtype=bool)
    graph = coo_array((edges, (pairs.first, pairs.second)), shape=(n, n))
    numbers: Int64 = connected_components(graph, directed=False)[1].astype(np.int64)
    return numbers


def texture(thumbnails: Float16 | Float32) -> Float32:
    """Reduce (N, T, T) thumbnails to textures of mean 0 and norm 1, or of zeros where flat."""
    textures = np.empty(thumbnails.shape, dtype=np.float32)
    for start in range(0, len(thumbnails), _BLOCK):  # in blocks, to bound the memory
        block = slice(start, start + _BLOCK)
        textures[block] = _texture_of_block(thumbnails[block].astype(np.float32))
    return textures


def _texture_of_block(thumbnails: Float32) -> Float32:
    return _normalise(_detail(thumbnails))


def _detail(thumbnails: Float32) -> Float32:
    """Remove the background of (..., H, W) images and make their contrast uniform."""
    rows, columns = (_blur_matrix(side, _SIGMA) for side in thumbnails.shape[-2:])
    sharpen_rows, sharpen_columns = (np.eye(len(m), dtype=np.float32) - m for m in (rows, columns))
    # one filter along each axis: straight edges and streaks vanish, corners stay
    detail: Float32 = sharpen_rows @ thumbnails @ sharpen_columns.T
    detail /= np.sqrt(rows @ detail**2 @ columns.T + np.float32(_NOISE**2))
    return detail


def _blur(textures: Float32) -> Float32:
    """Blur (N, T, T) textures by a cell in place, so that they tolerate a shift."""
    blur = _blur_matrix(textures.shape[-1], 1)
    for start in range(0, len(textures), _BLOCK):
        block = slice(start, start + _BLOCK)
        blurred = np.asarray(blur @ textures[block] @ blur.T, np.float32)
        textures[block] = _normalise(blurred)
    return textures


def _normalise(detail: Float32) -> Float32:
    """Scale (N, T, T) textures to mean 0 and norm 1, or zeros where flat, in place."""
    detail -= detail.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt((detail**2).sum(axis=(1, 2), keepdims=True))
    flat = norm < _FLAT * detail.shape[-1]
    detail /= np.where(flat, np.float32(np.inf), norm)
    return detail


def turn(images_nhw: Float32, transform: int) -> Float32:
    """Apply one of the 8 symmetries of a square to (N, H, W) images.

    Args:
        images_nhw: the images.
        transform: 0 to 7, three bits: 1 mirrors left and right, 2 then mirrors top and bottom,
            4 then swaps the axes. 0 to 3 are the symmetries of a rectangle, 3 is the half turn.
    """
    if transform & 1:
        images_nhw = images_nhw[:, :, ::-1]
    if transform & 2:
        images_nhw = images_nhw[:, ::-1]
    return images_nhw.swapaxes(1, 2) if transform & 4 else images_nhw


@cache
def _blur_matrix(size: int, sigma: float) -> Float32:
    """Build the (size, size) matrix of a Gaussian blur whose rows sum to 1 at the borders too."""
    offsets = np.arange(size)[:, None] - np.arange(size)
    weights: Float64 = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)


def _flatten(images_nhw: Float32) -> Float32:
    n, height, width = images_nhw.shape
    return np.ascontiguousarray(images_nhw).reshape(n, height * width)


def _keep_best(finds: list[tuple[Int64, Int64, Float32, int]], within: bool) -> Pairs:
    """Sort the finds and keep the turn of the highest correlation for each pair."""
    first = np.concatenate([np.empty(0, np.int64), *(find[0] for find in finds)])
    second = np.concatenate([np.empty(0, np.int64), *(find[1] for find in finds)])
    correlation = np.concatenate([np.empty(0, np.float32), *(find[2] for find in finds)])
    transform = np.concatenate([np.full(len(find[0]), find[3]) for find in finds] or [first])
    order = np.lexsort((transform, -correlation, second, first))
    if within:
        order = order[first[order] < second[order]]
    is_best = np.ones(len(order), dtype=bool)
    is_best[1:] = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    best = order[is_best]
    return Pairs(first[best], second[best], correlation[best], transform[best].astype(np.int8))
