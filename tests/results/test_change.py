"""The report of a change: a commit's state from git and DVC's cache, compared with the workspace's."""

import hashlib
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import yaml

from pipeline.artifacts.computed import note_computed
from pipeline.artifacts.history import Epoch, History, write_history
from pipeline.artifacts.workspace import Workspace, write_csv
from pipeline.errors import PipelineError
from pipeline.results.change import differs_by_rounding
from pipeline.results.change_report import report
from pipeline.tracking.lineage import processor

SIZE = 60_000  # the largest size of a report, in bytes
LABELS = np.arange(200) % 4


def git(workspace, *arguments):
    subprocess.run(
        ["git", "-C", workspace.root, "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments],
        check=True,
        capture_output=True,
    )


def state(workspace, wrong=(), learning_rate=0.1, keys=0, classes="abcd", images=100, loss=1.0, epochs=2):
    """Write a state of the pipeline as the stages and DVC would, with some test images misclassified."""
    params = {
        "train": {
            "learning_rate": learning_rate,
            **{f"key_{i}": f"<{learning_rate}|{i}>" for i in range(keys)},
        }
    }
    for path in (workspace.run, workspace.metrics, workspace.dataset):
        path.parent.mkdir(parents=True, exist_ok=True)
    workspace.params.write_text(yaml.safe_dump(params))
    splits = ("train", "validation", "test")
    dataset = {
        "counts": {split: {"total": images} for split in splits},
        "sha256": {split: {"images": f"{images:064}", "labels": "0" * 64} for split in splits},
    }
    workspace.dataset.write_text(json.dumps(dataset))
    run = {"id": "1" * 32, "name": "letters-mlp", "result": {"parameters": 2410, "epochs": 2}}
    workspace.run.write_text(json.dumps(run))
    accuracy = 1 - len(wrong) / len(LABELS)
    metrics = {
        "test_accuracy": accuracy,
        "test_accuracy_low": 0.1,
        "test_accuracy_high": 0.9,
        "test_nll": 0.25,
    }
    workspace.metrics.write_text(json.dumps(metrics))
    made = [Epoch(n, loss / n, 0.5, loss / n, 0.5, 0.1) for n in range(1, epochs + 1)]
    write_history(workspace.history, History(made, epochs))
    rows = (
        (classes[label], classes[(label + (index in wrong)) % len(classes)])
        for index, label in enumerate(LABELS % len(classes))
    )
    write_csv(workspace.predictions, ("label", "predicted"), rows)
    outs = []
    for path in (
        workspace.dataset,
        workspace.run,
        workspace.history,
        workspace.metrics,
        workspace.predictions,
    ):
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        cached = workspace.root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(path.read_bytes())
        outs.append({"path": str(path.relative_to(workspace.root)), "md5": digest})
    stage = {"params": {"params.yaml": {"train": params["train"]}}, "deps": [], "outs": outs}
    workspace.dvc_lock.write_text(yaml.safe_dump({"stages": {"train": stage, "fetch": {"outs": []}}}))


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "repository")
    workspace.root.mkdir()
    (workspace.root / ".dvc").mkdir()
    (workspace.root / ".gitignore").write_text("/data\n/models\n/reports\n/.dvc\n")
    git(workspace, "init", "--quiet", "--initial-branch=main")
    state(workspace, wrong=range(40))
    git(workspace, "add", "--all")
    git(workspace, "commit", "--quiet", "--message=Before")
    return workspace


def test_an_unchanged_workspace_is_reported_as_unchanged(workspace):
    text = report("HEAD", workspace)
    assert text.startswith("# What changed since HEAD (")
    for says in (
        "| test accuracy | 80.00 % (10.00 to 90.00) | 80.00 % (10.00 to 90.00) |",
        "Of 200 test images, both get the same ones right.",
        "No value changed.",
        "The images are the same.",
        "| train | unchanged | from the cache |",
        "| parameters | 2,410 | 2,410 |",
    ):
        assert says in text


