"""One command rebuilds a past run, and names each single manipulation."""

import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from clones import clone_of, executed

from pipeline.errors import PipelineError
from pipeline.reproduction.links import compare
from pipeline.reproduction.rebuild import rebuilt
from pipeline.reproduction.recorded import recorded_here
from servers import CREDENTIALS

LOOP = "src/pipeline/training/loop.py"
PREPROCESS = "src/pipeline/stages/preprocess.py"
SOURCE = "src/pipeline/data/sources/sklearn.py"


def reproduced(run):
    """Return the occasions of an MLflow run at which it was rebuilt."""
    return [
        text
        for tag, text in run.data.tags.items()
        if tag.startswith("pipeline.occasion.") and "reproduced" in text
    ]


def test_a_run_with_uncommitted_changes_is_rebuilt_bit_for_bit(smoke):
    smoke.edit("conf/train/default.yaml", "learning_rate: 0.001", "learning_rate: 0.002")
    (smoke.root / LOOP).write_text((smoke.root / LOOP).read_text() + "# Changed.\n\n\n")
    (smoke.root / "src" / "pipeline" / "new.py").write_text("")
    smoke.repro()
    before = smoke.changes(), smoke.digests(), smoke.files()
    output = smoke.run("pipeline", "reproduce", TF_ENABLE_ONEDNN_OPTS="0")
    assert "with its uncommitted changes" in output
    assert "Epoch 5 of 5: " in output
    assert "MLflow run " not in output  # The run of the temporary clone.
    assert "reproduced, equal bit for bit" in output
    assert (smoke.changes(), smoke.digests()) == before[:2]
    added = smoke.files() - before[2]
    assert all(re.search(r"(^.pipeline|^mlruns/.*)/occasions/", path) for path in added), added
    *_, run = smoke.mlflow_runs()
    [occasion] = reproduced(run)
    assert occasion.endswith("equal bit for bit")


@pytest.mark.slow
def test_a_trial_is_rebuilt_by_its_name_bit_for_bit(smoke):
    summary = smoke.pipeline("train.epochs=1")
    name = smoke.mlflow_runs()[-1].info.run_name
    assert name[-6:] in summary
    assert "reproduced, equal bit for bit" in smoke.run("pipeline", "reproduce", name)
    assert len(reproduced(smoke.mlflow_runs()[-1])) == 1


def test_a_run_that_cannot_be_rebuilt_is_refused_before_any_work(smoke):
    refused = smoke.run("pipeline", "reproduce", "nothing-like-this", code=1)
    assert refused.startswith("error: MLflow has no run 'nothing-like-this'; the latest are: ")
    assert "no registered model" in smoke.run("pipeline", "reproduce", "digits@champion", code=1)
    shutil.rmtree(smoke.root / ".git")
    assert "git" in smoke.run("pipeline", "reproduce", code=1)


def patch(clone, path, old, new):
    """Return a patch that changes a line of the committed code."""
    clone.edit(path, old, new)
    text = clone.git("diff", "--", path)
    clone.git("checkout", "--quiet", "--", path)
    return text


def changed_code(clone, old):
    lines = patch(clone, LOOP, '"""The fit loop', '"""The very fit loop')
    return replace(old, code=replace(old.code, patch=lines))


def changed_value(clone, old):
    train = {**old.config["train"], "learning_rate": 0.0011}
    return replace(old, config={**old.config, "train": train})


def changed_pixels(clone, old):
    line = "seen[split].watch(raw.images(split, chosen[split]))"
    other = (
        'seen[split].watch(piece ^ np.uint8(split == "test") for piece in raw.images(split, chosen[split]))'
    )
    lines = patch(clone, PREPROCESS, line, other)
    return replace(old, code=replace(old.code, patch=lines))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "first"),
    [(changed_code, "code"), (changed_value, "configuration"), (changed_pixels, "data")],
)
def test_a_single_change_is_the_first_link_that_differs(smoke, sabotage, first):
    old = recorded_here(smoke.workspace)
    with rebuilt(sabotage(smoke, old), smoke.workspace, own_packages=False) as clone:
        links = compare(old, recorded_here(clone), 0.001)
    assert next(link.name for link in links if link.state != "same") == first


@pytest.mark.slow
def test_a_source_that_changed_by_a_pixel_is_refused_by_the_digests_of_its_data(smoke, capfd):
    old = recorded_here(smoke.workspace)
    line = "    labels = digits.target"
    lines = patch(smoke, SOURCE, line, f"    images[0, 0, 0] ^= 1\n{line}")
    old = replace(old, code=replace(old.code, patch=lines))
    shutil.rmtree(smoke.root / ".dvc" / "cache" / "runs")
    with (
        pytest.raises(PipelineError, match="could not be rebuilt"),
        rebuilt(old, smoke.workspace, own_packages=False),
    ):
        pass
    assert "train_images" in capfd.readouterr().err


@pytest.mark.slow
def test_a_flipped_bit_of_the_weights_is_named(smoke):
    content = bytearray(smoke.workspace.model.read_bytes())
    content[len(content) // 2] ^= 1
    smoke.workspace.model.unlink()
    smoke.workspace.model.write_bytes(content)
    output = smoke.run("pipeline", "reproduce", code=1)
    assert "the run's model file was changed" in output
    assert "not reproduced; the first link that differs is weights" in output


@pytest.mark.slow
def test_the_packages_of_the_runs_own_lock_file_are_used_and_a_difference_is_named(smoke):
    lock = (smoke.root / "requirements.lock").read_bytes()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256(version.encode() + lock).hexdigest()[:16]
    folder = smoke.root / ".pipeline" / "environments" / key
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = folder / "lib" / f"python{version}" / "site-packages"
    stub = site / "hydra_core-9.9.dist-info"
    stub.mkdir()
    (stub / "METADATA").write_text("Metadata-Version: 2.1\nName: hydra-core\nVersion: 9.9\n")
    (site / "packages.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    (folder / "complete").touch()
    output = smoke.run("pipeline", "reproduce", "--environment")
    assert "hydra-core 1.3" in output
    assert "rebuilt 9.9" in output
    assert "reproduced, equal bit for bit" in output


@pytest.mark.slow
def test_a_colleague_pulls_a_run_trains_nothing_and_rebuilds_it(smoke, s3, tmp_path):
    _, address = s3
    smoke.environment |= CREDENTIALS
    smoke.run("dvc", "remote", "add", "--default", "shared", "s3://pipeline-cache/shared")
    smoke.run("dvc", "remote", "modify", "shared", "endpointurl", address)
    smoke.git("commit", "--quiet", "--all", "--message=A remote")
    smoke.run("pipeline", "push")
    other = clone_of(smoke, tmp_path / "other")
    other.run("pipeline", "pull")
    assert executed(other.repro()) == []
    other.run("pipeline", "sync")
    assert "reproduced, equal bit for bit" in other.run("pipeline", "reproduce")
    [run] = other.mlflow_runs()
    occasions = [text for tag, text in run.data.tags.items() if tag.startswith("pipeline.occasion.")]
    assert len(occasions) == 2
    assert sum("reproduced" in text for text in occasions) == 1
