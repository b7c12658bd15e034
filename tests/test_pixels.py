"""Colours, several lights, 16 bits and floating point: what a file holds reaches its readers."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from strategies import noise, png, to_bytes
from test_images import TURN
from tiffs import tiff

from steelseg.core.errors import BadInput
from steelseg.core.pixels import GREY, RGB, PixelFormat, is_black, own_limits, to_picture
from steelseg.data import decoding, inspection
from steelseg.data.decoding import Look, decode, look, read_levels
from steelseg.data.images import read_bytes
from steelseg.data.inspection import Inspection, choose_format, inspect_folder, losses

DEEP = PixelFormat(depth=16, low=0, high=65535)
DEEP_RGB = PixelFormat(channels=3, depth=16, low=0, high=65535)
SIZE_HW = (5, 7)
KINDS = {"u1": 8, "u2": 16, "i2": 32, "i4": 32, "f4": 32}


def levels(seed: int, dtype: str, *shape: int) -> Any:
    """Noise of a type, small enough for any of them."""
    most = 256 if dtype == "u1" else 30_000
    return np.random.default_rng(seed).integers(0, most, shape or SIZE_HW).astype(dtype)


def deep_png(image: Any, *chunks: bytes) -> bytes:
    """Write (H, W), (H, W, 3) or (H, W, 4) uint16 as a PNG, with further chunks."""
    colour_type = {2: 0, 3: 2}[image.ndim] if image.shape[-1] != 4 else 6
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    data = png(image.shape[:2], 16, colour_type, rows)
    return data[:33] + b"".join(chunks) + data[33:]


@given(
    st.integers(0, 99),
    st.sampled_from(sorted(KINDS)),
    st.integers(1, 5),
    st.sampled_from("<>"),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_the_pages_of_a_tiff_come_back(
    seed: int, dtype: str, n_pages: int, order: str, size_hw: tuple[int, int]
) -> None:
    """As one channel each, in their order and to the last bit, from either order of bytes."""
    pages = [levels(seed + page, dtype, *size_hw) for page in range(n_pages)]
    data = tiff(pages, order)
    assert look(data) == Look(KINDS[dtype], n_pages, False, False, n_pages > 1)
    pixels = PixelFormat(channels=n_pages, depth=KINDS[dtype])  # type: ignore[arg-type]
    expected = np.stack(pages) if n_pages > 1 else pages[0]
    np.testing.assert_array_equal(read_levels(data, pixels), expected)


@given(st.integers(0, 99), st.sampled_from(["u1", "u2"]), st.sampled_from("<>"))
def test_colours_come_back(seed: int, dtype: str, order: str) -> None:
    """Both bytes of 16 bits, of which Pillow keeps one."""
    image = levels(seed, dtype, *SIZE_HW, 3)
    pixels = PixelFormat(channels=3, depth=KINDS[dtype])  # type: ignore[arg-type]
    files = [tiff([image], order)] + [deep_png(image)] * (dtype == "u2")
    for data in files:
        np.testing.assert_array_equal(read_levels(data, pixels), np.moveaxis(image, -1, 0))


def test_the_transparency_of_16_bits_is_passed_over() -> None:
    """As that of 8 bits is."""
    image = levels(1, "u2", *SIZE_HW, 4)
    assert look(deep_png(image)).transparent
    found = read_levels(deep_png(image), DEEP_RGB)
    np.testing.assert_array_equal(found, np.moveaxis(image[..., :3], -1, 0))


@pytest.mark.parametrize("orientation", TURN)
def test_every_page_and_colour_is_turned(orientation: int) -> None:
    """As grey of 8 bits is, to what viewers show."""
    turn: Any = TURN[orientation]
    pages = [levels(page, "u2") for page in range(2)]
    lights = PixelFormat(channels=2, depth=16)
    found = read_levels(tiff(pages, orientation=orientation), lights)
    np.testing.assert_array_equal(found, np.stack([turn(page) for page in pages]))
    image = levels(3, "u2", *SIZE_HW, 3)
    exif = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 1, orientation, 0)
    chunk = b"eXIf" + exif
    framed = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    expected = np.stack([turn(image[..., channel]) for channel in range(3)])
    for data in (deep_png(image, framed), tiff([image], orientation=orientation)):
        np.testing.assert_array_equal(read_levels(data, DEEP_RGB), expected)
        assert decoding.read_levels(data, DEEP_RGB).flags.c_contiguous
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    jpeg = to_bytes(Image.fromarray(levels(4, "u1", 40, 24, 3)), "JPEG", exif=tags)
    plain = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    turned = np.stack([turn(plain[..., channel]) for channel in range(3)])
    np.testing.assert_array_equal(decode(jpeg, RGB), turned)


def test_grey_among_colours_is_three_times_the_same_and_colour_among_grey_its_luminance() -> None:
    """A data set may hold both; the grey of colours is Pillow's, at 16 bits as at 8."""
    grey_hw, image = noise(1), levels(2, "u1", *SIZE_HW, 3)
    np.testing.assert_array_equal(decode(to_bytes(grey_hw, "PNG"), RGB), np.stack([grey_hw] * 3))
    deep_hw = levels(1, "u2")
    np.testing.assert_array_equal(decode(deep_png(deep_hw), DEEP_RGB), np.stack([deep_hw] * 3))
    luminance = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(decode(to_bytes(image, "PNG"), GREY), luminance)
    np.testing.assert_array_equal(decoding.fit_channels(np.moveaxis(image, -1, 0), 1), luminance)
    ours = read_levels(deep_png(image.astype(np.uint16) * 257), DEEP)
    assert np.abs(ours / 257 - luminance).max() < 1


