"""The page, as used in headless Chromium."""

import re

import numpy as np
import pytest
from drawn_page import DIGITS, Page
from in_thread import running, until
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from photos import png
from pipeline.serving.reference import Resolved
from pipeline.serving.served import Served

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("digit", DIGITS)
def test_a_digit_that_is_drawn_is_read(page, digit):
    page.draw(DIGITS[digit])
    page.shows("label", digit)
    page.shows("sure", "%")
    top = page.browser.find_element(By.CSS_SELECTOR, "#bars .top")
    assert top.find_element(By.CLASS_NAME, "name").text == digit
    until(lambda: page.find("map").get_attribute("data-label") == digit)
    # In the colours of the training images, whatever the page's are.
    seen = page.seen()
    assert seen.max() > 200
    assert np.median(seen) == 0


def test_the_answer_is_updated_while_the_user_draws(page):
    board = page.find("board")
    ActionChains(page.browser, duration=20).move_to_element_with_offset(
        board, -80, -100
    ).click_and_hold().move_by_offset(150, 0).perform()
    page.shows("sure", "%")
    until(page.settled)
    first = page.text("bars")
    ActionChains(page.browser, duration=20).move_by_offset(-90, 220).perform()
    until(lambda: page.text("bars") != first)
    ActionChains(page.browser).release().perform()


def test_lines_are_undone_one_by_one_or_all_at_once(page):
    undo, clear = page.find("undo"), page.find("clear")
    assert not undo.is_enabled()
    page.draw(DIGITS["4"][:1])
    until(page.settled)
    first = page.text("bars")
    assert "%" in first
    page.draw(DIGITS["4"][1:])
    page.shows("label", "4")
    undo.click()
    until(lambda: page.text("bars") == first)
    clear.click()
    page.shows("label", "?")
    page.shows("next", "Nothing")
    assert not clear.is_enabled()
    page.draw(DIGITS["4"])
    page.shows("label", "4")
    ActionChains(page.browser).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    until(lambda: page.text("bars") == first)
    ActionChains(page.browser).send_keys(Keys.ESCAPE).perform()
    page.shows("label", "?")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_that_is_dropped_or_pasted_is_read(page, digits, kind):
    page.drop(png(255 - digits[0][6]), "photo.png", kind)
    page.shows("label", str(digits[1][6]))
    assert page.text("error") == ""
    until(lambda: page.seen().any())


def test_a_picture_that_is_chosen_is_read(page, digits, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png(digits[0][9]))
    page.find("file").send_keys(str(path))
    page.shows("label", str(digits[1][9]))


def test_a_photo_is_taken_with_the_camera(page):
    page.find("photograph").click()
    take = page.browser.find_element(By.CSS_SELECTOR, "#shutter button[value=take]")
    until(take.is_displayed)
    until(lambda: page.browser.execute_script("return document.getElementById('video').videoWidth"))
    take.click()
    page.shows("sure", "%")


def test_an_unreadable_file_is_reported_in_a_sentence(page):
    page.draw(DIGITS["7"])
    until(lambda: "The model says 7" in page.find("spoken").get_property("textContent"))
    page.drop(b"this is no picture", "notes.png")
    page.shows("error", "The picture is not a PNG, JPEG")
    assert page.text("error").endswith(".")
    assert page.text("label") == "?"
    # Nothing is left of the previous answer, on the screen or for screen readers.
    assert page.text("time") == page.find("spoken").get_property("textContent") == ""
    # The browser notes refusals by itself.
    assert all("status of 400" in complaint for complaint in page.complaints())
    page.draw(DIGITS["3"])
    page.shows("label", "3")
    assert page.text("error") == ""


def test_the_page_describes_the_model(page):
    assert page.text("version") == "version 3"
    assert page.text("accuracy") == "96.0 % test accuracy (95.0–97.0)"
    assert not page.find("card").is_displayed()


def test_the_keyboard_can_draw_too(page):
    board = page.find("board")
    page.browser.execute_script("arguments[0].focus()", board)
    keys = ActionChains(page.browser)
    keys.send_keys(*[Keys.UP] * 8, " ", *[Keys.DOWN] * 16, " ").perform()
    page.shows("label", "1")
    # The pen is up: it moves without drawing.
    bars = page.text("bars")
    ActionChains(page.browser).send_keys(*[Keys.RIGHT] * 5).perform()
    assert page.text("bars") == bars


def test_every_control_has_an_accessible_name(page):
    nameless = page.browser.execute_script(
        """
        return [...document.querySelectorAll("button, input, a, canvas, section, dialog, ol")]
            .filter((node) => !(node.textContent.trim() || node.ariaLabel || node.labels?.length))
            .map((node) => node.outerHTML);
        """
    )
    assert nameless == []
    page.draw(DIGITS["7"])
    until(lambda: "The model says 7" in page.find("spoken").get_property("textContent"))


@pytest.mark.parametrize(
    ("width", "scheme", "dark"), [(320, "light", False), (390, "dark", True), (1280, "dark", True)]
)
def test_the_page_fits_a_phone_and_follows_the_colours_of_the_system(page, width, scheme, dark):
    browser = page.browser
    size = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        page.draw(DIGITS["3"])
        page.shows("label", "3")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        boxes = {name: page.find(name).rect for name in ("sure", "seen", "undo", "photograph")}
        assert boxes["sure"]["x"] + boxes["sure"]["width"] < boxes["seen"]["x"]
        assert boxes["undo"]["y"] == boxes["photograph"]["y"]
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"[0-9]+", ground)[0]) < 60) == dark
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_page_that_needs_the_token_asks_for_it(browser, served):
    with running(served, token="0123456789abcdef") as client:
        page = Page(browser)
        browser.get(client.address)
        token = page.find("token")
        until(token.is_displayed)
        token.send_keys("0123456789abcdef", Keys.ENTER)
        page.shows("name", "digits")
        page.draw(DIGITS["3"])
        page.shows("label", "3")


def test_the_card_fits_a_phone(browser, served, tmp_path):
    card = tmp_path / "model_card.md"
    digest = served.classifier.description.weights_sha256
    card.write_text(f"# Digits\n\n| {'a | ' * 40}\n| {'--- | ' * 40}\n\nThe digest is `{digest}`.\n")
    size = {"width": 320, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    with running(Served.load(Resolved(served.source.path, "digits", card=card))) as client:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            browser.get(f"{client.address}/card")
            assert digest in browser.page_source
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 320
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_shows_what_the_server_answers(page, client, digits):
    page.drop(png(digits[0][2]), "two.png")
    page.shows("label", str(digits[1][2]))
    answer = client.post("/predict?seen", png(digits[0][2])).json
    rows = page.browser.find_elements(By.CSS_SELECTOR, "#bars li .much")
    expected = [f"{100 * p:.1f} %" if p <= 0.9995 else ">99.9 %" for p in answer["probabilities"].values()]
    assert [row.text for row in rows] == expected
