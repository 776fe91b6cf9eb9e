"""What is recorded is compared with what is there: damage is found, and repaired where possible."""

import json
import shutil
from types import SimpleNamespace

import onnx
import pytest
import yaml
from harness import config, lay_out, train
from promoting import SETTINGS, answer
from sabotage import SABOTAGE, TRACKING, flip, in_mlruns, md5, place

from pipeline.artifacts.onnx_file import RunName, load, write
from pipeline.artifacts.workspace import Workspace, remove, sha256
from pipeline.registry.promotion import promote
from pipeline.tracking import session as tracking
from pipeline.tracking import stored
from pipeline.tracking.identity import identify
from pipeline.verification.cache import Cache
from pipeline.verification.verify import VerifyOptions, verify

OUTPUTS = {
    "train": ("models/model.keras", "models/model.onnx", "models/history.csv", "models/run.json"),
    "evaluate": (
        "reports/probabilities.npy",
        "reports/predictions.csv",
        "reports/metrics.json",
        "reports/figures",
    ),
}


def store(root, path):
    """Put a file or a folder into the cache, as DVC does, and return its digest."""
    objects = root / ".dvc" / "cache" / "files" / "md5"

    def add(content, suffix=""):
        digest = md5(content) + suffix
        place = objects / digest[:2] / digest[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return digest

    if path.is_file():
        return add(path.read_bytes())
    files = [{"md5": add(found.read_bytes()), "relpath": found.name} for found in sorted(path.iterdir())]
    return add(json.dumps(files).encode(), ".dir")


@pytest.fixture(scope="module")
def template(memory, model, empty_store):
    """A repository with a run, its reports, a promotion, dvc.lock and DVC's cache."""
    workspace = lay_out(Workspace(memory / "verified"), model)
    shutil.copy(empty_store, workspace.root / "mlflow.db")
    name_in_onnx(workspace)
    train(config(), workspace)
    with tracking.evaluation(config(), workspace):
        answer(workspace, 60)
        weights = json.loads(workspace.run.read_text())["result"]["weights_sha256"]
        metrics = json.loads(workspace.metrics.read_text()) | {"weights_sha256": weights}
        workspace.metrics.write_text(json.dumps(metrics))
    (workspace.root / ".dvc").mkdir()
    (workspace.root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    stages, locked = {}, {}
    for stage, paths in OUTPUTS.items():
        stages[stage] = {"cmd": "true", "outs": list(paths)}
        outs = [
            {"path": path, "hash": "md5", "md5": store(workspace.root, workspace.root / path)}
            for path in paths
        ]
        locked[stage] = {"cmd": "true", "outs": outs}
    workspace.dvc_yaml.write_text(yaml.safe_dump({"stages": stages}))
    workspace.dvc_lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": locked}))
    settings = SETTINGS.model_copy(update={"code": "any"})
    promote(None, None, "champion", settings, TRACKING, workspace)
    return workspace


def name_in_onnx(workspace):
    """Write the name of the run that `train` will create into the ONNX file."""
    run = identify(config(), workspace, {})
    description = load(workspace.onnx).description.model_copy(
        update={
            "run": RunName(id=run["id"], name=run["name"]),
            "weights_sha256": sha256(workspace.model),
        }
    )
    write(workspace.onnx, onnx.load(workspace.onnx), description)


@pytest.fixture
def repository(template, tmp_path):
    shutil.copytree(template.root, tmp_path / "repository")
    return Workspace(tmp_path / "repository")


def verified(repository, capsys, **wanted):
    """Return the exit code and the output."""
    capsys.readouterr()
    code = verify(repository, TRACKING, VerifyOptions(**wanted))
    return code, capsys.readouterr().out


def test_an_unchanged_repository_passes(repository, capsys):
    code, said = verified(repository, capsys, everything=True)
    assert code == 0, said
    assert "Everything is as recorded." in said


def test_in_a_new_clone_it_says_how_to_get_the_outputs_and_does_not_list_them(repository, capsys):
    # The cache may have an object that a trial wrote, too.
    shutil.rmtree(repository.root / ".dvc" / "cache" / "files")
    store(repository.root, repository.history)
    for path in (path for paths in OUTPUTS.values() for path in paths):
        remove(repository.root / path)
    code, said = verified(repository, capsys)
    assert code == 1
    assert said.count("Nothing that dvc.lock names is here: `dvc repro` makes it") == 2
    assert "is missing" not in said


def test_a_file_that_a_server_lost_is_named_with_its_address(tmp_path, monkeypatch):
    """The message does not name the folder of the download, which no longer exists by then."""
    uri = "mlflow-artifacts:/1/2/artifacts"
    info = SimpleNamespace(run_name="one", run_id="2", experiment_id="1", artifact_uri=uri)
    tags = stored.files_tag("evaluation", {"metrics.json": 64 * "0"})
    monkeypatch.setattr(stored, "logged_model_of", lambda *_: None)
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", lambda artifact_uri, dst_path: dst_path)
    run = SimpleNamespace(info=info, data=SimpleNamespace(tags=tags))
    found = stored.fetch(None, run, tmp_path)
    assert found.problems == [f"metrics.json of the run one is missing: {uri}/metrics.json"]


def test_the_suggested_command_repairs_what_was_found(repository, capsys):
    flip(in_mlruns(repository, "probabilities.npy"))
    assert "`pipeline verify --repair` fixes" in verified(repository, capsys)[1]
    assert "`pipeline verify --all --repair` fixes" in verified(repository, capsys, everything=True)[1]


@pytest.mark.parametrize("name", SABOTAGE)
def test_damage_is_found_and_named(repository, capsys, name):
    sabotage, expected = SABOTAGE[name]
    sabotage(repository)
    code, said = verified(repository, capsys)
    assert code == 1, said
    assert expected in said


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in SABOTAGE
        if "MLmodel" not in name
        and name
        not in (
            "a file more in a folder",
            "a version of another model",
            "an alias set by hand",
            "the run of the champion was deleted",
        )
    ],
)
def test_a_file_that_has_another_copy_is_repaired(repository, capsys, name):
    SABOTAGE[name][0](repository)
    code, said = verified(repository, capsys, repair=True)
    assert code == 0, said
    assert "restored" in said


