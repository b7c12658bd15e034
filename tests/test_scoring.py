"""Batch scoring: rows as `predict` writes them, nothing lost, nothing done twice."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from saved_models import change_card, change_rules, maps_of, open_runtime
from servers import free_port, wait_until_up
from strategies import noise, to_bytes

from steelseg.__main__ import main
from steelseg.core.errors import BadInput
from steelseg.core.files import sha256
from steelseg.core.pixels import GREY
from steelseg.data.decoding import read
from steelseg.predict import tiles
from steelseg.predict.model import Model
from steelseg.predict.parts import rows_of as rows_of_findings
from steelseg.predict.postprocess import postprocess
from steelseg.predict.views import ViewsConfig
from steelseg.quality.operating_point import Costs, OperatingPoint
from steelseg.quality.verdicts import Images, find
from steelseg.registry.member import add_member
from steelseg.score.engines import gpu_share
from steelseg.score.source import find_images, read_bytes
from steelseg.score.store import ScoreStore, place

CLASSES = 2
RAY_IMAGES = int(os.environ.get("STEELSEG_RAY_IMAGES", "200"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images in two folders, two of one name, one of another size, and two that are bad."""
    folder = tmp_path_factory.mktemp("coils")
    rng = np.random.default_rng(3)
    for i in range(10):
        shape = (48, 80) if i != 4 else (32, 96)
        path = folder / f"coil {i % 2}" / f"{i // 2:02d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, shape, dtype=np.uint8))
    (folder / "coil 0" / "cut.png").write_bytes((folder / "coil 0" / "00.png").read_bytes()[:60])
    (folder / "coil 1" / "empty.jpg").touch()
    (folder / "notes.txt").write_text("no image")
    return folder


