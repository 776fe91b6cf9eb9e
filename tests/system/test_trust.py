"""The commands of docs/trust.md run in their order, and verify repairs in each of the ways it describes."""

import hashlib
import re
from pathlib import Path

import pytest

from servers import CREDENTIALS

PAGE = (Path(__file__).parents[2] / "docs" / "trust.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)


@pytest.mark.slow
def test_every_command_of_the_page_runs_and_the_history_lists_it(smoke):
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


def lose(clone, *, everywhere):
    """Delete the model from the workspace and the cache, and with `everywhere` from MLflow, too."""
    digest = clone.digests()["models/model.keras"]
    lost = [clone.root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:], clone.workspace.model]
    for path in [*lost, *(clone.root / "mlruns").rglob("model.keras")] if everywhere else lost:
        path.unlink()


@pytest.mark.slow
def test_a_lost_model_is_fetched_restored_or_trained_again(smoke, s3):
    lose(smoke, everywhere=False)
    assert "is missing: models/model.keras, an output of train" in smoke.run("pipeline", "verify", code=1)
    said = smoke.run("pipeline", "verify", "--repair")
    assert "restored from MLflow's copy" in said
    assert "models/model.keras: restored from the cache" in said

    lose(smoke, everywhere=True)
    said = smoke.run("pipeline", "verify", "--repair")
    assert "models/model.keras: made again by train, the same bytes." in said
    assert "model.keras in MLflow: restored from" in said

    smoke.pipeline("train.epochs=1", "tracking.run_name=past")
    past = smoke.mlflow_runs()[-1]
    model = max((smoke.root / "mlruns").rglob("model.keras"), key=lambda path: path.stat().st_mtime)
    digest = hashlib.md5(model.read_bytes()).hexdigest()
    (smoke.root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]).unlink()
    model.unlink()
    said = smoke.run("pipeline", "verify", "--repair")
    assert f"model.keras of {past.info.run_name}: trained again, the same bytes." in said
    assert hashlib.md5(model.read_bytes()).hexdigest() == digest

    _, address = s3
    smoke.environment |= CREDENTIALS
    smoke.run("dvc", "remote", "add", "--default", "shared", "s3://pipeline-cache/repair")
    smoke.run("dvc", "remote", "modify", "shared", "endpointurl", address)
    smoke.run("pipeline", "push")
    lose(smoke, everywhere=True)
    said = smoke.run("pipeline", "verify", "--repair")
    assert "fetched from the DVC remote" in said
    assert "Everything is as recorded." in smoke.run("pipeline", "verify", "--all")