def lost_everywhere(repository, command):
    """Remove the history of the training everywhere, and make `command` the stage that writes it."""
    shutil.copytree(repository.root / "models", repository.root / "kept")
    for path in (repository.dvc_yaml, repository.dvc_lock):
        content = yaml.safe_load(path.read_text())
        content["stages"]["train"]["cmd"] = command
        path.write_text(yaml.safe_dump(content))
    place(repository, "models/history.csv").unlink()
    for path in repository.root.rglob("history.csv"):
        if path.parent.name != "kept":
            path.unlink()


def test_a_file_without_a_copy_is_rebuilt_by_its_stage(repository, capfd):
    digest = md5(repository.history.read_bytes())
    lost_everywhere(repository, "mkdir -p models && cp kept/* models")
    code, said = verified(repository, capfd, repair=True)
    assert code == 0, said
    assert "models/history.csv: made again by train, the same bytes." in said
    assert md5(repository.history.read_bytes()) == digest
    assert place(repository, "models/history.csv").exists()


def test_a_file_that_cannot_be_rebuilt_is_reported(repository, capsys):
    in_mlruns(repository, "MLmodel").unlink()
    for path in (place(repository, "models/run.json"), repository.run, *repository.root.rglob("run.json")):
        path.unlink(missing_ok=True)
    code, said = verified(repository, capsys, repair=True)
    assert code == 1
    assert not list((repository.root / "mlruns").rglob("run.json"))
    assert "MLmodel in MLflow: no copy was found, and no stage can write it again." in said
    assert "run.json: no copy was found, and the run can't be trained again: " in said


def test_a_stage_that_would_write_something_else_is_not_run(repository, capfd):
    lost_everywhere(repository, "mkdir -p models && cp kept/* models")
    content = yaml.safe_load(repository.dvc_yaml.read_text())
    content["stages"]["train"]["cmd"] = "touch ran"
    repository.dvc_yaml.write_text(yaml.safe_dump(content))
    code, said = verified(repository, capfd, repair=True)
    assert code == 1
    assert "no copy was found, and train would make a different one: its command in dvc.yaml changed" in said
    assert not (repository.root / "ran").exists()
    assert repository.model.exists()


def test_a_file_that_the_remote_has_is_fetched(repository, capsys, tmp_path):
    remote = tmp_path / "remote"
    shutil.copytree(Cache(repository).objects, remote / "files" / "md5")
    config = repository.root / ".dvc" / "config"
    config.write_text(f"{config.read_text()}    remote = shared\n['remote \"shared\"']\n    url = {remote}\n")
    place(repository, "models/history.csv").unlink()
    for path in repository.root.rglob("history.csv"):
        path.unlink()
    code, said = verified(repository, capsys, repair=True)
    assert code == 0, said
    assert "fetched from the DVC remote" in said
    assert "models/history.csv: restored from the cache" in said


def test_an_object_that_nothing_refers_to_is_checked_with_the_option_all(repository, capsys):
    stray = Cache(repository).place(md5(b"stray"))
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"strax")
    assert verified(repository, capsys)[0] == 0
    code, said = verified(repository, capsys, everything=True)
    assert code == 1
    assert "an object that nothing here refers to" in said


def test_a_damaged_list_of_a_folder_that_dvc_lock_does_not_name_is_removed(repository, capsys):
    stray = Cache(repository).place(md5(b"[]") + ".dir")
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"[")
    code, said = verified(repository, capsys, everything=True, repair=True)
    assert code == 0, said
    assert f"{stray}: removed: that result is made again when it is needed" in said
    assert not stray.exists()


def test_leftovers_are_named_and_removed_on_request(repository, capsys):
    found = [
        repository.root / "models" / ".model.keras.9999999.tmp",
        repository.scratch / "sweeps" / "abc" / ".sent.9999999.tmp",
        repository.scratch / "trials" / "0123456789abcdef",
    ]
    found[-1].mkdir(parents=True)
    # A lock file stays when the lock is released: each sweep has some.
    lock = repository.scratch / "sweeps" / "abc" / "sent.lock"
    of_a_package = repository.scratch / "environments" / "0123" / "lib" / ".x.9999999.tmp"
    for path in (*found[:-1], lock, of_a_package):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    code, said = verified(repository, capsys)
    assert code == 0
    assert all(str(path) in said for path in found)
    assert "sent.lock" not in said
    assert all(path.exists() for path in found)
    verified(repository, capsys, clean=True)
    assert not any(path.exists() for path in found)
    assert lock.exists()
    assert of_a_package.exists()
    assert "Left over" not in verified(repository, capsys)[1]
