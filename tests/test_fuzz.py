"""Tens of thousands of spoilt inputs: each is read soundly or refused as `BadInput`.

Any other exception fails a test, a crash of the interpreter ends the run, and a hang runs into the
time limit. The mutations are seeded, so that a failure comes again.
"""

import csv
import io
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from strategies import SAMPLE_CSV, TRAIN_CSV, noise, pivoted, to_bytes, write_dataset

from steelseg.core.errors import BadInput
from steelseg.core.pixels import GREY
from steelseg.data import fold_table, image_table, label_csv, rle
from steelseg.data.decoding import decode
from steelseg.data.images import MAX_PIXELS
from steelseg.model.card import RULES, read_card
from steelseg.predict import predictions
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.predictions import PredictionRow
from steelseg.predict.rules import Rules, read_rules, write_rules

SIZE_HW = (12, 20)
N_RLES, N_ROWS, N_JPEGS = 40_000, 20_000, 6_000
LIMIT_S = 120

Mutate = Callable[[np.random.Generator, bytes], bytes]


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    """Turn a hang into a failure."""

    def fail(_: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still busy after {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def flip_bits(rng: np.random.Generator, data: bytes) -> bytes:
    """Flip one to eight bits."""
    spoilt = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        spoilt[int(rng.integers(len(spoilt)))] ^= 1 << int(rng.integers(8))
    return bytes(spoilt)


def truncate(rng: np.random.Generator, data: bytes) -> bytes:
    """Keep a part from the front."""
    return data[: int(rng.integers(len(data)))]


def splice(rng: np.random.Generator, data: bytes) -> bytes:
    """Copy a piece from one place over, or into, another."""
    start, stop = sorted(rng.integers(len(data) + 1, size=2).tolist())
    to = int(rng.integers(len(data) + 1))
    behind = to + (stop - start) * int(rng.integers(2))
    return data[:to] + data[start:stop] + data[behind:]


def blank(rng: np.random.Generator, data: bytes) -> bytes:
    """Fill a piece with one byte, as lost sectors of a disk are."""
    start, stop = sorted(rng.integers(len(data) + 1, size=2).tolist())
    return data[:start] + bytes([int(rng.choice([0, 255]))]) * (stop - start) + data[stop:]


def swap_tokens(rng: np.random.Generator, data: bytes) -> bytes:
    """Put another number or sign in a place between two blanks or commas."""
    parts = re.split(rb"([ ,_\n])", data)
    parts[int(rng.integers(len(parts)))] = TOKENS[int(rng.integers(len(TOKENS)))]
    return b"".join(parts)


NUMBERS = "0 1 2 240 241 007 -1 +1 1.0 1e3 0x1 nan \u0661 \u00b2".encode().split(b" ")
NAMES = [b"../a.jpg", b"/a.jpg", b"a\\b.jpg", b"<b>", b"a" * 300]
SIGNS = [b"", b" ", b"\t", b"\0", b"\r", b"\n", b",", b'"', b"\xef\xbb\xbf"]
TOKENS = [*NUMBERS, *NAMES, *SIGNS, b"9" * 18, b"9" * 19, b"9" * 30]
TEXT_MUTATIONS: list[Mutate] = [flip_bits, truncate, splice, swap_tokens, swap_tokens]
BYTE_MUTATIONS: list[Mutate] = [flip_bits, flip_bits, truncate, splice, blank]


def mutants(seeds: list[bytes], mutations: list[Mutate], n: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `n` mutants, each spoilt once or twice."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        data = seeds[int(rng.integers(len(seeds)))]
        for _ in range(int(rng.integers(1, 3))):
            if data:
                data = mutations[int(rng.integers(len(mutations)))](rng, data)
        yield data


def legal_pixels(text: str) -> list[bool] | None:
    """Decode an RLE in the plainest way: the mask by columns, None if the RLE is not legal."""
    if not re.fullmatch(r" *([0-9]+( +[0-9]+)*)? *", text):
        return None
    numbers = [int(number) for number in text.split()]
    n_pixels = SIZE_HW[0] * SIZE_HW[1]
    pixels = [False] * n_pixels
    last = 0
    if len(numbers) % 2:
        return None
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        if start < 1 or length < 1 or start <= last or start + length > n_pixels + 1:
            return None
        last = start + length - 1
        pixels[start - 1 : last] = [True] * length
    return pixels


def plain_rle(pixels: list[bool]) -> str:
    """Encode a mask read by columns in the plainest way."""
    edges = [i for i, (a, b) in enumerate(pairwise([False, *pixels, False])) if a != b]
    return " ".join(f"{a + 1} {b - a}" for a, b in zip(edges[::2], edges[1::2], strict=True))


def random_rles(n: int) -> list[bytes]:
    """RLEs of masks with runs of every length, and of no run."""
    rng = np.random.default_rng(1)
    masks = [rng.random(SIZE_HW) < rng.random() ** 3 for _ in range(n)]
    return [rle.encode(mask.astype(np.uint8)).encode() for mask in masks] + [b"", b"1 240"]


def test_rles_are_read_exactly_or_refused() -> None:
    """What is accepted is what the rules allow, decodes to those pixels, and encodes back."""
    outcomes: Counter[str] = Counter()
    for data in mutants(random_rles(60), TEXT_MUTATIONS, N_RLES):
        text = data.decode("utf-8", "surrogateescape")
        expected = legal_pixels(text)
        try:
            mask_hw = rle.decode(text, SIZE_HW)
        except BadInput:
            assert expected is None, text
            outcomes["refused"] += 1
        else:
            assert expected is not None, text
            assert mask_hw.T.ravel().tolist() == expected
            assert rle.encode(mask_hw) == plain_rle(expected)
            outcomes["accepted"] += 1
    assert outcomes.total() == N_RLES
    assert outcomes["accepted"] > 1000
    assert outcomes["refused"] > 10_000


def test_csv_rows_are_read_exactly_or_refused(tmp_path: Path) -> None:
    """What is accepted names files and classes that may be, and reads back when written again."""
    path = tmp_path / "labels.csv"
    rles = random_rles(20)
    seeds = [b"a_1.jpg,2," + r + b"\n" for r in rles] + [b'"a.jpg",1,"' + r + b'"\n' for r in rles]
    joined = [b"a_1.jpg_2," + r + b"\n" for r in rles]
    outcomes: Counter[str] = Counter()
    for header, rows in (
        (b"ImageId,ClassId,EncodedPixels\n", seeds),
        (b"ImageId_ClassId,EncodedPixels\n", joined),
    ):
        for data in mutants(rows, TEXT_MUTATIONS, N_ROWS // 2):
            outcomes[_read_csv(path, header + data)] += 1
    assert outcomes.total() == N_ROWS
    assert outcomes["accepted"] > 1000
    assert outcomes["refused"] > 3000


def _read_csv(path: Path, data: bytes) -> str:
    path.unlink(missing_ok=True)  # some file systems flush a file that is written over
    path.write_bytes(data)
    try:
        labels = label_csv.read(path)
    except BadInput:
        return "refused"
    for image in labels.clean:
        assert not {"\\", "\n", "\0"} & set(image)
        assert ".." not in image.split("/")
    for row in labels.rows:
        assert not {"\\", "\n", "\0"} & set(row.image)
        assert ".." not in row.image.split("/")
        assert 1 <= row.class_id <= 1000
    rows = [row[:3] for row in labels.rows]
    text = io.StringIO(newline="")
    clean = [(image, "", "") for image in labels.clean]
    csv.writer(text).writerows([("ImageId", "ClassId", "EncodedPixels"), *rows, *clean])
    path.unlink()
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    back = label_csv.read(path)
    assert ([row[:3] for row in back.rows], list(back.clean)) == (rows, list(labels.clean))
    return "accepted"


def test_whole_csv_files_are_read_or_refused(tmp_path: Path) -> None:
    """Headers, quotes and encodings are spoilt too."""
    outcomes: Counter[str] = Counter()
    for data in mutants([TRAIN_CSV.encode(), SAMPLE_CSV.encode()], TEXT_MUTATIONS, 2000, seed=2):
        outcomes[_read_csv(tmp_path / "labels.csv", data)] += 1
    assert outcomes["accepted"] > 100
    assert outcomes["refused"] > 1000


@pytest.mark.filterwarnings("ignore:::PIL")
def test_jpegs_are_decoded_or_refused() -> None:
    """What is accepted has pixels, not too many, and always the same."""
    even = np.full((16, 24), 100, np.uint8)
    colour = np.dstack([noise(1, (40, 32)), noise(2, (40, 32)), noise(3, (40, 32))])
    seeds = [
        to_bytes(even, "JPEG"),
        to_bytes(noise(1, (16, 24)), "JPEG", quality=40),
        to_bytes(noise(2, (33, 25)), "JPEG", progressive=True),
        to_bytes(noise(3, (24, 40)), "JPEG", restart_marker_blocks=2),
        to_bytes(colour, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    ]
    outcomes: Counter[str] = Counter()
    for data in mutants(seeds, BYTE_MUTATIONS, N_JPEGS):
        try:
            image_hw = decode(data, GREY)
        except BadInput:
            outcomes["refused"] += 1
        else:
            assert image_hw.dtype == np.uint8
            assert image_hw.ndim == 2
            assert 0 < image_hw.size <= MAX_PIXELS
            np.testing.assert_array_equal(image_hw, decode(data, GREY))
            outcomes["accepted"] += 1
    assert outcomes.total() == N_JPEGS
    assert outcomes["accepted"] > 300
    assert outcomes["refused"] > 1500


def write_table(path: Path) -> None:
    """Write the annotations of a small data set."""
    root = write_dataset(path.parent / "raw")
    image_table.write(path, pivoted(root)[0])


def write_predictions(path: Path) -> None:
    """Write some predictions."""
    rows = [PredictionRow(f"{i}.jpg", 1 + i % 2, "1 3" * (i % 3), i, i / 8) for i in range(8)]
    predictions.write_predictions(path, rows)


def write_folds(path: Path) -> None:
    """Write a fold table."""
    columns = {"image": ["a", "b", "c"], "fold": [0, 1, 1], "group": [0, 1, 2]}
    fold_table.write(path, pd.DataFrame(columns).assign(combination=["clean", "1", "1+2"]), "x")


def read_folds(path: Path) -> Any:
    """Read all of a fold table's content."""
    return fold_table.read(path, ["a", "b", "c"], "x").to_dict()


def read_table(path: Path) -> Any:
    """Read all of a table's content."""
    table = image_table.read(path)
    return table.classes, table.table.to_pydict(), table.thumbnails.tolist()


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (write_table, read_table),
        (write_predictions, predictions.read_predictions),
        (write_folds, read_folds),
    ],
)
def test_damaged_tables_are_what_was_written_or_refused(
    write: Callable[[Path], None], read: Callable[[Path], Any], tmp_path: Path
) -> None:
    """No damage goes unnoticed, except where nobody reads."""
    path = tmp_path / "table.parquet"
    write(path)
    sound, expected = path.read_bytes(), read(path)
    outcomes: Counter[str] = Counter()
    for data in mutants([sound], BYTE_MUTATIONS, 1000):
        path.write_bytes(data)
        try:
            assert read(path) == expected
            outcomes["same"] += 1
        except BadInput:
            outcomes["refused"] += 1
    assert outcomes["same"] > 10
    assert outcomes["refused"] > 500


def test_damaged_rules_are_what_was_written_or_refused(tiny_model: Path, tmp_path: Path) -> None:
    """Another threshold would be legal, and every prediction wrong in silence."""
    path, card = tmp_path / RULES, read_card(tiny_model)
    by_class = {1: ClassRule(), 2: ClassRule(threshold=0.25, min_area=600, gate=0.5)}
    write_rules(tmp_path, Rules(by_class, card.weights_sha256))
    sound, expected = path.read_bytes(), read_rules(tmp_path, card)
    outcomes: Counter[str] = Counter()
    for data in mutants([sound], [*BYTE_MUTATIONS, swap_tokens], 1000):
        path.write_bytes(data)
        try:
            rules = read_rules(tmp_path, card)
        except BadInput:
            outcomes["refused"] += 1
        else:
            assert rules == expected
            outcomes["same"] += 1
    assert outcomes["refused"] > 500
