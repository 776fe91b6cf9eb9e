"""Sending to MLflow is cut at any moment and repeated: the store then equals that of an undisturbed run."""

import os
import shutil
import signal
from contextlib import closing, suppress

import pytest
from cutting import BREAKS, Proxy, die_at_commit, forked, holds
from harness import config, evaluate, free_port, kept, lay_out, train
from sweep_runs import SWEEP, known, of, trained_in

from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.results.publish import publish
from pipeline.results.summary import digest_of
from pipeline.tracking import session as tracking

EXPERIMENT = "image-classifier"


@pytest.fixture(scope="module")
def template(memory, model):
    """A workspace with an evaluated training and a failed one that no server has seen."""
    workspace = lay_out(Workspace(memory / "template"), model)
    nowhere = {"uri": f"http://127.0.0.1:{free_port()}", "timeout": 1.0}
    with pytest.raises(ValueError, match="lost"):
        train(config(seed=1, tracking=nowhere), workspace, on_epoch=fail)
    train(config(tracking=nowhere), workspace)
    evaluate(config(tracking=nowhere), workspace)
    workspace.run.unlink()
    return workspace


def fail(epoch):
    if epoch.epoch == 2:
        raise ValueError("the loss is lost")


def replaced(text, others):
    for old, new in others.items():
        text = text.replace(old, new)
    return text


class Case:
    """A copy of the template in which the runs have new ids and a new experiment."""

    def __init__(self, template, folder, name, uri=None):
        self.experiment, self.workspace = f"{EXPERIMENT}-{name}", Workspace(folder / name)
        shutil.copytree(template.root, self.workspace.root)
        self.settings = config(tracking={"uri": uri, "timeout": 60.0, "experiment": self.experiment}).tracking
        old = sorted({record.name.partition("-")[0] for record in kept(template)})
        self.ids = {f"{abs(hash(name)) % 16**12:012x}{n:020x}": f"id {n}" for n in range(len(old))}
        renamed = dict(zip(old, self.ids, strict=True)) | {f'{EXPERIMENT}"': f'{self.experiment}"'}
        renamed[f"experiment: {EXPERIMENT}"] = f"experiment: {self.experiment}"
        for path in sorted(self.workspace.scratch.rglob("*"), reverse=True):
            if path.suffix in (".json", ".yaml"):
                path.write_text(replaced(path.read_text(), renamed))
            path.rename(path.with_name(replaced(path.name, renamed)))
        [evaluated] = [record for record in kept(self.workspace) if (record / "reports").exists()]
        self.trained = evaluated.name.partition("-")[0]
        self.sweep = of(
            known(1, self.trained),
            id=f"{abs(hash(name)) % 16**16:016x}",
            status="FINISHED",
            end=SWEEP.start + 9,
            tracking=self.settings.model_dump(mode="json"),
        )
        self.ids |= {self.sweep.id: "sweep", digest_of(self.sweep): "digest of the sweep"}

    def update(self):
        """Do what `pipeline sync` does: send the runs, then the sweep, even if the runs failed."""
        folder = self.workspace.sweeps / self.sweep.id
        trained_in(folder, self.trained)
        # The process keeps the setting of the first store that it opened.
        os.environ.pop("MLFLOW_HTTP_REQUEST_TIMEOUT", None)
        with suppress(PipelineError):
            list(tracking.sync(self.settings, self.workspace))
        with suppress(PipelineError):
            publish(self.sweep, folder, self.workspace)

    def holds(self, database, artifacts):
        return holds(database, artifacts, self.experiment, self.ids)


class OnServer(Case):
    """Sent through a proxy to a real server."""

    def __init__(self, template, folder, name, server, proxy):
        super().__init__(template, folder, name, proxy.uri)
        self.server = server

    def store(self):
        return self.holds(self.server.folder / "server.db", self.artifacts())

    def artifacts(self):
        import sqlite3

        with closing(sqlite3.connect(self.server.folder / "server.db")) as connection, connection:
            [[number]] = connection.execute(
                "SELECT experiment_id FROM experiments WHERE name = ?", (self.experiment,)
            ).fetchall()
        return self.server.folder / "artifacts" / str(number)


