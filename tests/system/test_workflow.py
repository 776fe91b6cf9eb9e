"""The steps of the workflow for pull requests do what their names say."""

import sys
from pathlib import Path

import yaml

WORKFLOW = Path(__file__).parents[2] / ".github" / "workflows" / "pipeline.yml"
# These are run by .ci/run, in a clone with its own environment.
ELSEWHERE = {"make setup", """make test MARK='-m "not slow and not browser"'"""}


def test_the_steps_of_the_workflow_rebuild_and_report(smoke, tmp_path):
    workflow = yaml.safe_load(WORKFLOW.read_text())
    steps = [step for step in workflow["jobs"]["pipeline"]["steps"] if "run" in step]
    assert {step["run"] for step in steps} > ELSEWHERE
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in WORKFLOW.read_text()
    (smoke.root / ".venv").symlink_to(sys.prefix)
    smoke.run("dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    smoke.run("dvc", "push", "--quiet", "--run-cache")
    smoke.edit("conf/train/default.yaml", "learning_rate: 0.001", "learning_rate: 0.01")
    summary = tmp_path / "summary.md"
    environment = {"BASE": "HEAD", "GITHUB_STEP_SUMMARY": str(summary), "PIPELINE_OVERRIDES": ""}
    for step in steps:
        if step["run"] not in ELSEWHERE:
            smoke.run("bash", "-e", "-c", step["run"], **environment)
    text = summary.read_text()
    assert "| `train.learning_rate` | 0.001 | 0.01 |" in text
    assert "McNemar" in text
    assert (smoke.root / "report.md").read_text() == text
