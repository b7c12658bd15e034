"""The demo: images to click or to drop, contours, a table and RLE rows; here and in a browser."""

import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from browsers import open_browser
from saved_models import change_rules
from servers import free_port, wait_until_up
from tables import fill_table

import steelseg
from steelseg.core.classes import default_classes
from steelseg.core.errors import BadInput
from steelseg.data import annotations, image_table, label_csv, rle
from steelseg.data.inspection import inspect_folder
from steelseg.demo.samples import TESTS, find_samples, table_of
from steelseg.model.card import EXPORT
from steelseg.predict import tiles
from steelseg.predict.model import Finding
from steelseg.predict.postprocess import ClassRule
from steelseg.quality.operating_point import OperatingPoint
from steelseg.quality.verdicts import Images, find
from steelseg.report.gallery import MAX_SIDE, shrink
from steelseg.tune import outcome
from steelseg.tune.matching import match

pytest.importorskip("streamlit", reason="needs `make setup-extras`")
from streamlit import cache_data
from streamlit.testing.v1 import AppTest

pytestmark = pytest.mark.filterwarnings("default")
TEST_KIND, VALIDATION_KIND = "Test images", "Most surprising validation images"


@pytest.fixture(autouse=True)
def _own_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is tried takes the place of `__main__`, which new processes would then run."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="module")
def repository(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Params and tables as the pipeline leaves them; clean images are taken for defective."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "data").mkdir()
    (folder / "params.yaml").write_text(f"data_root: {tiny_dataset.parent}\ndataset: tiny\n")
    labels = label_csv.read(tiny_dataset / "train.csv")
    train, tests = (
        inspect_folder(tiny_dataset / name, skip_bad=False)
        for name in ("train_images", "test_images")
    )
    table = annotations.build(train, labels, default_classes([1, 2]), Path("train.csv"))
    image_table.write(folder / "data" / "annotations.parquet", table)
    unannotated = annotations.build_unannotated(tests)
    image_table.write(folder / TESTS, unannotated)
    shown = np.array([[text is not None for text in table.rles(c)] for c in (1, 2)]).T
    masks = np.broadcast_to(shown[..., None, None], (*shown.shape, 2, 2)).astype(np.uint8)
    clean = ~shown.any(axis=1)[:, None, None, None]
    probabilities = np.where(clean, 0.9, masks * 0.8).astype(np.float32)
    rules = {1: ClassRule(threshold=0.6), 2: ClassRule(threshold=0.6)}
    components = fill_table(probabilities, masks)
    honest = np.zeros((*shown.shape, 3), dtype=np.int64)
    path = folder / "data" / "validation.parquet"
    sure = probabilities.max(axis=(2, 3))
    nothing = [[match("", "", (2, 2))] * 2] * len(shown)
    groups = np.arange(len(shown))
    outcome.write_validation(path, table.names, groups, rules, components, honest, sure, nothing)
    return folder


def serve(model: Path, work: Path) -> Iterator[str]:
    """Run `python -m steelseg demo` in a folder until the test is over."""
    port = free_port()
    command = [sys.executable, "-m", "steelseg", "demo", "--port", str(port), "--model", str(model)]
    # Streamlit is found beside the interpreter, on PATH or not
    environment = os.environ | {"PATH": "/usr/bin:/bin"}
    environment["PYTHONPATH"] = str(Path(steelseg.__file__).parents[1])
    with (work / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=work, env=environment, stdout=log, stderr=log)
    try:
        wait_until_up(f"http://127.0.0.1:{port}/_stcore/health", server, work / "log")
        yield f"http://127.0.0.1:{port}"
        assert "Traceback" not in (work / "log").read_text()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=20)


@pytest.fixture(scope="module")
def address(tiny_model: Path, repository: Path) -> Iterator[str]:
    """The page with a model of two classes, beside its data."""
    yield from serve(tiny_model, repository)


def open_page(folder: Path, model: Path, runtime: str = "auto") -> AppTest:
    """Run the page in this process, without a browser."""

    def script(model: str, runtime: str) -> None:
        from steelseg.demo.page import page

        page(model, runtime)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        page = AppTest.from_function(script, args=(str(model), runtime), default_timeout=60).run()
    assert not page.exception
    return page