REFUSED = {
    "16 bits among 8": (
        deep_png(levels(1, "u2")),
        GREY,
        "expected 8 bits per channel.*got 16 bits",
    ),
    "8 bits among 16": (
        to_bytes(noise(1), "PNG"),
        DEEP,
        "expected 16 bits per channel.*got 8 bits",
    ),
    "floats among 16": (tiff([levels(1, "f4")]), DEEP, "expected 16 bits.*got numbers of 32 bits"),
    "one page of two": (
        tiff([levels(1, "u1")]),
        PixelFormat(channels=2),
        "expected a TIFF of 2 pages of one size, one per light, but got an image of 1 channel",
    ),
    "colours instead of lights": (
        to_bytes(levels(1, "u1", *SIZE_HW, 3), "PNG"),
        PixelFormat(channels=4),
        "expected a TIFF of 4 pages.*but got an image of 3 channels",
    ),
    "pages of two sizes": (
        tiff([levels(1, "u1"), levels(1, "u1", 3, 3)]),
        PixelFormat(channels=2),
        "expected a TIFF of 2 pages",
    ),
    "no numbers": (
        tiff([np.full(SIZE_HW, np.nan, np.float32)]),
        PixelFormat(depth=32),
        "pixels that are NaN or infinite",
    ),
    "grey of 16 bits with alpha": (png(SIZE_HW, 16, 4), DEEP, "expected grey or RGB of 16 bits"),
    "planes of 16 bits": (
        tiff([levels(1, "u2", *SIZE_HW, 3)], planar=True),
        DEEP_RGB,
        "but got colour planes",
    ),
    "half a TIFF": (tiff([levels(1, "u2", 64, 64, 3)])[:9000], DEEP_RGB, "decoded|none of them"),
    "half a PNG": (deep_png(levels(1, "u2", 64, 64, 3))[:9000], DEEP_RGB, "decoded"),
}


