"""The page, as used in headless Chromium."""

import re

import numpy as np
import pytest
from in_thread import running, until
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import browsing
from photos import png
from pipeline.serving.reference import Resolved
from pipeline.serving.served import Served

pytestmark = pytest.mark.browser
FLAGS = (
    *browsing.FLAGS,
    "--window-size=1280,1000",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
# Lines as fractions of the board, as a person would draw them.
DIGITS = {
    "2": [[(0.34, 0.3), (0.5, 0.18), (0.65, 0.32), (0.5, 0.58), (0.34, 0.78), (0.68, 0.78)]],
    "3": [[(0.34, 0.25), (0.5, 0.18), (0.64, 0.3), (0.5, 0.46), (0.66, 0.62), (0.54, 0.8), (0.34, 0.74)]],
    "4": [[(0.48, 0.18), (0.28, 0.58), (0.72, 0.58)], [(0.56, 0.36), (0.56, 0.86)]],
    "7": [[(0.28, 0.25), (0.5, 0.25), (0.72, 0.25), (0.6, 0.5), (0.46, 0.82)]],
}


class Page:
    """What a user does and sees on the page."""

    def __init__(self, browser):
        self.browser = browser

    def find(self, name: str):
        return self.browser.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return self.find(name).text

    def open(self, client) -> None:
        self.browser.get(client.address)
        self.shows("name", "digits")

    def shows(self, name: str, text: str) -> None:
        until(lambda: text in self.text(name))

    def settled(self) -> bool:
        """Whether what is shown is the answer to what is on the board."""
        return self.find("answer").get_attribute("aria-busy") == "false"

    def draw(self, lines) -> None:
        board = self.find("board")
        width, height = board.size["width"], board.size["height"]
        for line in lines:
            steps = [(round((x - 0.5) * width), round((y - 0.5) * height)) for x, y in line]
            actions = ActionChains(self.browser, duration=20)
            actions.move_to_element_with_offset(board, *steps[0]).click_and_hold()
            for step in steps[1:]:
                actions.move_to_element_with_offset(board, *step)
            actions.release().perform()

    def drop(self, content: bytes, name: str, kind: str = "drop") -> None:
        """Drop or paste a file, with the events that the browser would send."""
        self.browser.execute_script(
            """
            const [bytes, name, kind] = arguments, data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name));
            const carried = kind === "drop" ? { dataTransfer: data } : { clipboardData: data };
            const event = kind === "drop" ? DragEvent : ClipboardEvent;
            document.dispatchEvent(new event(kind, { ...carried, bubbles: true, cancelable: true }));
            """,
            list(content),
            name,
            kind,
        )

    def seen(self):
        """The image that the page shows as the model's input: grey levels (height, width)."""
        levels = self.browser.execute_script(
            """
            const canvas = document.getElementById("seen");
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            return Array.from(data).filter((value, i) => i % 4 === 0);
            """
        )
        return np.array(levels, np.uint8).reshape(28, 28)

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.fixture(scope="module")
def browser(chromium, tmp_path_factory):
    binary, driver = chromium
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def page(browser, client):
    found = Page(browser)
    found.open(client)
    found.complaints()
    yield found
    assert [complaint for complaint in found.complaints() if "status of 400" not in complaint] == []


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
