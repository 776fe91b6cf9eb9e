"""Promotions through an MLflow server with PostgreSQL and S3, as described in docs/scale.md."""

import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest
from cutting import Proxy, together
from harness import Server, client, config, lay_out
from promoting import SETTINGS, git, run_of

from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.registry.history import history
from pipeline.registry.journal import TakenError
from pipeline.registry.promotion import promote, rollback
from pipeline.registry.registered import open_journal
from pipeline.verification.verify import VerifyOptions, verify
from servers import CREDENTIALS

pytestmark = pytest.mark.slow  # test_promotion.py has the same without a server
API = "/api/2.0/mlflow"


@pytest.fixture(scope="module")
def server(memory, s3, postgresql):
    _, address = s3
    database = f"postgresql://mlflow@127.0.0.1:{postgresql}/mlflow"
    environment = CREDENTIALS | {"MLFLOW_S3_ENDPOINT_URL": address}
    server = Server(memory, database, "s3://pipeline-runs", **environment).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def template(server, memory, model):
    """A machine's clone, whose runs `good` and `same` are on the server."""
    workspace = lay_out(Workspace(Path(tempfile.mkdtemp(dir=memory)) / "clone"), model)
    (workspace.root / ".gitignore").write_text("*\n")
    for arguments in (["init", "-q"], ["add", "-f", ".gitignore"], ["commit", "-qm", "first"]):
        git(workspace.root, *arguments)
    for seed, (name, wrong) in enumerate({"good": 60, "same": 62}.items()):
        run_of(workspace, name, wrong, seed, server.uri)
    return workspace


@pytest.fixture
def machines(template, tmp_path):
    """The clones of two machines, which share nothing but the server."""
    for name in ("one", "other"):
        shutil.copytree(template.root, tmp_path / name)
    return Workspace(tmp_path / "one"), Workspace(tmp_path / "other")


@pytest.fixture
def proxy(server):
    proxy = Proxy(server.uri)
    yield proxy
    proxy.stop()


def at(uri):
    return config(tracking={"uri": uri, "timeout": 60.0}).tracking


def promote_run(uri, machine, run, name):
    return promote(run, name, "champion", SETTINGS, at(uri), machine)


def state(uri, machine, name):
    """The version that has the alias, all versions, and the journal's changes."""
    store = client(uri)
    versions = store.search_model_versions(f"name = '{name}'")
    entries = open_journal(name, at(uri), machine).entries
    return (
        str(store.get_model_version_by_alias(name, "champion").version),
        len(versions),
        [(entry.before, entry.version) for entry in entries],
    )


def test_what_one_machine_promotes_another_rolls_back_and_verifies(server, machines, capsys):
    one, other = machines
    assert promote_run(server.uri, one, "good", "shared").version == "1"
    assert promote_run(server.uri, other, "same", "shared").version == "2"
    assert "version 1 again (good)" in rollback("shared", "champion", None, at(server.uri), one, "complaints")
    assert state(server.uri, other, "shared") == ("1", 2, [(None, "1"), ("1", "2"), ("2", "1")])
    assert "complaints" in "\n".join(history("shared", at(server.uri), other))
    # The workspace's files were never in DVC's cache: of verify only what is on the server counts here.
    verify(with_dvc(other), at(server.uri), VerifyOptions(everything=True))
    said = capsys.readouterr().out
    assert "files of MLflow: as recorded" in said
    assert "Registered models: as recorded" in said
    client(server.uri).set_registered_model_alias("shared", "champion", "2")
    assert verify(with_dvc(other), at(server.uri), VerifyOptions()) == 1
    assert "champion of shared is version 2, but the journal says version 1" in capsys.readouterr().out


def with_dvc(machine):
    """Give the clone an empty DVC repository without stages."""
    (machine.root / ".dvc").mkdir(exist_ok=True)
    (machine.root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    machine.dvc_lock.write_text("schema: '2.0'\nstages: {}\n")
    machine.dvc_yaml.write_text("stages: {}\n")
    return machine


@pytest.mark.parametrize(
    ("step", "how"),
    [
        ("POST /model-versions/create", "no answer"),
        ("POST /runs/log-parameter", "not sent"),
        ("POST /registered-models/alias", "not sent"),
    ],
)
def test_a_promotion_cut_off_by_the_server_is_completed_by_the_same_command(
    server, proxy, machines, step, how
):
    name = step.rpartition("/")[2]
    proxy.victim = -server.process.pid
    with (
        proxy.breaking(step.replace(" ", f" {API}"), how),
        pytest.raises(PipelineError, match="the same command continues from there"),
    ):
        promote_run(proxy.uri, machines[0], "good", name)
    server.process.wait()
    server.start()
    assert promote_run(proxy.uri, machines[0], "good", name).version == "1"
    assert state(proxy.uri, machines[0], name) == ("1", 1, [(None, "1")])


def test_if_two_machines_promote_at_once_one_is_asked_to_repeat_its_command(proxy, machines, tmp_path):
    runs = {"good": machines[0], "same": machines[1]}
    proxy.meet = f"POST {API}/runs/log-parameter"

    def action(run):
        try:
            said = promote_run(proxy.uri, runs[run], run, "at once").message
        except TakenError as error:
            said = str(error)
        (tmp_path / run).write_text(said)

    assert together(*(partial(action, run) for run in runs)) == [0, 0]
    said = {run: (tmp_path / run).read_text() for run in runs}
    [first] = [run for run in runs if "is now champion of at once" in said[run]]
    [second] = [run for run in runs if "Run the same command again" in said[run]]
    promote_run(proxy.uri, runs[second], second, "at once")
    version, versions, [(nothing, before), (after, last)] = state(proxy.uri, runs[first], "at once")
    assert (nothing, after, version, versions) == (None, before, last, 2)
    assert state(proxy.uri, runs[second], "at once") == state(proxy.uri, runs[first], "at once")