@pytest.fixture(scope="module")
def proxy(server):
    proxy = Proxy(server.uri)
    yield proxy
    proxy.stop()


@pytest.fixture(scope="module")
def undisturbed(template, memory, server, proxy):
    """What the server has after an undisturbed update, and the number of requests for it."""
    case = OnServer(template, memory, "undisturbed", server, proxy)
    with proxy.breaking(0):
        case.update()
        requests = list(proxy.requests)
        assert kept(case.workspace) == []
        proxy.requests = []
        case.update()
        # The records are gone and the sweep has a receipt.
        assert proxy.requests == []
    return case.store(), requests


def check(case, undisturbed):
    """Repeat the update, as the next command does, and compare."""
    case.update()
    assert case.store() == undisturbed
    assert kept(case.workspace) == []


# The others take longer; the slow test interrupts in every way at every request.
@pytest.mark.parametrize("how", ["no answer", pytest.param("500 instead", marks=pytest.mark.slow)])
def test_an_update_interrupted_at_some_request_and_repeated_leaves_no_trace(
    how, template, tmp_path, server, proxy, undisturbed
):
    expected, requests = undisturbed
    first = 1 + list(BREAKS).index(how) * 12
    cut_everywhere(range(first, len(requests) + 1, 48), how, template, tmp_path, server, proxy, expected)


@pytest.mark.slow
@pytest.mark.parametrize("how", BREAKS)
def test_an_update_interrupted_at_any_request_and_repeated_leaves_no_trace(
    how, template, tmp_path, server, proxy, undisturbed
):
    expected, requests = undisturbed
    cut_everywhere(range(1, len(requests) + 1), how, template, tmp_path, server, proxy, expected)


def cut_everywhere(cuts, how, template, tmp_path, server, proxy, expected):
    for cut in cuts:
        case = OnServer(template, tmp_path, f"{how.replace(' ', '-')}-{cut}", server, proxy)
        with proxy.breaking(cut, how):
            case.update()
        assert len(proxy.requests) >= cut
        check(case, expected)


@pytest.mark.parametrize("how", ["no answer"])
def test_a_process_killed_at_a_request_loses_and_duplicates_nothing(
    how, template, tmp_path, server, proxy, undisturbed
):
    expected, requests = undisturbed
    killed_everywhere(range(5, len(requests) + 1, 50), how, template, tmp_path, server, proxy, expected)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["not sent", "no answer"])
def test_a_process_killed_at_any_request_loses_and_duplicates_nothing(
    how, template, tmp_path, server, proxy, undisturbed
):
    expected, requests = undisturbed
    killed_everywhere(range(1, len(requests) + 1, 3), how, template, tmp_path, server, proxy, expected)


def killed_everywhere(cuts, how, template, tmp_path, server, proxy, expected):
    for cut in cuts:
        case = OnServer(template, tmp_path, f"killed-{how.replace(' ', '-')}-{cut}", server, proxy)
        with proxy.breaking(cut, how):
            assert forked(case.update, lambda process: setattr(proxy, "victim", process)) == -signal.SIGKILL
        check(case, expected)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 25])
def test_a_process_killed_at_a_commit_to_its_own_store_loses_and_duplicates_nothing(
    template, tmp_path, empty_store, step
):
    def case(name):
        case = Case(template, tmp_path, name)
        shutil.copy(empty_store, case.workspace.root / "mlflow.db")
        return case

    def store(case):
        return case.holds(case.workspace.root / "mlflow.db", case.workspace.root / "mlruns" / case.experiment)

    def counted():
        seen = die_at_commit(0)
        first.update()
        (first.workspace.root / "commits").write_text(str(len(seen)))

    first = case("undisturbed")
    assert forked(counted) == 0
    expected, commits = store(first), int((first.workspace.root / "commits").read_text())
    assert commits > 2 * step
    for number in range(step, commits + 1, step):
        case_of_number = case(f"commit-{number}")

        def killed(number=number, case=case_of_number):
            die_at_commit(number)
            case.update()

        assert forked(killed) == -signal.SIGKILL
        assert forked(case_of_number.update) == 0
        assert store(case_of_number) == expected
        assert kept(case_of_number.workspace) == []
