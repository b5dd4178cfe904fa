"""A browser for each test; without one here, none of them runs."""

import pytest

from tests.support.browser import Browser, find_chromium


@pytest.fixture
def browser(tmp_path):
    if find_chromium() is None:
        pytest.skip("no chromium here: apt-get install chromium")
    browser = Browser(tmp_path / "profile")
    try:
        yield browser
    finally:
        browser.close()
