"""Which images are scored: an existing path as it is, and of all else a line that adds up."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from strategies import noise, to_bytes

from steelseg.core.errors import BadInput
from steelseg.score.source import find_images, read_bytes


def write_images(folder: Path, *names: str) -> Path:
    """Write an image under each name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_bytes(noise(3, (48, 80)), "PNG"))
    return folder


def write_list(path: Path, names: object, column: str = "image") -> str:
    """Write a table of images, and return its path."""
    pq.write_table(pa.table({column: names}), path)
    return str(path)


def test_globs_and_tables_name_images_too(tmp_path: Path) -> None:
    """With ids below the last folder without wildcards, or as the table has them."""
    names = [f"coil {i % 2}/{i // 2:02d}.png" for i in range(10)]
    images = write_images(tmp_path, *names, "coil 0/cut.png", "coil 1/empty.jpg")
    assert find_images(f"{images}/coil 1/0[0-2].png").images == ["00.png", "01.png", "02.png"]
    assert len(find_images(f"{images}/*/*.png").images) == 11
    assert len(find_images(f"{images}/coil*").images) == 12  # folders, and what is in them
    listed = write_list(images / "list.parquet", ["coil 1/01.png", "gone.png"])
    assert find_images(listed).images == ["coil 1/01.png", "gone.png"]


@pytest.mark.parametrize(
    "name",
    ["run [3]", "a*b", "what?", "100%", "50%20off #1", "Blöße", "two\nlines", "~", "C:\\x", "-x"],
)
def test_a_path_that_is_there_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    """The folder, a glob below it, a single file, and a table beside images."""
    folder = write_images(tmp_path / name, "a.png", f"{name}/b.PNG")
    assert set(find_images(str(folder)).images) == {"a.png", f"{name}/b.PNG"}
    assert find_images(f"{folder}/*.png").images == ["a.png"]
    assert find_images(f"{folder}/{name}/?.PNG").images == ["b.PNG"]
    source = find_images(f"{folder}/a.png")
    assert (source.images, source.found) == (["a.png"], "1 files: 1 images, 0 passed over")
    listed = write_list(folder / f"{name}.PARQUET", [f"{name}/b.PNG", str(folder / "a.png")])
    source = find_images(listed)
    for image in source.images:
        assert read_bytes(source.folder, image) == (folder / "a.png").read_bytes()


def test_a_single_file_is_scored_whatever_its_suffix(tmp_path: Path) -> None:
    """Whoever names it means it, hidden or not; in a folder it would be passed over."""
    folder = write_images(tmp_path, ".plate.dat", "a.png")
    source = find_images(str(folder / ".plate.dat"))
    assert source.images == [".plate.dat"]
    assert read_bytes(source.folder, ".plate.dat") == (folder / "a.png").read_bytes()
    found = "2 files: 1 images, 1 passed over: 1 hidden"
    assert find_images(str(folder)) == (source.folder, ["a.png"], found)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    """To folders and files; one into nowhere is an image that cannot be read, as is a pipe."""
    elsewhere = write_images(tmp_path / "elsewhere", "a.png", "below/b.png")
    folder = write_images(tmp_path / "images", "c.png")
    (folder / "folder").symlink_to(elsewhere)
    (folder / "file.png").symlink_to(elsewhere / "a.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (elsewhere / "below" / "circle").symlink_to(elsewhere)
    (folder / "circle").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    source = find_images(str(folder))
    sound = ["c.png", "file.png", "folder/a.png", "folder/below/b.png"]
    assert source.images == [*sound, "gone.png", "pipe.png"]
    for image in sound:
        assert read_bytes(source.folder, image) == (folder / "c.png").read_bytes()
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        read_bytes(source.folder, "gone.png")
    with pytest.raises(BadInput, match="this is something else"):
        read_bytes(source.folder, "pipe.png")


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_repeated_names_of_a_table_are_scored_once_and_counted(
    kind: pa.DataType, tmp_path: Path
) -> None:
    """However the text of the column is stored."""
    names = pa.array(["b.png", "a.png", "b.png"], kind)
    source = find_images(write_list(tmp_path / "list.parquet", names))
    assert source.images == ["a.png", "b.png"]
    assert source.found == "3 rows: 2 images, 1 repeats of them"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", None, "b.png"], "row 2: expected the path of an image, but got None"),
        (["", "a.png"], "row 1: expected the path of an image, but got ''"),
        (["a\0.png"], r"row 1: expected the path of an image, but got 'a\\x00.png'"),
        ([3], "row 1: expected the path of an image, but got 3"),
        ([b"a.png"], "row 1: expected the path of an image, but got b'a.png'"),
        (pa.nulls(2), "2 faults\n  row 1: expected .* None\n  row 2"),
        (pa.array([], pa.string()), "found none: 0 rows: 0 images"),
    ],
)
def test_rows_of_a_table_that_are_no_paths_are_refused(
    names: object, message: str, tmp_path: Path
) -> None:
    """By their number, all at once."""
    listed = write_list(tmp_path / "list.parquet", names)
    with pytest.raises(BadInput, match=rf"list\.parquet: .*{message}"):
        find_images(listed)


def test_other_tables_are_refused(tmp_path: Path) -> None:
    """By the columns that they have, or as no table."""
    listed = write_list(tmp_path / "list.parquet", ["a.png"], column="path")
    with pytest.raises(BadInput, match=r"expected a column `image`, but got \['path'\]"):
        find_images(listed)
    Path(listed).write_bytes(b"no table")
    with pytest.raises(BadInput, match=r"list\.parquet: cannot be listed"):
        find_images(listed)


def test_a_folder_without_images_is_refused_by_one_line(tmp_path: Path) -> None:
    """Empty, or with what is none; a name that is not UTF-8 could not be written to a table."""
    with pytest.raises(BadInput, match=r"found none: 0 files: 0 images, 0 passed over$"):
        find_images(str(tmp_path))
    (tmp_path / os.fsdecode(b"\xff.png")).touch()
    with pytest.raises(BadInput, match=r"'\\udcff.png': expected a name in UTF-8"):
        find_images(str(tmp_path))
