"""Start Chromium for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def running_browser(
    chromium: tuple[str, str], profile: Path, *flags: str, logs: bool = False
) -> Iterator[webdriver.Chrome]:
    """Run Chromium with more flags and its user data in `profile`; `logs` keeps what pages log."""
    binary, driver = chromium
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    if logs:
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*_FLAGS, *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()