def test_a_better_model_is_reported_with_what_changed(workspace):
    state(workspace, wrong=range(8), learning_rate=0.2, loss=0.5)
    text = report("main", workspace)
    for says in (
        "| `train.learning_rate` | 0.1 | 0.2 |",
        "| test accuracy | 80.00 % (10.00 to 90.00) | 96.00 % (10.00 to 90.00) |",
        "0 are no longer right and 32 are right now (p = 4.7e-10, McNemar's exact test): "
        "the change makes the model **better**",
        "| train | train, models/history.csv, reports/metrics.json, reports/predictions.csv | from the ",
        "| a taken for b | 10 | 2 |",
        "line [1, 0.5]\n    line [0.5, 0.25]",
    ):
        assert says in text


def test_curves_of_unequal_length_share_an_axis(workspace):
    state(workspace, epochs=4)
    text = report("main", workspace)
    assert '"epoch" 1 --> 4\n    line [1, 0.5, 0.5, 0.5]\n    line [1, 0.5, 0.3333, 0.25]\n' in text
    assert "its line is flat" in text
    state(workspace, epochs=131)
    text = report("main", workspace)
    [axis] = re.findall(r'"epoch" 1 --> (\d+)', text)
    [_, line] = re.findall(r"line \[(.*)\]", text)
    assert (int(axis), line.count(", "), line.rpartition(", ")[2]) == (130, 43, f"{1 / 130:.4g}")


def test_a_stage_that_ran_here_is_distinguished_from_one_restored_from_the_cache(workspace):
    state(workspace, learning_rate=0.2)
    note_computed(workspace, "train")
    [line] = [line for line in report("main", workspace).splitlines() if line.startswith("| train |")]
    assert re.search(r"\| computed here, 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 \|$", line)
    workspace.run.write_bytes(workspace.run.read_bytes() + b"\n")  # of another training
    [line] = [line for line in report("main", workspace).splitlines() if line.startswith("| train |")]
    assert line.endswith("| from the cache |")


def test_a_missing_key_is_distinguished_from_one_without_a_value(workspace):
    values = yaml.safe_load(workspace.params.read_text())
    values["train"]["new"] = None
    workspace.params.write_text(yaml.safe_dump(values))
    assert "| `train.new` | – | none |" in report("main", workspace)


def test_a_worse_model_is_distinguished_from_one_that_differs_by_chance(workspace):
    state(workspace, wrong=range(60))
    assert "**worse**" in report("HEAD", workspace)
    state(workspace, wrong=range(2, 43))
    assert "neither is shown to be better" in report("HEAD", workspace)


def test_different_test_images_are_reported_without_a_significance_test(workspace):
    state(workspace, images=101, classes="axyz")
    text = report("HEAD", workspace)
    assert "| test | 100 (images 00000000, labels 00000000) | 101 (" in text
    assert "The test images differ" in text
    assert "taken for" not in text  # only one side has these classes


def test_a_report_of_many_differences_stays_small(workspace):
    names = [f"class <{number}>\n|{'x' * 200}" for number in range(200)]
    state(workspace, wrong=range(150), learning_rate=0.3, keys=500, classes=names)
    text = report("HEAD", workspace)
    assert len(text.encode()) < SIZE
    assert "471 more." in text
    assert "&lt;0.3\\|0>" in text


def test_files_missing_from_the_cache_are_named_with_the_remedy(workspace):
    for cached in (workspace.root / ".dvc" / "cache").rglob("*"):
        if cached.is_file():
            cached.unlink()
    workspace.history.unlink()
    text = report("HEAD", workspace)
    assert "| test accuracy | – | 80.00 %" in text
    assert "reports/predictions.csv (`dvc pull` may bring it)." in text
    assert "Missing for now: models/history.csv (`dvc repro` makes it)." in text


def test_where_nothing_was_built_nothing_is_said_of_results_and_images(workspace):
    for folder in (".dvc/cache", "data", "models", "reports"):
        shutil.rmtree(workspace.root / folder)
    text = report("HEAD", workspace)
    assert "accuracy" not in text
    assert "images are the same" not in text
    assert "| train | unchanged | missing |" in text


