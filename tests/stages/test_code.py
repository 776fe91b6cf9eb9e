"""A stage whose code is edited while it runs."""

import shutil

import pytest

from pipeline.artifacts.workspace import Workspace, here
from pipeline.config.compose import compose
from pipeline.errors import PipelineError
from pipeline.stages import code as stage_code
from pipeline.stages.code import StageCode

DECLARED = {
    "deps": ["data/processed/train", "src/pipeline/training/loop.py", "src/pipeline/plots/evaluation"],
    "params": ["model", "train", "modules.model", "modules.backend"],
}


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the code that the stage takes for its own."""
    root = here().root
    shutil.copytree(root / "src", tmp_path / "src")
    package = tmp_path / "src" / "pipeline"
    monkeypatch.setattr(stage_code, "here", lambda: Workspace(tmp_path))
    digests = stage_code.modules_in_use
    monkeypatch.setattr(stage_code, "modules_in_use", lambda values: digests(values, package))
    return package


@pytest.fixture
def config():
    return compose(here().root / "conf", ["experiment=smoke"])


@pytest.mark.parametrize(
    ("edited", "named"),
    [
        ("training/loop.py", "src/pipeline/training/loop.py"),
        ("plots/evaluation/top_losses.py", "src/pipeline/plots/evaluation/top_losses.py"),
        ("models/mlp.py", "modules.model"),
        ("training/backends/tensorflow.py", "modules.backend"),
    ],
)
def test_an_edit_while_a_stage_runs_is_refused_unless_it_is_undone(
    copied, config, monkeypatch, edited, named
):
    monkeypatch.setattr(stage_code, "_SECONDS_BETWEEN_CHECKS", 0.0)
    code = StageCode(DECLARED, config)
    code.refuse_edits()
    path = copied / edited
    before = path.read_text()
    path.write_text(before + "# edited\n")
    for check in (code.refuse_edits, code.refuse_edits_soon):
        with pytest.raises(PipelineError, match=f"^{named}: edited while the stage runs"):
            check()
    path.write_text(before)
    code.refuse_edits()
    path.unlink()
    with pytest.raises(PipelineError, match=named):
        code.refuse_edits()


def test_other_code_is_no_concern_of_a_stage(copied, config):
    code = StageCode(DECLARED, config)
    for other in ("models/cnn.py", "training/optimizer.py", "data/sources/sklearn.py"):
        (copied / other).write_text("# edited\n")
    code.refuse_edits()


def test_a_stage_does_not_start_if_an_option_was_edited_since_the_digests_were_made(copied, config):
    (copied / "models" / "mlp.py").write_text("# edited\n")
    with pytest.raises(PipelineError, match=r"code of the model was edited since params\.yaml was composed"):
        StageCode(DECLARED, config)


def test_data_may_be_fetched_by_sources_of_another_commit_that_stay_as_they_are(copied, config):
    source = copied / "data" / "sources" / "sklearn.py"
    source.write_text(source.read_text() + "# of another commit\n")
    code = StageCode({"deps": [], "params": ["data", "modules.sources"]}, config)
    code.refuse_edits()
    source.write_text(source.read_text() + "# edited\n")
    with pytest.raises(PipelineError, match=r"^modules\.sources: edited"):
        code.refuse_edits()