def click(page: AppTest, folder: Path, name: str) -> AppTest:
    """Click the image of a name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plain = (button for button in page.button if button.label.replace("\\", "") == name)
        page = next(plain).click().run()
    assert not page.exception
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with open_browser() as found:
        yield found


@pytest.fixture
def page(browser, address: str):
    """The page, which must not ask anyone but this machine for anything."""
    page = browser.new_page(viewport={"width": 1280, "height": 1100})
    page.set_default_timeout(30_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_text("Defects on steel").wait_for()
    yield page
    outside = [u for u in asked if not u.startswith((address, "data:", "blob:", "ws://127.0.0.1"))]
    assert outside == []
    page.close()


def upload(page, image: Path) -> None:
    page.locator("input[type=file]").set_input_files(image)


def download(page) -> dict[int, str]:
    with page.expect_download() as waiting:
        page.get_by_text("Download the RLE rows").click()
    if waiting.value.failure():  # the page changed meanwhile
        page.wait_for_timeout(500)
        return download(page)
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text())))
    return {int(row["ClassId"]): row["EncodedPixels"] for row in rows}


def wait_for(page, is_reached: Callable[[dict[int, str]], bool]) -> dict[int, str]:
    """Download until the rows show the last change; how soon the page has it, nobody promises."""
    deadline = time.monotonic() + 40
    while not is_reached(rles := download(page)):
        assert time.monotonic() < deadline, rles
        page.wait_for_timeout(300)
    return rles


def area(text: str) -> int:
    return int(rle.decode(text, (48, 80)).sum())


def test_an_image_is_answered_and_thresholds_move_live(
    page, tiny_dataset: Path, tmp_path: Path
) -> None:
    """A picture is shown; a higher threshold and a large least area shrink what is downloaded."""
    upload(page, tiny_dataset / "test_images" / "0012.png")
    picture = page.locator("[data-testid=stImage] img").last
    page.get_by_text("outlined what the model finds").wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") >= 80
    first = download(page)
    assert set(first) == {1, 2}
    assert area(first[1]) > 0
    slider = page.get_by_role("slider").first
    slider.focus()
    for _ in range(5):
        slider.press("ArrowRight")
    second = wait_for(page, lambda rles: area(rles[1]) < area(first[1]))
    assert second[2] == first[2]
    least = page.get_by_role("spinbutton", name="Smallest area").first
    least.fill("3840")
    least.press("Enter")
    assert wait_for(page, lambda rles: rles[1] == "")[2] == first[2]
    if folder := os.environ.get("STEELSEG_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "demo.png", full_page=True)


def test_a_bad_image_is_explained(page, tmp_path: Path) -> None:
    """By its name, without a traceback."""
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    upload(page, bad)
    page.get_by_text("bad.jpg: expected JPEG, PNG, BMP or TIFF").wait_for()
    assert page.get_by_text("Traceback").count() == 0


def test_a_thumbnail_is_clicked(page) -> None:
    """In its middle; what was chosen last is shown, uploaded or clicked."""
    picture = page.get_by_alt_text("thumbnail of 0013.png")
    picture.wait_for()
    where = picture.bounding_box()
    page.mouse.click(where["x"] + where["width"] / 2, where["y"] + where["height"] / 2)
    page.get_by_text("0013.png: outlined what the model finds").wait_for()
    assert set(download(page)) == {1, 2}


def test_a_tall_picture_fits_on_the_screen(page, tmp_path: Path) -> None:
    """However wide the page is."""
    cv2.imwrite(str(tmp_path / "tall.png"), np.zeros((320, 32), dtype=np.uint8))
    upload(page, tmp_path / "tall.png")
    page.get_by_text("tall.png: outlined what the model finds").wait_for()
    height = page.viewport_size["height"]
    picture = page.locator("[data-testid=stImage] img").last
    picture.evaluate("image => image.decode()")
    assert height / 2 < picture.bounding_box()["height"] < height


def test_a_missing_model_is_explained(tmp_path: Path) -> None:
    """With what to type."""
    page = open_page(tmp_path, tmp_path / "nothing")
    assert "make repro" in page.error[0].value.replace("\\", "")


def test_images_of_the_data_set_are_offered(
    repository: Path, tiny_model: Path, tiny_dataset: Path
) -> None:
    """First of the test, then those that surprise; what is annotated is shown with its truth."""
    page = open_page(repository, tiny_model)
    assert [caption.value for caption in page.caption] == [TEST_KIND, VALIDATION_KIND]
    names = [button.label.replace("\\", "") for button in page.button]
    assert names[:3] == ["0012.png", "0013.png", "0014.png"]
    surprising = find_samples(repository, [1, 2])[VALIDATION_KIND]
    assert names[3:] == [sample.path.name for sample in surprising]
    assert not page.dataframe
    page = click(page, repository, "0013.png")
    columns = ["class", "pixels", "share", "confidence", "components"]
    assert list(page.dataframe[0].value.columns) == columns
    page = click(page, repository, names[3])
    assert list(page.dataframe[0].value.columns) == [*columns, "annotated", "Dice"]
    assert "tinted what is annotated" in page.get("image")[-1].captions[0]


def test_what_was_chosen_last_is_shown(
    repository: Path, tiny_model: Path, tiny_dataset: Path
) -> None:
    """A click after an upload, and an upload after a click."""
    data = (tiny_dataset / "test_images" / "0012.png").read_bytes()
    page = open_page(repository, tiny_model)
    page = click(page, repository, "0013.png")
    assert page.get("image")[-1].captions[0].startswith("0013")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        page.file_uploader[0].set_value(("a *b*.png", data, "image/png"))
        page.run()
    assert page.get("image")[-1].captions[0].startswith("a \\*b\\*\\.png")
    page = click(page, repository, "0014.png")
    assert page.get("image")[-1].captions[0].startswith("0014")


@pytest.mark.parametrize("runtime", ["torch", "onnx", "auto", "empty export"])
def test_every_runtime_answers(
    runtime: str, repository: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The same pixels, whichever runs the network; without an export it is PyTorch."""
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    if runtime == "empty export":
        (model / EXPORT).write_bytes(b"")
        runtime = "auto"
    page = click(open_page(repository, model, runtime), repository, "0012.png")
    found = steelseg.Model.open(tiny_model).predict(repository_image(repository, "0012.png"))
    assert page.dataframe[0].value["pixels"].tolist() == [f.area for f in found]