MERGE = "a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> other\n"


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock"])
@pytest.mark.parametrize(
    ("text", "said"),
    [(MERGE, "conflict markers.*--ours params.yaml dvc.lock"), ("a: [\n", "git checkout"), ("1", "mapping")],
    ids=["merge", "cut", "number"],
)
def test_a_generated_file_that_cannot_be_read_is_named_with_the_remedy(workspace, name, text, said):
    (workspace.root / name).write_text(text)
    with pytest.raises(PipelineError, match=f"(?s){name} .*{said}"):
        report("HEAD", workspace)
    git(workspace, "commit", "--all", "--message", "with conflicts")
    with pytest.raises(PipelineError, match=f"{name} in the commit HEAD .*--base"):
        report("HEAD", workspace)


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock"])
def test_a_generated_file_that_is_not_text_is_named_with_the_remedy(workspace, name):
    (workspace.root / name).write_bytes(b"a: \xff\n")
    with pytest.raises(PipelineError, match=f"{name} can't be read .*git checkout"):
        report("HEAD", workspace)


@pytest.mark.parametrize(
    ("name", "content"),
    [("metrics", b'{"a": '), ("run", b"[]"), ("dataset", b"\xff"), ("predictions", b"\xff")],
)
def test_a_damaged_artifact_is_named_with_the_remedy(workspace, name, content):
    getattr(workspace, name).write_bytes(content)
    with pytest.raises(PipelineError, match=r"An artifact of now is damaged .*verify --repair"):
        report("HEAD", workspace)


def test_a_commit_that_cannot_be_compared_with_is_refused(workspace):
    with pytest.raises(PipelineError, match="'nothing' is not a commit"):
        report("nothing", workspace)
    git(workspace, "rm", "--quiet", "--cached", "dvc.lock")
    git(workspace, "commit", "--quiet", "--message=Without")
    with pytest.raises(PipelineError, match=r"has no dvc\.lock"):
        report("HEAD", workspace)


def test_where_git_reads_no_repository_no_commit_is_advised_to_be_fetched(workspace):
    shutil.rmtree(workspace.root / ".git")
    with pytest.raises(PipelineError, match=f"no commit to compare with: {workspace.root} is not"):
        report("HEAD", workspace)


def test_a_commit_that_a_shallow_clone_lacks_is_refused_with_the_command_that_fetches_it(workspace, tmp_path):
    git(workspace, "commit", "--quiet", "--allow-empty", "--message=After")
    with pytest.raises(PipelineError, match="`git fetch --all` may bring it"):
        report("HEAD~9", workspace)
    clone = tmp_path / "clone"
    git(workspace, "clone", "--quiet", "--depth=1", f"file://{workspace.root}", str(clone))
    with pytest.raises(PipelineError, match="`git fetch --unshallow` may bring it"):
        report("HEAD~1", Workspace(clone))


def locked(workspace, **changes):
    """Write a dvc.lock whose stage `train` has these changes."""
    train = {
        "cmd": "train",
        "deps": [{"path": "src/loop.py", "md5": "1"}],
        "params": {"params.yaml": {"seed": 0}},
        "outs": [{"path": "models/history.csv", "md5": "1"}, {"path": "models/model.keras", "md5": "1"}],
    }
    stages = {"fetch": {"cmd": "fetch"}, "train": train | changes, "evaluate": {"cmd": "evaluate"}}
    if "outs" in changes:  # which evaluate reads
        stages["evaluate"]["deps"] = changes["outs"]
    workspace.dvc_lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


OTHER_OUTS = [{"path": "models/history.csv", "md5": "1"}, {"path": "models/model.keras", "md5": "2"}]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"outs": OTHER_OUTS, "deps": [{"path": "src/loop.py", "md5": "2"}]},
        {"outs": OTHER_OUTS, "params": {"params.yaml": {"seed": 1}}},
        {"outs": OTHER_OUTS, "cmd": "train harder"},
    ],
    ids=["nothing", "code", "value", "command"],
)
def test_different_bytes_from_different_inputs_are_not_reported(workspace, changes):
    locked(workspace)
    git(workspace, "commit", "--quiet", "--all", "--message=Locked")
    locked(workspace, **changes)
    assert differs_by_rounding(workspace) == ""


def test_different_bytes_from_the_same_inputs_are_reported_with_the_processor(workspace):
    locked(workspace)
    git(workspace, "commit", "--quiet", "--all", "--message=Locked")
    locked(workspace, outs=OTHER_OUTS)
    sentence = differs_by_rounding(workspace)
    assert "The stage train made other bytes than the last commit from the same code" in sentence
    assert "values: models/model.keras." in sentence
    assert processor() in sentence
