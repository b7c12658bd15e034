"""The browser that tests look at pages with."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def open_browser() -> Iterator[Any]:
    """Yield a headless Chromium; skips the test where it, or its driver, is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs `make setup-extras`")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
