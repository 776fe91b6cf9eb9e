"""What a user does and sees on the page, in headless Chromium."""

import numpy as np
from in_thread import until
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

FLAGS = (
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