def score(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    main(["score", *map(str, words)])
    return capsys.readouterr().out


def rows_of(out: Path) -> pd.DataFrame:
    table = pq.read_table(out).to_pandas()
    return table.sort_values(["image", "class_id"], ignore_index=True)


def errors_of(out: Path) -> dict[str, str]:
    table = pa.concat_tables(pq.read_table(p) for p in sorted(out.glob("_errors/*/*")))
    return dict(zip(*table.to_pydict().values(), strict=True))


def test_rows_are_what_predict_has_and_bad_images_are_errors(
    tiny_model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids are paths below the folder; sizes may differ; the same command again does nothing."""
    words = ["--model", tiny_model, "--images", images, "--out", tmp_path / "o", "--share", 5]
    assert "10 images scored, 20 rows, 2 errors" in score(capsys, *words)
    rows = rows_of(tmp_path / "o")
    assert rows["image"].nunique() == 10
    assert rows["model_version"].nunique() == 1
    errors = errors_of(tmp_path / "o")
    assert set(errors) == {"coil 0/cut.png", "coil 1/empty.jpg"}
    assert "truncated" in errors["coil 0/cut.png"]
    model = Model.open(tiny_model)
    for image in ("coil 0/00.png", "coil 0/02.png", "coil 1/04.png"):
        maps = maps_of([read(images / image, GREY).image], open_runtime(tiny_model))[0]
        rules = model.rules.by_class.values()
        expected = [postprocess(m, rule) for m, rule in zip(maps, rules, strict=True)]
        found = rows[rows["image"] == image]
        assert found["rle"].tolist() == [e.rle for e in expected]
        assert found["area"].tolist() == [e.area for e in expected]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "o").rglob("*")}
    assert "0 of 12 images to score" in score(capsys, *words)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "o").rglob("*")} == before


def test_an_ensemble_is_scored_in_the_views_of_its_rules(
    tiny_model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny network and a member whose signs are turned, both flipped, and not the one alone."""
    other, folder = tmp_path / "other", tmp_path / "model"
    for copy in (other, folder):
        shutil.copytree(tiny_model, copy)
    tensors = load_file(other / "model.safetensors")
    tensors["segmentation_head.0.weight"] *= -0.5
    save_file(tensors, other / "model.safetensors")
    change_card(other, weights_sha256=sha256(other / "model.safetensors"))
    views = ViewsConfig(tta="flips", ensemble=[add_member(other, folder)])
    change_rules(folder, views=views)
    rule = Model.open(folder).rules.by_class[1]
    words = ["--images", images, "--runtime", "torch", "--out"]
    score(capsys, "--model", folder, *words, tmp_path / "o")
    found = rows_of(tmp_path / "o").set_index(["image", "class_id"])["rle"]
    image_hw = read(images / "coil 0/00.png", GREY).image
    expected = {}
    for name, runtime in {
        "together": open_runtime(folder, "torch", views=views),
        "alone": open_runtime(tiny_model, "torch"),
    }.items():
        expected[name] = postprocess(maps_of([image_hw], runtime)[0][0], rule).rle
    assert expected["together"] != expected["alone"]
    assert found["coil 0/00.png", 1] == expected["together"]


def test_verdicts_come_with_the_masks(tiny_model: Path, tmp_path: Path) -> None:
    """Masks stay; confidences are calibrated, and an image with an alarm is not in order."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    scores = np.random.default_rng(4).random((80, 2))
    shown = np.random.default_rng(5).random((80, 2)) < scores**2
    learned = Images(scores, shown, np.arange(80), np.arange(80) % 4)
    costs = Costs(false_alarm=1, escape=1)
    verdicts = find(learned, [1, 2], OperatingPoint(costs=costs))
    change_rules(folder, verdicts=verdicts)
    before, after = Model.open(tiny_model), Model.open(folder)
    raw = np.array([[0.9, 0.3], [0.2, 0.1]], dtype=np.float32)
    rows = []
    for name, of_image in zip(("bad", "good"), raw, strict=True):
        maps_chw = np.zeros((2, 48, 80), dtype=np.float32)
        maps_chw[:, 3:40, 5:60] = of_image[:, None, None]
        old, new = before.findings(maps_chw), after.findings(maps_chw)
        assert [f.rle for f in new] == [f.rle for f in old]
        assert [f.raw_confidence for f in new] == of_image.tolist()
        assert [f.confidence for f in old] == of_image.tolist()
        assert [f.confidence for f in new] == verdicts.confidences(of_image).tolist()
        assert [f.alarm for f in new] == [f.confidence > verdicts.chosen.level for f in new]
        assert (Model.in_order(old), Model.in_order(new)) == (None, name == "good")
        rows += rows_of_findings(name, new) + rows_of_findings(f"{name}, unjudged", old)
    ScoreStore(place(str(tmp_path / "o")), "3").write(["bad", "good"], rows, {}, {1: "a", 2: "b"})
    table = rows_of(tmp_path / "o")
    found = dict(zip(table["image"], table["in_order"], strict=True))
    assert found == {"bad": False, "bad, unjudged": None, "good": True, "good, unjudged": None}
    assert table["alarm"].tolist() == [True, False, None, None, False, False, None, None]


def test_areas_are_in_millimetres_where_the_scale_is_known(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Beside the pixels, in findings and rows; the mask is the same."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    change_rules(folder, mm_per_pixel=0.5)
    maps_chw = np.full((2, 48, 80), 0.99, dtype=np.float32)
    old, new = (Model.open(f).findings(maps_chw) for f in (tiny_model, folder))
    assert [f.area_mm2 for f in old] == [None, None]
    assert [f.area_mm2 for f in new] == [f.area / 4 for f in old]
    assert any(f.area for f in new)
    assert [row.area_mm2 for row in rows_of_findings("a", new)] == [f.area_mm2 for f in new]


def test_groups_are_in_order_if_all_their_images_are(
    tiny_model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By class; a group without an alarm is unknown if one of its images is unreadable."""
    folder, own = tmp_path / "model", tmp_path / "images"
    shutil.copytree(tiny_model, folder)
    shutil.copytree(images, own)
    (own / "coil 2").mkdir()
    shutil.copy(own / "coil 0" / "00.png", own / "coil 2")
    learned = Images(np.eye(2), np.eye(2) > 0, np.arange(2), np.arange(2))
    verdicts = find(learned, [1, 2], OperatingPoint(costs=Costs(false_alarm=1, escape=1)))
    never = verdicts.chosen.model_copy(update={"level": 2.0})
    change_rules(folder, verdicts=verdicts.model_copy(update={"chosen": never}))
    words = ["--model", folder, "--images", own, "--out", tmp_path / "o", "--share", 2]
    output = score(capsys, *words, "--group-by", "^(.+)/")
    assert "3 groups, 0 not in order, 2 unknown: " in output
    assert "how often a clean group is not in order is not known" in output
    (path,) = (tmp_path / "o" / "_groups").iterdir()
    table = pd.read_csv(path)
    assert table["group"].tolist() == [f"coil {n}" for n in (0, 0, 1, 1, 2, 2)]
    assert table["class_id"].tolist() == [1, 2] * 3
    assert table["images"].tolist() == [5, 5, 5, 5, 1, 1]
    assert table["unreadable"].tolist() == [1, 1, 1, 1, 0, 0]
    assert table["in_order"].fillna("unknown").tolist() == ["unknown"] * 4 + [True] * 2
    with pytest.raises(SystemExit):
        main(["score", *map(str, words), "--group-by", "("])
    with pytest.raises(SystemExit, match="--group-by: the pattern 'plate' matches no image name"):
        main(["score", *map(str, words), "--group-by", "plate"])


def test_large_images_are_decoded_when_their_turn_comes(
    tiny_model: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their rows, and the errors of bad ones, are those of other images."""
    words = ["--model", tiny_model, "--images", images, "--out"]
    first = score(capsys, *words, tmp_path / "a")
    monkeypatch.setattr(tiles, "WHOLE", 0)
    second = score(capsys, *words, tmp_path / "b")
    assert second.replace(str(tmp_path / "b"), "") == first.replace(str(tmp_path / "a"), "")
    pd.testing.assert_frame_equal(rows_of(tmp_path / "a"), rows_of(tmp_path / "b"))


def test_new_images_and_mended_ones_are_scored_later(
    tiny_model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """New ones by the same command, those in `_errors` when asked for."""
    own = tmp_path / "images"
    shutil.copytree(images, own)
    words = ["--model", tiny_model, "--images", own, "--out", tmp_path / "o"]
    score(capsys, *words)
    shutil.copy(own / "coil 0" / "00.png", own / "coil 0" / "cut.png")
    shutil.copy(own / "coil 0" / "00.png", own / "new.png")
    output = score(capsys, *words)
    assert "1 of 13 images to score" in output
    assert "11 images scored, 22 rows, 2 errors" in output
    output = score(capsys, *words, "--retry-errors")
    assert "2 of 13 images to score" in output
    assert "12 images scored, 24 rows, 1 errors" in output


def test_two_workers_give_the_same_rows(
    tiny_model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However the images are shared out, and whatever the batch."""
    words = ["--model", tiny_model, "--images", images, "--out"]
    score(capsys, *words, tmp_path / "one")
    score(capsys, *words, tmp_path / "two", "--workers", 2, "--share", 3, "--batch-size", 2)
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert one.drop(columns="confidence").equals(two.drop(columns="confidence"))
    np.testing.assert_allclose(one["confidence"], two["confidence"], atol=1e-6)
    assert errors_of(tmp_path / "one") == errors_of(tmp_path / "two")


def test_a_killed_driver_goes_on(tiny_model: Path, images: Path, tmp_path: Path) -> None:
    """Nothing is lost or doubled, and no half-written file is left to be read."""
    words = [sys.executable, "-m", "steelseg", "score", "--model", str(tiny_model)]
    words += ["--images", str(images), "--out", str(tmp_path / "o"), "--share", "1"]
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
    while not list((tmp_path / "o").glob("model_version=*/part-*")):
        assert driver.poll() is None
        time.sleep(0.002)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "10 images scored, 20 rows, 2 errors" in ended.stdout
    assert not rows_of(tmp_path / "o").duplicated(["image", "class_id"]).any()


def test_another_model_of_the_same_version_is_refused(
    tiny_model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows of two models under one name would be mixed for ever."""
    words = ["--images", images, "--out", tmp_path / "o", "--model"]
    score(capsys, *words, tiny_model)
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    tuned = Model.open(other).rules.by_class
    changed = {c: rule.model_copy(update={"threshold": 0.6}) for c, rule in tuned.items()}
    change_rules(other, by_class=changed)
    with pytest.raises(SystemExit, match="another model with this version has rows here"):
        score(capsys, *words, other)


def test_what_is_passed_over_is_counted(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders below are scored; a hidden file is a Mac's note about an image and no image."""
    for name in ("a.png", "1/a.TIF", "1/._a.png", ".cache/a.png", "a.webp", "1/notes.txt"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_bytes(noise(3, (48, 80)), "PNG"))
    images = tmp_path / "images"
    out = score(capsys, "--model", tiny_model, "--images", images, "--out", tmp_path / "o")
    assert (
        "images: 6 files: 2 images (1 in folders below), 4 passed over: 2 hidden, "
        "2 of other suffixes (.txt, .webp)\n"
    ) in out
    assert "2 images scored, 4 rows, 0 errors" in out
    with pytest.raises(BadInput, match="found none: 1 files: 0 images, 1 passed over: 1 of other"):
        find_images(f"{images}/1/*.txt")


def test_names_of_all_kinds_are_scored(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ids, the same in rows as in the folder."""
    names = ["100%.png", "a b.png", "a%20b.png", "x#y?.png", "ü.png", "two\nlines.png", "[1].png"]
    folder = tmp_path / "run [3]"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(to_bytes(noise(3, (48, 80)), "PNG"))
    out = tmp_path / "out [3] %20"
    words = ["--model", tiny_model, "--images", folder, "--out", out, "--share", 2]
    assert "7 images scored, 14 rows, 0 errors" in score(capsys, *words)
    assert sorted(set(rows_of(out)["image"])) == sorted(names)
    assert "0 of 7 images to score" in score(capsys, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "nowhere"], "nowhere: cannot be listed"),
        (["--images", "nothing/*.png"], "expected images"),
        (["--images", "ftp2://x/y"], "ftp2://x/y: cannot be opened"),
        (["--model", "nowhere"], "nowhere: expected the folder of a model"),
        (["--workers", "0"], "--workers: invalid number of at least 1 value: '0'"),
    ],
)
def test_what_cannot_be_used_is_named(
    words: list[str],
    message: str,
    tiny_model: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One message, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    usual = {"--model": str(tiny_model), "--images": str(images), "--out": "o"}
    usual |= dict([words])
    with pytest.raises(SystemExit) as exit_:
        main(["score", *(word for pair in usual.items() for word in pair)])
    assert message in str(exit_.value.code) + capsys.readouterr().err
    assert not list(tmp_path.glob("o/model_version*"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A bucket of a real S3 server on this machine: an address that takes a path."""
    pytest.importorskip("moto", reason="needs `make setup-extras`")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (tmp_path / "moto.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    wait_until_up(f"http://127.0.0.1:{port}/moto-api/", server, tmp_path / "moto.log")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    options = f"endpoint_override=http://127.0.0.1:{port}&region=us-east-1"
    place(f"s3://steel?{options}&allow_bucket_creation=true").filesystem.create_dir("steel")
    yield f"s3://steel/{{}}?{options}"
    server.terminate()
    server.wait(timeout=20)


def test_an_object_store_round_trip(
    bucket: str,
    tiny_model: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Images come from S3 and rows go there; they equal those of folders."""
    store = place(bucket.format("coils"))
    for path in images.rglob("*.*"):
        target = store / path.relative_to(images).as_posix()
        with target.filesystem.open_output_stream(target.path) as stream:
            stream.write(path.read_bytes())
    words = ["--model", tiny_model, "--share", 4]
    score(capsys, *words, "--images", images, "--out", tmp_path / "here")
    words += ["--images", bucket.format("coils"), "--out", bucket.format("rows")]
    assert "10 images scored, 20 rows, 2 errors" in score(capsys, *words)
    assert "0 of 12 images to score" in score(capsys, *words)
    found = find_images(bucket.format("coils/coil*/0[0-2].png"))
    assert len(found.images) == 6
    assert len(find_images(bucket.format("coils/coil*")).images) == 12
    assert find_images(bucket.format("coils/coil 0/00.png")).images == ["00.png"]
    assert read_bytes(found.folder, "coil 0/00.png") == (images / "coil 0/00.png").read_bytes()
    with pytest.raises(BadInput, match="no such file or folder"):
        find_images(bucket.format("gone"))
    rows = place(bucket.format("rows"))
    table = pq.read_table(rows.path, filesystem=rows.filesystem).to_pandas()
    table = table.sort_values(["image", "class_id"], ignore_index=True)
    assert table.equals(rows_of(tmp_path / "here"))


@pytest.mark.parametrize(
    ("workers", "n_gpus", "share"),
    [(1, 1, 1), (2, 1, 1 / 2), (3, 2, 1 / 2), (4, 8, 1), (7, 3, 1 / 3)],
)
def test_more_workers_than_gpus_find_a_place(workers: int, n_gpus: int, share: float) -> None:
    """Each on one GPU, since Ray gives none a part of two."""
    assert gpu_share(workers, n_gpus) == share
    assert n_gpus * int(1 / share) >= workers


def test_ray_survives_killed_workers_and_a_killed_driver(
    tiny_model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two actors; one is killed at work, then the driver, then another actor: no row is missing."""
    pytest.importorskip("ray", reason="needs `make setup-extras`")
    many = tmp_path / "many"
    many.mkdir()
    for i in range(RAY_IMAGES):
        corrupt = i % 100 == 7
        shutil.copy(
            images / "coil 0" / f"{'cut' if corrupt else f'{i % 5:02d}'}.png", many / f"{i}.png"
        )
    n_corrupt = len(range(7, RAY_IMAGES, 100))
    words = ["--model", str(tiny_model), "--images", str(many), "--share", "4", "--out"]
    score(capsys, *words, tmp_path / "local")
    words = [sys.executable, "-m", "steelseg", "score", *words, str(tmp_path / "ray")]
    words += ["--engine", "ray", "--workers", "2"]
    first = start_driver(words, tmp_path)
    kill_a_worker(first, tmp_path, 1)
    wait_for_parts(first, tmp_path, RAY_IMAGES // 4 // 2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = start_driver(words, tmp_path)
    kill_a_worker(second, tmp_path, parts(tmp_path) + 1)
    assert second.wait(timeout=500) == 0, (tmp_path / "log").read_text()
    n_sound = RAY_IMAGES - n_corrupt
    said = (tmp_path / "log").read_text()
    assert f"{n_sound} images scored, {n_sound * CLASSES} rows, {n_corrupt} errors" in said
    assert rows_of(tmp_path / "ray").equals(rows_of(tmp_path / "local"))
    assert errors_of(tmp_path / "ray") == errors_of(tmp_path / "local")


def start_driver(words: list[str], work: Path) -> subprocess.Popen:
    with (work / "log").open("w") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)


def parts(work: Path) -> int:
    return len(list((work / "ray").glob("model_version=*/part-*")))


def wait_for_parts(driver: subprocess.Popen, work: Path, wanted: int) -> None:
    while parts(work) < wanted:
        assert driver.poll() is None, (work / "log").read_text()
        time.sleep(0.005)


def kill_a_worker(driver: subprocess.Popen, work: Path, after_parts: int) -> None:
    """Kill an actor once as many files of rows are there."""
    wait_for_parts(driver, work, after_parts)
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    actors = re.findall(r"^ *(\d+) ray::.*MapBatches\(_Actor\)", listed.stdout, re.MULTILINE)
    assert actors, listed.stdout
    os.kill(int(actors[0]), signal.SIGKILL)