@pytest.mark.parametrize(("data", "pixels", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(data: bytes, pixels: PixelFormat, message: str) -> None:
    """By one sentence that says what was expected."""
    with pytest.raises(BadInput, match=message):
        decode(data, pixels)


def test_pages_that_are_no_lights_are_no_channels() -> None:
    """A preview, a film, and pages that are too large together; the first page alone is read."""
    first = levels(1, "u1")
    for data in (tiff([first, levels(2, "u1", 2, 3)]), tiff([first] * (decoding.MAX_PAGES + 1))):
        assert look(data) == Look(8, 1, False, False, True)
        assert list(losses(look(data), GREY)) == ["pages"]
        np.testing.assert_array_equal(decode(data, GREY), first)
    three = tiff([first] * 3)
    assert decode(three, PixelFormat(channels=3), max_pixels=3 * first.size).shape == (3, *SIZE_HW)
    with pytest.raises(BadInput, match="expected a TIFF of 4 pages"):
        decode(tiff([first] * 4), PixelFormat(channels=4), max_pixels=3 * first.size)


def test_a_bomb_in_a_later_page_is_not_decoded() -> None:
    """Its header is looked at before anything is made of it."""
    data = bytearray(tiff([levels(1, "u1"), levels(2, "u1")]))
    width = struct.pack("<HHII", 256, 4, 1, SIZE_HW[1])
    at = data.rindex(width)
    data[at : at + 12] = struct.pack("<HHII", 256, 4, 1, 2**31 - 1)
    assert look(bytes(data)).lights == 1
    np.testing.assert_array_equal(decode(bytes(data), GREY), levels(1, "u1"))


GREY_LOOK, COLOUR_LOOK = (Look(8, 1, is_coloured, False, False) for is_coloured in (False, True))
LIGHTS_LOOK, DEEP_LOOK = Look(8, 4, False, False, True), Look(16, 1, False, False, False)


@pytest.mark.parametrize(
    ("looks", "channels", "expected"),
    [
        ([GREY_LOOK] * 3, "auto", (1, 8)),
        ([GREY_LOOK] * 99 + [COLOUR_LOOK], "auto", (3, 8)),
        ([GREY_LOOK] * 99 + [COLOUR_LOOK], "grey", (1, 8)),
        ([GREY_LOOK] * 3, "rgb", (3, 8)),
        ([LIGHTS_LOOK] * 2 + [GREY_LOOK], "auto", (4, 8)),
        ([LIGHTS_LOOK] + [GREY_LOOK] * 2, "auto", (1, 8)),
        ([DEEP_LOOK] * 2 + [GREY_LOOK], "auto", (1, 16)),
        ([DEEP_LOOK] + [GREY_LOOK] * 2, "auto", (1, 8)),
        ([], "auto", (1, 8)),
    ],
)
def test_pixels_are_what_the_images_show(
    looks: list[Look], channels: Any, expected: tuple[int, int]
) -> None:
    """Any colour counts; of depths and numbers of pages, the most common."""
    chosen = choose_format(looks, channels)
    assert (chosen.channels, chosen.depth) == expected


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_colours_of_cameras_with_fewer_bits_are_seen(bits: int) -> None:
    """What counts is how far channels differ from what the camera calls white."""
    most = 2**bits - 1
    image = np.full((24, 32, 3), most // 2, np.uint16)
    image[:2] = most
    assert not look(deep_png(image)).coloured
    image[8:12, 8:12, 0] = most
    assert look(deep_png(image)).coloured


def test_limits_pass_over_hot_pixels_and_keep_small_defects() -> None:
    """Three pixels of a 256x1600 frame are a sensor's, a spot of 10x10 is none."""
    image_hw = np.random.default_rng(1).integers(1000, 2000, (256, 1600)).astype(np.uint16)
    image_hw[0, :3] = 65535
    assert own_limits(image_hw)[1] < 2000
    image_hw[100:110, 100:110] = 3000
    assert own_limits(image_hw) == (1000, 3000)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.lists(st.floats(0, 1), min_size=1))
def test_levels_are_spread_between_the_limits(low: float, span: float, shares: list[float]) -> None:
    """To the nearest of 65,536, black and white at the limits and beyond."""
    pixels = PixelFormat(depth=32, low=low, high=low + span)
    given_levels = low + span * np.array([-1.0, 0, 1, 2, *shares])
    found = pixels.scale(given_levels[None])[0]
    assert found.dtype == np.uint16
    # as exactly as float32 has the levels, whose digits a large `low` takes
    step = max(abs(low), abs(low + span)) * 2**-22 / pixels.span * 65535 + 1
    assert np.abs(found - 65535 * np.array([0.0, 0, 1, 1, *shares])).max() <= step


@given(st.integers(0, 65534), st.integers(1, 65535))
def test_the_table_of_16_bits_is_the_rule_of_all_numbers(low: int, span: int) -> None:
    """Which is monotonic."""
    high = min(low + span, 65535)
    all_levels = np.arange(65536, dtype=np.uint16)
    found = PixelFormat(depth=16, low=low, high=high).scale(all_levels)
    expected = np.clip((all_levels.astype(float) - low) / (high - low), 0, 1) * 65535
    assert np.abs(found - expected).max() <= 0.51
    assert (np.diff(found.astype(int)) >= 0).all()


def test_what_is_black_and_what_a_screen_shows() -> None:
    """A pixel is black where all of its channels are; 16 bits are shown by their upper half."""
    assert is_black(np.array([[10, 11]], np.uint8)).tolist() == [[True, False]]
    assert is_black(np.array([[2570, 2571]], np.uint16)).tolist() == [[True, False]]
    assert is_black(np.array([[[0, 0]], [[0, 99]]], np.uint8)).tolist() == [[True, False]]
    deep = np.array([[[0]], [[0x1234]], [[65535]]], np.uint16)
    assert to_picture(deep).tolist() == [[[0, 0x12, 255]]]
    assert to_picture(deep[:2]).tolist() == [[[9, 9, 9]]]
    assert to_picture(np.array([[7]], np.uint8)).tolist() == [[[7, 7, 7]]]


def inspect(folder: Path, images: dict[str, bytes], channels: Any = "auto") -> Inspection:
    """Write files and look at them."""
    folder.mkdir()
    for name, data in images.items():
        (folder / name).write_bytes(data)
    return inspect_folder(folder, channels, skip_bad=True)


def test_limits_are_those_of_all_training_images(tmp_path: Path) -> None:
    """The lowest and the highest; the test images' own do not count."""
    images = {f"{low}.png": deep_png(levels(low, "u2") % 1000 + low) for low in (500, 9000)}
    train = inspect(tmp_path / "a", images)
    smallest = min(int((levels(low, "u2") % 1000 + low).min()) for low in (500, 9000))
    largest = max(int((levels(low, "u2") % 1000 + low).max()) for low in (500, 9000))
    assert train.pixels == PixelFormat(depth=16, low=smallest, high=largest)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/t.png").write_bytes(deep_png(np.full(SIZE_HW, 65535, np.uint16)))
    assert inspect_folder(tmp_path / "b", train.pixels, skip_bad=False).pixels == train.pixels


def test_the_minority_of_another_depth_is_refused_by_name(tmp_path: Path) -> None:
    """What its levels mean beside the others', nobody can know."""
    images = {f"{i}.png": to_bytes(noise(i), "PNG") for i in range(3)}
    train = inspect(tmp_path / "a", {**images, "deep.png": deep_png(levels(1, "u2"))})
    assert (train.pixels, [image.image for image in train.images]) == (GREY, sorted(images))
    assert train.skipped.keys() == {"deep.png"}
    with pytest.raises(BadInput, match=r"deep\.png: expected 8 bits per channel, as in most"):
        inspect_folder(tmp_path / "a", skip_bad=False)


FILES = (
    *(to_bytes(noise(1), kind) for kind in ("PNG", "JPEG")),
    to_bytes(np.repeat(noise(1)[..., None], 3, axis=2), "JPEG"),
    to_bytes(np.full((6, 8, 3), (255, 0, 0), np.uint8), "PNG"),
    deep_png(levels(1, "u2")),
    deep_png(levels(1, "u2", *SIZE_HW, 3)),
    tiff([levels(n, "u1") for n in range(2)]),
    to_bytes(noise(1), "PNG")[:60],
    b"",
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(FILES), max_size=6), st.sampled_from(["auto", "grey", "rgb"]))
def test_files_are_read_as_if_the_format_were_known(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    files: list[bytes],
    channels: Any,
) -> None:
    """Once, after a look at a few, and all again only if the others lead to another format."""
    folder = tmp_path_factory.mktemp("mixed")
    names: list[str] = []
    monkeypatch.setattr(
        inspection, "read_bytes", lambda path: names.append(path.name) or read_bytes(path)
    )
    monkeypatch.setattr(inspection, "FEW", 1)
    images = {f"{n}.png": data for n, data in enumerate([FILES[0], *files])}
    found = inspect(folder / "a", images, channels)
    chosen = found.pixels.model_copy(update={"low": 0.0, "high": 255.0})
    expected = choose_format([look(FILES[0])], channels)
    assert sorted(names) == sorted(["0.png", *list(images) * (1 + (chosen != expected))])
    names.clear()
    known = inspect_folder(folder / "a", chosen, skip_bad=True)
    assert sorted(names) == sorted(images)
    np.testing.assert_equal(found.images, known.images)
    assert found.skipped == known.skipped
    looks = []
    for data in images.values():
        with suppress(BadInput):
            looks.append(look(data))
    assert chosen == choose_format(looks, channels)


SEEDS = (
    tiff([levels(1, "u2", 9, 11, 3)]),
    tiff([levels(n, "u1") for n in range(3)]),
    tiff([levels(n, "f4") for n in range(2)], ">"),
    deep_png(levels(1, "u2", 9, 11, 3)),
)


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(1, 3),
    st.sampled_from([8, 16, 32]),
)
def test_a_damaged_file_is_read_or_refused(
    seed: bytes, changes: list[tuple[int, int]], channels: int, depth: Any
) -> None:
    """Nothing else is raised, and nothing of another shape comes out."""
    data = bytearray(seed)
    for at, value in changes:
        data[at % len(data)] = value
    pixels = PixelFormat(channels=channels, depth=depth)
    with suppress(BadInput):
        assert look(bytes(data)).lights >= 1
    with suppress(BadInput):
        image = decode(bytes(data), pixels, max_pixels=2**16)
        assert image.dtype == pixels.dtype
        assert image.ndim == (2 if channels == 1 else 3)
        assert image.size <= 3 * 2**16
