"""`dvc plots show` shows curves, the confusion matrix and the figures, without a network."""

import re
import subprocess
from pathlib import Path

import pytest
from dvc_render.vega import VegaRenderer

PAGE = Path(__file__).parents[2] / ".dvc" / "plots" / "page.html"


@pytest.fixture(scope="module")
def page(reproduced, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plots")
    reproduced.run("dvc", "plots", "show", "--out", str(folder))
    return folder / "index.html"


def test_the_page_has_three_charts_and_the_figures_and_no_others(page, reproduced):
    text = page.read_text()
    charts = re.findall(r'<div id ?= ?"([^"]+)"', text)
    images = re.findall(r'<img[^>]* src="static/workspace_reports_figures_([^"]+)"', text)
    assert sorted(charts) == ["Accuracy", "Confusion", "Loss"]
    assert sorted(images) == sorted(path.name for path in reproduced.workspace.figures.iterdir())


def test_the_page_has_the_versions_of_vega_inside_that_dvc_would_load():
    text = PAGE.read_text()
    wanted = re.findall(r"/npm/([\w-]+)@([\d.]+)", VegaRenderer.SCRIPTS)
    assert [name for name, _ in wanted] == ["vega", "vega-lite", "vega-embed"]
    assert ["{scripts}" in text] + [f"{name} {version}" in text for name, version in wanted] == [
        False, True, True, True,
    ]  # fmt: skip


@pytest.mark.browser
def test_all_charts_are_drawn_without_a_network(page, chromium, tmp_path):
    command = [
        chromium[0], "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=10000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    sizes = re.findall(r'<canvas[^>]* class="marks"[^>]*', dom)
    assert len(sizes) == 3
    assert all(int(re.search(r'height="(\d+)"', size)[1]) > 200 for size in sizes)
