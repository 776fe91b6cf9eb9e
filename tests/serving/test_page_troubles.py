"""The page when the server, a file or the model is not what it expects, and in small or unusual views."""

import pytest
from drawn_page import DIGITS, Page
from in_thread import running, until

from photos import png

pytestmark = pytest.mark.browser


@pytest.fixture
def respond(page):
    """Have a function of JavaScript answer the page's requests, instead of the server."""
    run = page.browser.execute_script
    run("window.server = window.fetch.bind(window)")

    def replace(function: str) -> None:
        run(f"window.fetch = {function}")

    yield replace
    run("if (window.server) window.fetch = window.server")


def word(page, label: str) -> None:
    """Show a label as if the model had given it."""
    page.browser.execute_script(
        """
        const label = document.getElementById("label");
        label.textContent = arguments[0];
        label.className = "label word";
        """,
        label,
    )


def test_a_small_digit_has_lines_as_thick_as_a_large_one(page, client):
    page.draw(DIGITS["2"])
    page.shows("label", "2")
    until(page.settled)
    large = page.seen().mean()
    page.open(client)
    page.draw([[(0.7 + x / 5, 0.7 + y / 5) for x, y in line] for line in DIGITS["2"]])
    page.shows("label", "2")
    until(page.settled)
    assert abs(page.seen().mean() - large) < large / 4


def test_only_one_finger_draws(page):
    page.browser.execute_script(
        """
        const board = document.getElementById("board"), place = { clientX: 200, clientY: 300, bubbles: true };
        board.dispatchEvent(new PointerEvent("pointerdown", { ...place, pointerId: 7, isPrimary: false }));
        """
    )
    assert not page.find("clear").is_enabled()


def test_several_files_are_refused(page):
    page.draw(DIGITS["7"])
    page.shows("label", "7")
    page.browser.execute_script(
        """
        const data = new DataTransfer();
        for (const name of ["one.png", "two.png"]) data.items.add(new File(["?"], name));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
        """
    )
    page.shows("error", "The page takes one picture at a time, not 2.")
    assert page.text("label") == "?"


def test_a_folder_is_not_mistaken_for_a_server_that_is_lost(page, tmp_path):
    dropped = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 300, "y": 300, "data": dropped}
        page.browser.execute_cdp_cmd("Input.dispatchDragEvent", event)
    page.shows("error", "Is it a folder?")


def test_the_page_goes_on_by_itself_when_a_lost_server_is_back(page, respond):
    respond("() => Promise.reject(new TypeError('refused'))")
    page.draw(DIGITS["7"])
    page.shows("error", "The server does not respond. The page tries again.")
    respond("window.server")
    page.shows("label", "7")
    assert page.text("error") == ""


def test_a_page_that_found_no_server_says_so_and_finds_it_later(page, client):
    page.browser.execute_cdp_cmd("Network.enable", {})
    page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/model"]})
    try:
        page.browser.get(client.address)
        page.shows("error", "The server does not respond.")
    finally:
        page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.shows("name", "digits")
    page.shows("next", "Nothing to classify yet.")
    assert page.text("error") == ""
    assert all("/model" in complaint for complaint in page.complaints())


def test_the_page_of_a_proxy_is_reported_by_its_status(page, respond):
    respond("() => Promise.resolve(new Response('<html>Bad gateway</html>', { status: 502 }))")
    page.draw(DIGITS["7"])
    page.shows("error", "The server responded with status 502.")


def test_an_old_answer_is_not_shown_while_a_slow_server_computes(page, respond):
    page.draw(DIGITS["7"])
    page.shows("label", "7")
    page.browser.execute_script("window.held = new Promise((release) => window.release = release)")
    respond("(...request) => window.held.then(() => window.server(...request))")
    page.draw(DIGITS["3"])
    page.shows("next", "Waiting for the server.")
    assert page.text("label") == "?"
    page.browser.execute_script("window.release()")
    page.shows("sure", "%")


def test_the_page_is_loaded_again_for_a_model_of_another_kind(page, respond, digits):
    respond(
        """
        async (path, options) => {
            const found = await (await window.server(path, options)).json();
            if (path === "/model") found.classes = ["cat", "dog"]; else found.model.run = "another";
            return Response.json(found);
        }
        """
    )
    page.drop(png(digits[0][3]), "three.png")
    until(lambda: page.browser.execute_script("return window.server === undefined"))
    page.shows("next", "Nothing to classify yet.")


def test_a_wrong_token_is_called_wrong(browser, served):
    with running(served, token="0123456789abcdef") as client:
        browser.execute_cdp_cmd(
            "Storage.clearDataForOrigin", {"origin": client.address, "storageTypes": "all"}
        )
        browser.get(client.address)
        page = Page(browser)
        until(page.find("token").is_displayed)
        assert not page.find("refused").is_displayed()
        page.find("token").send_keys("wrong\n")
        page.shows("refused", "The token was not accepted.")


def test_the_words_of_a_label_are_not_broken_on_a_phone(page):
    size = {"width": 320, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        word(page, "cat")
        line = page.find("label").size["height"]
        word(page, "hippopotamus")
        assert page.find("label").size["height"] == line
        word(page, "Donaudampfschifffahrtsgesellschaft")
        assert page.find("label").rect["x"] + page.find("label").rect["width"] <= 300
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_bars_are_seen_with_forced_colours(page):
    media = {"features": [{"name": "forced-colors", "value": "active"}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        page.draw(DIGITS["7"])
        page.shows("label", "7")
        colour = "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor"
        shown = [
            page.browser.execute_script(colour, part)
            for part in ("#bars .top .fill", "figcaption i", "#answer")
        ]
        assert len(set(shown)) == 3
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