def test_false_alarms_are_traded_for_escapes(
    repository: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The slider moves the level of the alarms, and shows the rates and the promise there."""
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    rng = np.random.default_rng(3)
    shown = np.arange(100)[:, None] % 4 == [0, 1]
    images = Images(rng.random((100, 2)), shown, np.arange(100), np.arange(100) % 5)
    verdicts = find(images, [1, 2], OperatingPoint(false_alarms=50))
    levels = {50: 2.0, 100: -1.0}  # which no image is above, and every image
    choices = {
        limit: choice.model_copy(update={"level": levels.get(limit, choice.level)})
        for limit, choice in verdicts.trade_off.items()
    }
    change_rules(model, verdicts=verdicts.model_copy(update={"trade_off": choices}))
    page = click(open_page(repository, model), repository, "0012.png")
    said = [text.value.replace("\\", "") for text in page.sidebar.markdown]
    value, low, high = verdicts.trade_off[50].judgement.escapes
    assert f"Escapes: {value:.1%} (95%: {low:.1%} to {high:.1%})" in said
    assert page.success[0].value == "In order"
    captions = [caption.value.replace("\\", "") for caption in page.sidebar.caption]
    assert captions == [
        "Not promised: with 50 clean images nothing below 59 per 1,000 can be shown."
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        page.sidebar.select_slider[0].set_value(100).run()
    assert page.error[0].value.replace("\\", "").startswith("Not in order: class 1")
    assert page.sidebar.caption[0].value == "Promised with 95% confidence, on new groups."


def test_a_large_image_is_answered_by_the_tuned_rules(
    repository: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the controls: its maps are too large to keep for them."""
    monkeypatch.setattr(tiles, "WHOLE", 0)
    cache_data.clear()  # other tests have asked for the same image
    page = click(open_page(repository, tiny_model), repository, "0012.png")
    found = steelseg.Model.open(tiny_model).predict(repository_image(repository, "0012.png"))
    assert page.dataframe[0].value["pixels"].tolist() == [f.area for f in found]
    assert "too large to try other rules" in page.info[0].value
    assert not page.slider


def repository_image(repository: Path, name: str) -> Path:
    """Find a test image of the repository's data set."""
    (sample,) = (s for s in find_samples(repository, [1, 2])[TEST_KIND] if s.path.name == name)
    return sample.path


def test_without_data_there_is_the_uploader_alone(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    """As for a served copy elsewhere; an image that is dropped is answered."""
    page = open_page(tmp_path, tiny_model)
    assert not page.button
    assert not page.warning
    data = (tiny_dataset / "test_images" / "0012.png").read_bytes()
    page.file_uploader[0].set_value(("0012.png", data, "image/png"))
    page.run()
    assert page.dataframe[0].value["class"].tolist() == [1, 2]


def test_damaged_data_is_said_and_the_uploader_stays(
    repository: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """By the name of the file."""
    folder = tmp_path / "copy"
    shutil.copytree(repository, folder)
    (folder / TESTS).write_bytes(b"no table")
    page = open_page(folder, tiny_model)
    assert TESTS.name in page.warning[0].value.replace("\\", "")
    assert len(page.file_uploader) == 1


def test_samples_know_their_annotations(repository: Path, tiny_dataset: Path) -> None:
    """Of validation images, as train.csv has them; a model of other classes is shown none."""
    rows = label_csv.read(tiny_dataset / "train.csv").rows
    known = {(row.image, row.class_id): row.rle for row in rows}
    samples = find_samples(repository, [1, 2])
    assert all(sample.truth is None for sample in samples[TEST_KIND])
    surprising = samples[VALIDATION_KIND]
    assert surprising
    for sample in surprising:
        assert sample.truth == {c: known.get((sample.path.name, c), "") for c in (1, 2)}
    assert all(s.truth is None for s in find_samples(repository, [1, 3])[VALIDATION_KIND])


def test_images_that_are_gone_are_left_out(repository: Path, tmp_path: Path) -> None:
    """And a heading of which nothing is left."""
    folder = tmp_path / "copy"
    shutil.copytree(repository, folder)
    (folder / "params.yaml").write_text(f"data_root: {tmp_path}\ndataset: gone\n")
    assert find_samples(folder, [1, 2]) == {}
    (folder / "params.yaml").write_text("dataset: gone\n")
    with pytest.raises(BadInput, match="data_root"):
        find_samples(folder, [1, 2])


def test_findings_are_tabled_by_class() -> None:
    """Two components that touch at a corner are one; Dice against the annotation."""
    mask_hw = np.zeros((4, 5), dtype=np.uint8)
    mask_hw[0, 0] = mask_hw[1, 1] = mask_hw[3, 3:] = 1
    truth_hw = np.zeros_like(mask_hw)
    truth_hw[0:2, 0:2] = 1
    found = [
        Finding(3, rle.encode(mask_hw), 4, 0.75, (4, 5), "class 3", 0.75),
        Finding(7, "", 0, 0.1, (4, 5), "class 7", 0.1),
    ]
    row = {"class": 3, "pixels": 4, "share": 0.2, "confidence": 0.75, "components": 2}
    empty = {"class": 7, "pixels": 0, "share": 0.0, "confidence": 0.1, "components": 0}
    assert table_of(found, None) == [row, empty]
    truth = {3: truth_hw, 7: np.zeros_like(mask_hw)}
    assert table_of(found, truth) == [
        row | {"annotated": 4, "Dice": 0.5},
        empty | {"annotated": 0, "Dice": 1.0},
    ]


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((256, 1600), (256, 1600)),
        ((100, 2 * MAX_SIDE), (50, MAX_SIDE)),
        ((10 * MAX_SIDE, 5), (MAX_SIDE, 1)),
    ],
)
def test_large_pictures_are_shown_smaller(
    size_hw: tuple[int, int], expected: tuple[int, int]
) -> None:
    """Wide and tall ones, never below a pixel; others stay as they are."""
    assert shrink(np.zeros((*size_hw, 3), dtype=np.uint8)).shape == (*expected, 3)
