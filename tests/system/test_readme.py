"""The commands of the README run, and its links lead to existing files."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)$", README, re.MULTILINE)
# These commands are run elsewhere, where their results are checked.
ELSEWHERE = {
    "make repro": ".ci/run",
    "make ui": ".ci/run",
    "make lint": ".ci/run",
    "make test": ".ci/run",
    "make bench": "tests/test_benchmarks.py",
    "source .venv/bin/activate": ".ci/run",
    "mlflow ui": "tests/system/test_ui.py",
    "pipeline serve": "tests/system/test_serve.py",
    "pipeline add-data ../letters": "tests/system/test_own_data.py",
    "python -m pipeline data=letters experiment=folder": "tests/system/test_own_data.py",
}


@pytest.mark.parametrize(("command", "place"), ELSEWHERE.items())
def test_commands_that_need_another_environment_are_run_elsewhere(command, place):
    assert command in COMMANDS
    text = re.sub(r'[",]+', " ", (REPOSITORY / place).read_text())
    assert command in re.sub(r" +", " ", text)


@pytest.mark.slow
def test_every_other_command_of_the_readme_runs_in_their_order(fresh):
    commands = [command for command in COMMANDS if command not in ELSEWHERE]
    assert len(commands) > 10
    for command in commands:
        fresh.run("bash", "-c", command)
    assert len(fresh.mlflow_runs()) >= 8


def test_links_and_pictures_lead_to_files_of_the_repository():
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_data_sets_and_experiments_it_names_exist():
    for group, option in re.findall(r"\b(data|experiment|model)=([a-z_]+)\b", README):
        path = f"conf/{group}/{option}.yaml"
        added = group == "data" and f"pipeline add-data ../{option}" in README
        assert added or (REPOSITORY / path).exists() or f"`{path}`:\n\n```yaml" in README
