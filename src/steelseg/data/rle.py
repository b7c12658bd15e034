"""Run-length encoding of masks as in Kaggle's Severstal task.

An RLE is a string of `start length` pairs, 1-based, over the mask read column by column (top to
bottom, then left to right), sorted and not overlapping. An empty mask is the empty string:

    mask_hw          read column by column     RLE
    0 1 1            0 0 1 1 1 0               "3 3"
    0 1 0
"""

import cv2
import numpy as np
import numpy.typing as npt

from steelseg.core.arrays import Bool, Int64, Uint8
from steelseg.core.errors import BadInput

_DIGITS_AND_SPACES = b"0123456789 "
_NUMBER_LIMIT = 10**18  # beyond any image, and safely inside an int64
_SHOWN_CHARACTERS = 24


def _four_digit_texts() -> npt.NDArray[np.uint32]:
    """Write 0..9999 as four bytes each: first without leading zeros (NUL instead), then with."""
    digits = np.arange(10_000)[:, None] // (1000, 100, 10, 1) % 10  # (10000, 4)
    padded = (digits + ord("0")).astype(np.uint8)
    leading_zeros = np.cumsum(digits, axis=1) == 0
    texts = np.concatenate([np.where(leading_zeros, np.uint8(0), padded), padded])
    return texts.view(np.uint32).ravel()


_TEXTS = _four_digit_texts()
_SPACE = np.frombuffer(b" \0\0\0", dtype=np.uint32)[0]


def encode(mask_hw: Uint8) -> str:
    """Encode a mask; any non-zero pixel is foreground.

    Args:
        mask_hw: (H, W), uint8 or bool.

    Returns:
        The RLE, with every run as long as possible; an empty string for an empty mask.

    Raises:
        ValueError: the mask is not two-dimensional.
    """
    if mask_hw.ndim != 2:
        raise ValueError(f"Expected `mask_hw` of shape (H, W), but got {mask_hw.shape}")
    return to_string(find_runs(mask_hw))


def decode(rle: str, size_hw: tuple[int, int]) -> Uint8:
    """Decode an RLE into a mask.

    Args:
        rle: `start length` pairs; the empty string is an empty mask.
        size_hw: height and width of the mask in pixels.

    Returns:
        (H, W) uint8 of 0 and 1, in column-major memory order (the order that the RLE runs in).

    Raises:
        BadInput: the RLE is malformed or leaves the image (see `parse`).
    """
    return fill(parse(rle, size_hw), size_hw)


def parse(rle: str, size_hw: tuple[int, int]) -> Int64:
    """Read an RLE as runs and refuse illegal ones, before any memory is allocated for a mask.

    Returns:
        (N, 2) int64 of 0-based start and length, in pixels of the mask read column by column.

    Raises:
        BadInput: an odd number of values, a value that is not a whole number, a start or length
            below 1, a run past the end, or runs that overlap or are not sorted.
    """
    runs = _parse_values(rle).reshape(-1, 2)
    if not len(runs):
        return runs
    starts, lengths = runs[:, 0], runs[:, 1]
    _refuse(starts < 1, runs, "expected starts of at least 1")
    _refuse(lengths < 1, runs, "expected lengths of at least 1")
    stops = starts + lengths
    height, width = size_hw
    too_long = stops > height * width + 1
    _refuse(too_long, runs, f"runs past the end of {height}x{width} pixels")
    overlap = starts[1:] < stops[:-1]
    _refuse(overlap, runs[1:], "expected runs that are sorted and do not overlap")
    starts -= 1
    return runs


def area(rle: str) -> int:
    """Count the pixels of a legal RLE, whatever the size of its image."""
    return int(_parse_values(rle)[1::2].sum())


def find_runs(mask_hw: Uint8) -> Int64:
    """Find the foreground runs of a mask, read column by column: (N, 2) int64, start and length."""
    left, flat = _read_by_columns(mask_hw)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat[:1].any():
        edges = np.insert(edges, 0, 0)
    if flat[-1:].any():
        edges = np.append(edges, flat.size)
    runs = edges.reshape(-1, 2)
    runs[:, 1] -= runs[:, 0]
    runs[:, 0] += left * mask_hw.shape[0]
    return runs


def to_string(runs: Int64) -> str:
    """Write 0-based (N, 2) runs as an RLE string."""
    if not len(runs):
        return ""
    rest = runs.ravel() + np.tile([1, 0], len(runs))
    n_chunks = -(-len(str(rest.max())) // 4)
    texts = np.full((len(rest), n_chunks + 1), _SPACE)  # four digits per chunk, NUL for no digit
    for i in reversed(range(n_chunks)):
        higher = rest // 10_000
        texts[:, i] = _TEXTS[rest - 10_000 * higher + 10_000 * (higher > 0)]
        rest = higher
    return texts.tobytes().translate(None, b"\0")[:-1].decode("ascii")


def fill(runs: Int64, size_hw: tuple[int, int]) -> Uint8:
    """Paint legal runs into a fresh (H, W) uint8 mask, in column-major memory order."""
    height, width = size_hw
    borders = np.zeros(2 * len(runs) + 2, dtype=np.int64)  # 0, start, stop, start, stop, ..., size
    borders[1:-1:2] = runs[:, 0]
    borders[2:-1:2] = runs[:, 0] + runs[:, 1]
    borders[-1] = height * width
    is_foreground = np.zeros(len(borders) - 1, dtype=np.uint8)
    is_foreground[1::2] = 1
    return np.repeat(is_foreground, borders[1:] - borders[:-1]).reshape(width, height).T


def _read_by_columns(mask_hw: Uint8) -> tuple[int, Bool]:
    """Return the first column with foreground, and the pixels from there to the last one."""
    bytes_hw = (mask_hw if mask_hw.itemsize == 1 else mask_hw != 0).view(np.uint8)
    columns = np.flatnonzero(np.bitwise_or.reduce(bytes_hw, axis=0))
    if not len(columns):
        return 0, np.zeros(0, dtype=bool)
    is_foreground = bytes_hw[:, columns[0] : columns[-1] + 1] != 0
    if is_foreground.T.flags.c_contiguous:
        return columns[0], is_foreground.T.ravel()
    # OpenCV transposes several times as fast as NumPy
    return columns[0], cv2.transpose(is_foreground.view(np.uint8)).ravel().view(np.bool_)


def _parse_values(rle: str) -> Int64:
    if not rle.isascii() or rle.encode("ascii").translate(None, _DIGITS_AND_SPACES):
        bad = next((t for t in rle.split() if not (t.isascii() and t.isdigit())), rle)
        raise BadInput(f"expected whole numbers separated by spaces, but got {_shorten(bad)!r}")
    # NumPy reads blank text as a zero, and a number that is too long as the largest int64
    values = np.fromstring(rle.strip(), dtype=np.int64, sep=" ")
    if len(values) % 2:
        raise BadInput(f"expected pairs of start and length, but got {len(values)} values")
    if len(values) and values.max() >= _NUMBER_LIMIT:
        longest = max(rle.split(), key=len)
        raise BadInput(f"expected numbers inside the image, but got {_shorten(longest)!r}")
    return values


def _refuse(wrong: Bool, runs: Int64, expected: str) -> None:
    if wrong.any():
        start, length = runs[int(wrong.argmax())]
        raise BadInput(f"run `{start} {length}`: {expected}")


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
