"""A listing says what is read, and of every other file why it is not."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import noise, to_bytes

from steelseg.core.errors import BadInput
from steelseg.data.inspection import inspect_folder
from steelseg.data.listing import HIDDEN, SUFFIX, check_image_name, list_files, sort_out

PNG = to_bytes(noise(3), "PNG")
NFC, NFD = (unicodedata.normalize(form, "blöße.png") for form in ("NFC", "NFD"))


def fill(folder: Path, *names: str) -> Path:
    """Write an image under each name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    return folder


def test_images_are_listed_by_suffix_and_sorted(tmp_path: Path) -> None:
    """In upper case too; other files are passed over, and names that differ by case are two."""
    names = ["B.JPG", "a.jpeg", "b.jpg", "c.PnG", "d.tif"]
    fill(tmp_path, *reversed(names), "Thumbs.db", "notes.txt", "jpg", ".jpg")
    assert list_files(tmp_path).names == names


def test_every_file_is_counted_once(tmp_path: Path) -> None:
    """By the first of the reasons: hidden, of another suffix. Images in folders are read."""
    over = {
        ".DS_Store": HIDDEN,
        "._a.png": HIDDEN,
        ".git/objects/b.png": HIDDEN,
        "more/.b.png": HIDDEN,
        "more/deep/notes.txt": SUFFIX,
        "c.gif": SUFFIX,
        "d.png.part": SUFFIX,
        "LICENSE": SUFFIX,
    }
    listing = list_files(fill(tmp_path, "a.png", "b.TIFF", "more/b.png", *over))
    assert listing.names == ["a.png", "b.TIFF", "more/b.png"]
    assert listing.passed_over == over
    counts = {"files": 11, "hidden": 4, "of_other_suffixes": 4}
    assert listing.counts() == counts
    assert listing.describe() == (
        "11 files: 3 read (1 in folders below), 8 passed over: 4 hidden, "
        "4 of other suffixes (.gif, .part, .txt, none)"
    )


def test_nothing_passed_over_is_said_too(tmp_path: Path) -> None:
    """The line is always there."""
    assert list_files(fill(tmp_path, "a.png")).describe("images") == (
        "1 files: 1 images, 0 passed over"
    )


def test_a_suffix_is_printed_harmlessly(tmp_path: Path) -> None:
    """A name may hold what a terminal obeys."""
    described = list_files(fill(tmp_path, "a.png", "b.\x1b[2J")).describe()
    assert described.isprintable()


@given(st.lists(st.text("ab./A", min_size=1, max_size=9), unique=True))
def test_the_counts_add_up(paths: list[str]) -> None:
    """Every path is read or has one reason."""
    listing = sort_out(paths, {".a"})
    counts = listing.counts()
    assert sorted([*listing.names, *listing.passed_over]) == sorted(paths)
    assert counts.pop("files") == len(paths) == len(listing.names) + sum(counts.values())


def test_none_found_says_what_there_is(tmp_path: Path) -> None:
    """Images of a format that is not read, say."""
    fill(tmp_path, "monday/a.webp", "monday/.b.png", "c.webp")
    with pytest.raises(BadInput, match=r"found none among 3 files: .* 1 hidden, 2 of other"):
        list_files(tmp_path)


def test_links_are_followed_wherever_they_lead(tmp_path: Path) -> None:
    """`dvc config cache.type symlink` makes every image one, and people gather images so."""
    store = fill(tmp_path / "store", "1d/36c7", "a.png").resolve()
    folder = tmp_path / "train_images"
    folder.mkdir()
    (folder / "a.png").symlink_to(store / "1d" / "36c7")
    (folder / "b.png").symlink_to("a.png")
    (folder / "c.png").symlink_to(Path("..") / "store" / "a.png")
    (folder / "more").symlink_to(store)
    (folder / "all").symlink_to(folder)
    (tmp_path / "link").symlink_to(folder)
    inspection = inspect_folder(tmp_path / "link", skip_bad=False)
    names = ["a.png", "b.png", "c.png", "more/a.png"]
    assert [i.image for i in inspection.images] == names
    assert inspection.listing.passed_over == {"more/1d/36c7": SUFFIX}  # and `all` is no circle


def test_a_folder_that_may_be_empty(tmp_path: Path) -> None:
    """Test images need not be there; files of which none is an image are a mistake."""
    assert list_files(tmp_path / "absent", may_be_empty=True).names == []
    assert list_files(fill(tmp_path, ".DS_Store"), may_be_empty=True).names == []
    with pytest.raises(BadInput, match="expected images"):
        list_files(tmp_path)
    with pytest.raises(BadInput, match="found none among 2 files"):
        list_files(fill(tmp_path, "a.webp"), may_be_empty=True)
    with pytest.raises(BadInput, match="no such folder"):
        list_files(tmp_path / "a.webp", may_be_empty=True)


@given(st.lists(st.sampled_from(["a", "b.png", ".", "..", "", "~", "c d"]), min_size=1))
def test_a_legal_name_never_leaves_the_folder(steps: list[str]) -> None:
    """`/` leads into folders below, and nowhere else."""
    name = "/".join(steps)
    leaves = not Path("/x", name).is_relative_to("/x") or any(s in {"", ".", ".."} for s in steps)
    if leaves:
        with pytest.raises(BadInput, match="expected the name of a file in the image folder"):
            check_image_name(name)
    else:
        check_image_name(name)
        assert (Path("/x") / name).resolve().is_relative_to("/x")


def test_names_in_two_unicode_forms_are_one(tmp_path: Path) -> None:
    """A Mac's copy beside the original: which one a csv means, nobody knows."""
    assert NFC != NFD
    with pytest.raises(BadInput, match=r"bl\\xf6\\xdfe.png' and 'blo\\u0308.*two Unicode forms"):
        list_files(fill(tmp_path, NFC, NFD))
