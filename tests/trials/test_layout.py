"""A trial consists of our stages as DVC reads them, the sources, and a DVC setup that shares the cache."""

import shutil

import pytest
import yaml
from dvc.repo import Repo

from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.errors import PipelineError
from pipeline.trials.layout import lay_out, snapshot, sources
from pipeline.trials.trial import trial_workspace

OURS = ["fetch", "preprocess", "train", "evaluate"]


@pytest.fixture
def config(repository):
    return compose(repository.root / "conf", ["data=digits"])


def edit(repository, change):
    pipeline = yaml.safe_load(repository.dvc_yaml.read_text())
    change(pipeline)
    repository.dvc_yaml.write_text(yaml.safe_dump(pipeline, sort_keys=False))


def stages(repository, config):
    """Return the stages of a trial as DVC reads them, by name."""
    with trial_workspace(config, repository) as trial:
        code = snapshot(repository, repository.scratch / "code", config)
        lay_out(trial, code, config, repository)
        with Repo(str(trial.root)) as repo:
            assert repo.cache.local.path == str(repository.root / ".dvc" / "cache" / "files" / "md5")
            return {stage.name: stage for stage in repo.index.stages}


def test_a_path_with_special_characters_of_hydra_is_one_folder(repository, config):
    assert "# 1, copied" in str(repository.root)
    assert list(stages(repository, config)) == OURS


def test_files_of_dvc_and_stages_of_the_user_do_not_change_a_trial(repository, config):
    expected = {
        name: (stage.cmd, sorted(map(str, stage.deps))) for name, stage in stages(repository, config).items()
    }

    def spelled_otherwise(pipeline):
        ours = pipeline["stages"]
        ours["fetch"]["frozen"] = True
        ours["train"]["params"] = [{"params.yaml": ours["train"]["params"]}]
        ours["train"]["outs"] = [{path: {"persist": False}} for path in ours["train"]["outs"]]
        pipeline["vars"] = [{"module": "pipeline.stages"}]
        command = ours["preprocess"]["cmd"]
        ours["preprocess"]["cmd"] = command.replace("pipeline.stages", "${module}")
        ours["export"] = {
            "cmd": "python scripts/export.py",
            "deps": ["scripts/export.py"],
            "params": [{"own.yaml": ["a"]}],
        }
        ours["each"] = {"foreach": ["a", "b"], "do": {"cmd": "echo ${item}"}}

    edit(repository, spelled_otherwise)
    found = stages(repository, config)
    assert {name: (stage.cmd, sorted(map(str, stage.deps))) for name, stage in found.items()} == expected
    assert not any(stage.frozen for stage in found.values())


def test_files_of_editors_and_python_in_the_sources_are_not_copied(repository, tmp_path):
    (repository.root / "src").unlink()
    package = repository.root / "src" / "pipeline"
    for name in (
        "mlp.py",
        "mlp.py~",
        ".mlp.py.swp",
        "#mlp.py#",
        "mlp.py.orig",
        "page.html",
        "__pycache__/mlp.pyc",
    ):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    (package / ".#mlp.py").symlink_to("somebody@somewhere.1234")
    assert [path.name for path in sources(repository, repository.root / "src")] == ["mlp.py", "page.html"]
    shutil.rmtree(package / "__pycache__")
    with Repo(str(repository.root)) as repo:
        ignored = [path.name for path in package.iterdir() if repo.dvcignore.is_ignored_file(str(path))]
    assert sorted(ignored) == ["#mlp.py#", ".#mlp.py", ".mlp.py.swp", "mlp.py.orig", "mlp.py~"]


def test_a_compiled_module_that_another_process_is_writing_is_not_copied(repository, config):
    code = snapshot(repository, repository.scratch / "code", config)
    cached = code.root / "src" / "pipeline" / "__pycache__"
    cached.mkdir(exist_ok=True)
    (cached / "errors.cpython-311.pyc").write_bytes(b"whole")
    # Gone when it is copied, as a link to nothing is.
    (cached / "errors.cpython-311.pyc.1400").symlink_to("nothing")
    with trial_workspace(config, repository) as trial:
        lay_out(trial, code, config, repository)
        copied = trial.root / cached.relative_to(code.root)
        assert [path.name for path in copied.iterdir()] == ["errors.cpython-311.pyc"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  train:", "<<<<<<< HEAD\n  train:", r"conflict markers of git \(line \d+\)"),
        ("stages:", "stages: [", r"not valid YAML: .* \(line \d+\)"),
        ("stages:", "steps:", "as DVC expects: .*'steps'"),
        ("stages:", "vars: []\nplots:", "as DVC expects: "),
        ("  evaluate:", "  evaluate: 1\n  other:", "as DVC expects: .*'evaluate'"),
        ("    params:", "    parameters:", "as DVC expects: .*'parameters'"),
    ],
)
def test_a_damaged_dvc_yaml_is_refused_in_a_sentence(repository, config, old, new, said):
    text = repository.dvc_yaml.read_text()
    assert old in text
    repository.dvc_yaml.write_text(text.replace(old, new, 1))
    with pytest.raises(PipelineError, match=said) as refused:
        snapshot(repository, repository.scratch / "code", config)
    assert str(refused.value).startswith(str(repository.dvc_yaml))


def test_a_dvcignore_in_another_encoding_is_refused_in_a_sentence(tmp_path):
    (tmp_path / ".dvcignore").write_bytes(b"caf\xe9\n")
    with pytest.raises(PipelineError, match=r"\.dvcignore is not UTF-8 text"):
        list(sources(Workspace(tmp_path), tmp_path))
