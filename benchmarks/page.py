"""Measure in headless Chromium how soon the page of `pipeline serve` answers while somebody draws."""

import shutil
import sys
import tempfile
import time
from math import cos, pi, sin
from statistics import median, quantiles

MOVES = 60
SETTLE_SECONDS = 0.1  # between two moves of the pen, like somebody who draws slowly


def drawn(port: int) -> dict[str, float]:
    """Draw two circles; return the median and 95 % quantile of the milliseconds from a move to its answer."""
    from selenium import webdriver
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        sys.exit("error: Chromium is needed to measure the page: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ("headless=new", "no-sandbox", "disable-gpu", "window-size=1280,1000")
        for flag in (*flags, f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
        try:
            browser.get(f"http://127.0.0.1:{port}")
            WebDriverWait(browser, 60).until(lambda found: found.find_element(By.ID, "name").text)
            board = browser.find_element(By.ID, "board")
            radius = board.size["width"] * 0.3
            ActionChains(browser, 0).move_to_element_with_offset(board, round(radius), 0).perform()
            ActionChains(browser, 0).click_and_hold().perform()
            found = []
            for number in range(MOVES):
                angle = 4 * pi * (number + 1) / MOVES
                x, y = round(radius * cos(angle)), round(radius * sin(angle) / (1 + number // 30))
                ActionChains(browser, 0).move_to_element_with_offset(board, x, y).perform()
                time.sleep(SETTLE_SECONDS)
                found.append(int(browser.execute_script("return document.body.dataset.ms || 0")))
            ActionChains(browser, 0).release().perform()
        finally:
            browser.quit()
    return {"median": median(found), "p95": quantiles(found, n=20)[-1]}


def drawing_line(found: list[dict[str, float]]) -> str:
    """Describe the waiting times in a sentence, as medians."""
    middle, most = (median(part[name] for part in found) for name in ("median", "p95"))
    return (
        f"While somebody draws on the page, the bars are updated {middle:.0f} ms after a move (median; 95 %: "
        f"{most:.0f} ms)."
    )
