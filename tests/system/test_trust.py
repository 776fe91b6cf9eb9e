"""docs/trust.md is true: its commands run, in their order."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "trust.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)


def test_every_command_of_the_page_runs_and_the_history_tells_of_it(smoke):
    shown = {command: smoke.run("bash", "-c", command) for command in COMMANDS}
    [history] = [text for command, text in shown.items() if command == "pipeline history"]
    assert re.search(r"champion +– → 1 .+promote", history)
    assert re.search(r"champion +1 → 2 .+promote", history)
    assert re.search(r"champion +2 → 1 .+rollback", history)
    assert "champion: version 1" in history
    assert "Nothing was changed" in shown["pipeline promote --dry-run"]


@pytest.mark.slow
def test_a_closed_gate_has_an_exit_code_of_its_own(smoke):
    smoke.run("pipeline", "promote")
    smoke.pipeline("train.epochs=1", "tracking.run_name=short")
    refused = smoke.run("pipeline", "promote", "short", code=3)
    assert "The gate is closed (accuracy" in refused
    assert "error: --force needs --reason" in smoke.run("pipeline", "promote", "short", "--force", code=1)
    assert "version 2" in smoke.run("pipeline", "promote", "short", "--force", "--reason", "to try it")
