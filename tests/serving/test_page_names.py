"""The page shows names of classes of any length."""

from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from browsing import running_browser
from pipeline import serving

pytestmark = pytest.mark.browser
# Shows a name as the answer, and returns its lines.
SHOW = """
    const label = document.getElementById("label");
    label.textContent = arguments[0];
    label.className = "label word";
    const letters = label.firstChild, range = document.createRange(), lines = new Map();
    for (let at = 0; at < letters.length; at++) {
      range.setStart(letters, at);
      range.setEnd(letters, at + 1);
      const top = Math.round(range.getBoundingClientRect().top);
      lines.set(top, (lines.get(top) || "") + letters.data[at]);
    }
    return [...lines.values()].map((line) => line.trim());
"""


@pytest.fixture(scope="module")
def browser(chromium, tmp_path_factory):
    with running_browser(chromium, tmp_path_factory.mktemp("chromium")) as browser:
        browser.get((Path(serving.__file__).parent / "page.html").as_uri())
        yield browser


@pytest.mark.parametrize("width", [390, 900, 1280])
def test_a_name_is_not_broken_within_a_word_and_covers_no_picture(browser, width):
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for name in ("zebra", "O'Brien & Söhne", "Schildkröte"):
        assert " ".join(browser.execute_script(SHOW, name)) == name
        label, seen = (browser.find_element(By.ID, part).rect for part in ("label", "seen"))
        is_beside = label["x"] + label["width"] <= seen["x"]
        assert is_beside or label["y"] + label["height"] <= seen["y"]
    assert len(browser.execute_script(SHOW, "a" * 60)) > 1
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    undo, photograph = (browser.find_element(By.ID, part).rect for part in ("undo", "photograph"))
    assert undo["y"] == photograph["y"]
