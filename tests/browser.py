"""The system's Chromium for tests that look at a page; they skip where there is none."""

import shutil
from contextlib import contextmanager

import pytest

PATHS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def page(width=1200, height=900, scheme="light"):
    """A page of a browser without a window. Fails where the page reports an error of its own."""
    found = next((path for name in PATHS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("There is no Chromium here: install it (on Debian: apt install chromium) to test pages.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        try:
            one = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            errors, asked = [], []
            one.on("pageerror", lambda error: errors.append(str(error)))
            one.on("request", lambda request: asked.append(request.url))
            one.asked = asked
            yield one
            assert not errors, errors
        finally:
            browser.close()
