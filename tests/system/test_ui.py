"""`mlflow ui` shows the runs as documented, as seen in headless Chromium."""

import json
import os
import re
import signal
import socket
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from clones import until
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browsing import running_browser
from servers import PATIENCE, free_port

pytestmark = pytest.mark.browser


@pytest.fixture
def browser(chromium, tmp_path):
    with running_browser(chromium, tmp_path / "chromium", "--window-size=1600,1000") as browser:
        yield browser


@pytest.fixture
def ui(smoke, start):
    """`mlflow ui` with only a free port as argument, at the root of a clone with a run."""
    return serve(smoke, start)


def test_pipeline_ui_prints_its_address_and_suggests_another_port_if_its_own_is_used(smoke, start):
    port = free_port()
    running = start(smoke, "pipeline", "ui", "--port", str(port))
    running.wait_for("Press Ctrl-C to stop.")
    [run] = smoke.mlflow_runs()
    page = (
        f"http://127.0.0.1:{port}/#/experiments/{run.info.experiment_id}/runs?workflowType=machine_learning"
    )
    assert f"The runs are at {page}" in running.output
    with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=PATIENCE) as response:
        assert response.status == 200

    refusal = smoke.run("pipeline", "ui", "--port", str(port), code=1)
    assert f"error: Port {port} can't be used (address already in use)." in refusal
    offered = int(re.search(r"`pipeline ui --port (\d+)`", refusal)[1])
    assert offered > port
    socket.create_server(("127.0.0.1", offered)).close()

    running.process.send_signal(signal.SIGINT)
    assert running.end() == 0
    assert smoke.processes() == []


def serve(smoke, start):
    """Start `mlflow ui`, wait until it answers, and yield its address."""
    port = free_port()
    smoke.environment |= {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_WORKERS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    server = start(smoke, "mlflow", "ui", "--port", str(port))
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.process.poll() is None, server.output
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=PATIENCE) as response:
            return response.status == 200
        return False

    until(answers)
    return address


@pytest.fixture
def sweep_ui(smoke, start):
    """`mlflow ui` at the root of a clone with a sweep of two trials, one of them trained before."""
    smoke.pipeline("-m", "train.learning_rate=0.001,0.01")
    return serve(smoke, start)


class Page:
    """The page in the browser, and how to wait until it shows something."""

    def __init__(self, browser):
        self.browser = browser

    def go(self, address: str, *texts: str) -> None:
        self.browser.get(address)
        self.shows(*texts)

    def text(self) -> str:
        with suppress(WebDriverException):
            return self.browser.find_element(By.TAG_NAME, "body").text
        return ""

    def shows(self, *texts: str) -> None:
        try:
            until(lambda: all(text in self.text() for text in texts))
        except AssertionError:
            missing = [text for text in texts if text not in self.text()]
            raise AssertionError(f"{missing} not in {self.browser.current_url}:\n{self.text()}") from None

    def close_assistant(self) -> None:
        """Close the assistant, which MLflow opens by default and which covers a quarter of the page."""
        for button in self.browser.find_elements(By.CSS_SELECTOR, "button[aria-label='Close']"):
            button.click()

    def toggle_column(self, name: str) -> None:
        """Show or hide a column of the run table, with its menu."""
        tick = (
            f"//*[contains(@class, 'treenode')][normalize-space()='{name}']//*[contains(@class, 'checkbox')]"
        )
        if not self.browser.find_elements(By.XPATH, tick):
            self.browser.find_element(
                By.XPATH, "//button[@data-testid='column-selection-dropdown'][normalize-space()='Columns']"
            ).click()
            until(lambda: self.browser.find_elements(By.XPATH, tick))
        self.browser.find_element(By.XPATH, tick).click()

    def search_charts(self, pattern: str) -> None:
        """Show only the charts whose metric matches, because charts out of sight are not drawn."""
        box = "input[placeholder='Search metric charts']"
        until(lambda: self.browser.find_elements(By.CSS_SELECTOR, box))
        self.browser.find_element(By.CSS_SELECTOR, box).send_keys(pattern)

    def shoot(self, name: str) -> None:
        if folder := os.environ.get("SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_runs_curves_and_pictures_are_shown(ui, smoke, browser):
    page = Page(browser)
    [first] = smoke.mlflow_runs()
    experiment = f"{ui}/#/experiments/{first.info.experiment_id}"
    page.go(f"{experiment}/runs", first.info.run_name)
    page.close_assistant()
    # The table shows only the columns that fit, and the names of the data are long.
    for metric in ("Dataset", "test_accuracy", "val_accuracy"):
        page.toggle_column(metric)
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    page.shows(
        "test_accuracy",
        "val_accuracy",
        f"{first.data.metrics['test_accuracy']:.5g}",
    )
    page.shoot("runs")

    run = f"{experiment}/runs/{first.info.run_id}"
    page.go(run, f"{first.data.metrics['test_accuracy']:.3g}", "train.learning_rate", "Finished")
    page.shoot("run")

    page.go(f"{run}/model-metrics", "Model metrics")
    page.search_charts("^(train|val)_(loss|accuracy)$")
    page.shows("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    curves = browser.find_elements
    until(lambda: len(curves(By.CSS_SELECTOR, ".js-plotly-plot:has(path.js-line)")) == 4)
    assert len(curves(By.CSS_SELECTOR, ".js-plotly-plot path.point")) >= 4 * 5
    page.shoot("curves")

    page.go(f"{run}/artifacts/figures/confusion_counts.png", "confusion_counts.png")
    until(
        lambda: any(
            image.get_property("naturalWidth") > 300
            for image in browser.find_elements(By.CSS_SELECTOR, "img[src^='blob:']")
        )
    )
    page.shoot("artifact")


@pytest.mark.slow
def test_a_sweep_is_shown_above_its_trials_with_its_table_and_its_pictures(sweep_ui, smoke, browser):
    page = Page(browser)
    known, parent, child = smoke.mlflow_runs()
    names = [trial.data.tags["pipeline.name"] for trial in (known, child)]
    trials, experiment = (known, child), f"{sweep_ui}/#/experiments/{parent.info.experiment_id}"
    page.go(f"{experiment}/runs", parent.info.run_name)
    page.close_assistant()
    # A run that was trained before stays at the top level.
    assert known.info.run_name in page.text()
    assert child.info.run_name not in page.text()
    row = f"//*[@role='row'][.//*[contains(text(), '{parent.info.run_name}')]]"
    browser.find_element(By.XPATH, f"{row}//button[.//*[name()='svg']]").click()
    page.shows(*(run.info.run_name for run in trials))
    page.shoot("sweep")

    run = f"{experiment}/runs/{parent.info.run_id}"
    page.go(run, "learning_rate=0.01", "pipeline adopt", "best_val_accuracy", child.info.run_name)
    page.shoot("sweep_run")
    page.go(f"{run}/artifacts/leaderboard.csv", "Previewing the first 2 rows", "train.learning_rate", *names)
    page.shoot("leaderboard")

    both = urllib.parse.quote(json.dumps([run.info.run_id for run in trials]))
    of = urllib.parse.quote(json.dumps([parent.info.experiment_id]))
    page.go(f"{sweep_ui}/#/compare-runs?runs={both}&experiments={of}", "Parallel Coordinates Plot")
    until(lambda: "train.learning_rate" in parallel_coordinates(browser))
    page.shoot("parallel_coordinates")


def parallel_coordinates(browser) -> list[str]:
    """Return the axes of MLflow's own plot."""
    with suppress(WebDriverException):
        return [axis.text for axis in browser.find_elements(By.CSS_SELECTOR, ".parcoords .axis-title")]
    return []
