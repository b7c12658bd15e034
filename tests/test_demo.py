"""The demo in a real browser: an image goes in, contours and RLE rows come out."""

import csv
import io
import os
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
from servers import free_port, wait_until_up

from steelseg.data import rle
from steelseg.report.drawing import PALETTE, class_colours

pytest.importorskip("streamlit", reason="needs `make setup-extras`")

pytestmark = pytest.mark.filterwarnings("default")


def serve(model: Path, work: Path) -> Iterator[str]:
    """Run `python -m steelseg demo` until the test is over."""
    port = free_port()
    command = [sys.executable, "-m", "steelseg", "demo", "--port", str(port), "--model", str(model)]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (work / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_until_up(f"http://127.0.0.1:{port}/_stcore/health", server, work / "log")
        yield f"http://127.0.0.1:{port}"
        assert "Traceback" not in (work / "log").read_text()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=20)


@pytest.fixture(scope="module")
def address(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page with a model of two classes."""
    yield from serve(tiny_model, tmp_path_factory.mktemp("demo"))


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
    picture = page.locator("[data-testid=stImage] img")
    picture.wait_for()
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
    least = page.get_by_role("spinbutton", name="Least area").first
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


def test_a_missing_model_is_explained(browser, tmp_path: Path) -> None:
    """With what to type."""
    for address in serve(tmp_path / "nothing", tmp_path):
        page = browser.new_page()
        page.goto(address)
        page.get_by_text("make repro").wait_for(timeout=30_000)
        page.close()


def test_classes_have_colours_of_their_own() -> None:
    """Whatever their ids, in their order, and from the start again after the last colour."""
    colours = class_colours([7, 2, 4])
    assert list(colours) == [2, 4, 7]
    assert len(set(colours.values())) == 3
    assert class_colours(range(1, 20))[1 + len(PALETTE)] == PALETTE[0]
    assert all(cv2.cvtColor(np.uint8([[c]]), cv2.COLOR_RGB2HSV)[0, 0, 1] > 40 for c in PALETTE)
