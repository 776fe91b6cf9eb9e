"""Servers that are missing, die, or never answer: training continues, and nothing is lost."""

import json
import threading
import time

import pytest
from harness import (
    Server,
    child,
    client,
    config,
    curve,
    epochs,
    evaluate,
    files,
    free_port,
    kept,
    one_run,
    runs,
    train,
    until,
)

from pipeline.errors import PipelineError
from pipeline.tracking import session as tracking

CURVE = [(epoch.epoch, epoch.train_loss) for epoch in epochs()]


def at(uri, **changes):
    return config(tracking={"uri": uri, "timeout": 2.0}, **changes)


def of(runs, record):
    [run] = [run for run in runs if run.data.tags.get("pipeline.id") == record.name]
    return run


def test_without_a_server_training_completes_and_is_sent_by_sync(workspace, server, capfd):
    settings = at(f"http://127.0.0.1:{free_port()}")
    before = int(time.time() * 1000)
    train(settings, workspace)
    evaluate(settings, workspace)
    after = int(time.time() * 1000)
    record, _of_the_evaluation = kept(workspace)
    warnings = [line for line in capfd.readouterr().err.splitlines() if "could not be brought" in line]
    assert len(warnings) == 2  # One from train, one from evaluate.
    assert all("pipeline sync" in line and settings.tracking.uri in line for line in warnings)
    assert all("brought up to date: Connection refused. The run" in line for line in warnings)

    line, *others = list(tracking.sync(at(server.uri).tracking, workspace))
    assert not any("Sent" in other for other in others)  # training and evaluation are one run
    run = of(runs(server.uri), record)
    assert run.info.run_id in line
    assert run.info.status == "FINISHED"
    assert before <= run.info.start_time <= run.info.end_time <= after
    assert curve(server.uri, run) == CURVE
    assert run.data.metrics["test_accuracy"] == 0.75
    assert {"history.csv", "metrics.json", "figures/confusion.png"} <= set(files(server.uri, run))
    assert len(run.outputs.model_outputs) == 1
    assert kept(workspace) == []


def test_a_server_that_never_answers_is_detected_within_ten_seconds_and_skipped(workspace, black_hole, capfd):
    begin = time.monotonic()
    pace = []
    settings = config(tracking={"uri": black_hole})

    def on_epoch(epoch):
        pace.append(time.monotonic())
        if epoch.epoch == 20:
            # By now the sender is stuck in its first request, or has given it up.
            until(lambda: any(thread.name == "mlflow" for thread in threading.enumerate()))

    train(settings, workspace, number=20, on_epoch=on_epoch)
    assert pace[-1] - begin < 3
    # This includes the training itself, on a machine that runs other tests.
    assert time.monotonic() - begin < 15
    assert capfd.readouterr().err.count("could not be brought up to date") == 1
    [record] = kept(workspace)
    assert json.loads((record / "state.json").read_text())["status"] == "FINISHED"
    [line] = list(tracking.sync(config().tracking, workspace))[:1]
    run = one_run(workspace)
    assert run.info.run_id in line
    assert len(curve(workspace, run)) == 20


def test_a_sender_that_fails_while_it_is_given_up_warns_once(workspace, black_hole, monkeypatch):
    said = []

    def slowly(text):
        said.append(text)
        time.sleep(3)

    monkeypatch.setattr(tracking, "warn", slowly)
    settings = config(tracking={"uri": black_hole, "timeout": 1.0})
    train(settings, workspace, on_epoch=lambda epoch: epoch.epoch == 3 and until(lambda: said))
    assert len(said) == 1


def test_a_server_killed_during_a_training_gets_everything_when_it_is_back(workspace, tmp_path):
    server = Server(tmp_path).start()
    settings = at(server.uri)
    try:

        def on_epoch(epoch):
            if epoch.epoch == 3:
                [run] = until(lambda: runs(server.uri))
                until(lambda: len(curve(server.uri, run)) == 3)
                server.kill()

        train(settings, workspace, number=6, on_epoch=on_epoch)
        evaluate(settings, workspace)
        assert len(kept(workspace)) == 2
        server.start()
        list(tracking.sync(settings.tracking, workspace))
        run = one_run(server.uri)
        assert curve(server.uri, run) == [(epoch.epoch, epoch.train_loss) for epoch in epochs(6)]
        assert run.info.status == "FINISHED"
        assert "figures/confusion.png" in files(server.uri, run)
        [output] = run.outputs.model_outputs
        assert client(server.uri).get_logged_model(output.model_id).status == "READY"
    finally:
        server.kill()


def test_the_next_training_that_finds_its_server_sends_the_kept_runs_too(workspace, capfd):
    train(at(f"http://127.0.0.1:{free_port()}"), workspace)
    [record] = kept(workspace)
    train(config(seed=1), workspace)
    assert kept(workspace) == []
    assert len(runs(workspace)) == 2
    run = of(runs(workspace), record)
    assert capfd.readouterr().out.count(f"(FINISHED): {run.info.run_id}") == 1
    assert curve(workspace, run) == CURVE
    assert run.info.status == "FINISHED"


def test_sync_without_a_server_is_refused_in_a_sentence_without_the_password(workspace, monkeypatch):
    train(at(f"http://127.0.0.1:{free_port()}"), workspace)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    with pytest.raises(PipelineError, match="could not be brought up to date") as refused:
        list(tracking.sync(config().tracking, workspace))
    assert "secret" not in str(refused.value)
    assert len(kept(workspace)) == 1


def test_the_environment_overrides_the_configuration_which_overrides_the_default(
    workspace, tmp_path, monkeypatch, empty_store
):
    chosen, configured = (f"sqlite:///{tmp_path}/{name}.db" for name in ("chosen", "configured"))
    for name in ("chosen", "configured"):
        (tmp_path / f"{name}.db").write_bytes(empty_store.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", chosen)
    train(at(configured), workspace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert (len(runs(chosen)), len(runs(configured)), len(runs(workspace))) == (1, 0, 0)
    train(at(configured, seed=1), workspace)
    assert (len(runs(chosen)), len(runs(configured)), len(runs(workspace))) == (1, 1, 0)


def test_credentials_in_the_configuration_are_refused():
    with pytest.raises(PipelineError, match=r"tracking\.uri"):
        config(tracking={"uri": "http://me:secret@example.org"})


@pytest.mark.slow
def test_two_processes_that_send_one_kept_run_at_once_make_one_run(workspace):
    train(at(f"http://127.0.0.1:{free_port()}"), workspace)
    threads = [threading.Thread(target=child, args=("sync", workspace)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run = one_run(workspace)
    assert curve(workspace, run) == CURVE
    assert len(run.outputs.model_outputs) == 1
