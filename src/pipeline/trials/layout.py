"""Lay out a trial: its stages, code and values in a workspace that shares the repository's DVC cache."""

import fnmatch
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.artifacts.workspace import Workspace, remove, write_text
from pipeline.config.params import dump
from pipeline.config.plain_yaml import load_yaml
from pipeline.config.schema import Config
from pipeline.config.unsafe_yaml import refuse_conflict, yaml_fault
from pipeline.errors import PipelineError
from pipeline.stages.__main__ import STAGES
from pipeline.tracking.lineage import code_of, write_code


def snapshot(repository: Workspace, root: Path, config: Config, *more: str) -> Workspace:
    """Copy the code as it is now, the stages except compose, and the folders `more`, as a template."""
    remove(root)
    copied = Workspace(root)
    for folder in ("src", *more):
        for path in sources(repository, repository.root / folder):
            target = root / path.relative_to(repository.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    stages = {name: stage for name, stage in _stages(repository).items() if name != "compose"}
    write_text(copied.dvc_yaml, yaml.safe_dump({"stages": stages}, sort_keys=False))
    write_code(origin_of(copied), code_of(repository))
    _fill(copied, config, repository)
    return copied


def lay_out(trial: Workspace, code: Workspace, config: Config, repository: Workspace) -> None:
    """Make `trial` a workspace with the code of a snapshot and the configuration `config`."""
    remove(trial.root)
    # Another trial may be writing a compiled module there, under a temporary name that is soon gone.
    shutil.copytree(code.root / "src", trial.root / "src", ignore=shutil.ignore_patterns("*.pyc.*"))
    shutil.copy(code.dvc_yaml, trial.dvc_yaml)
    _fill(trial, config, repository)


def origin_of(code: Workspace) -> Path:
    """Return the file with the commit and the changes that a snapshot was made from.

    `pipeline.tracking.lineage.read_code` reads it.
    """
    return code.root / "origin.json"


def sources(repository: Workspace, folder: Path) -> Iterator[Path]:
    """Yield the files below `folder` that DVC would count as part of a dependency, sorted by path.

    Files that editors and Python leave there are excluded by .dvcignore.

    Raises:
        PipelineError: If that is not UTF-8 text.
    """
    ignored = repository.root / ".dvcignore"
    try:
        lines = ignored.read_text(encoding="utf-8").split("\n") if ignored.exists() else []
    except UnicodeDecodeError as error:
        raise PipelineError(f"{ignored} is not UTF-8 text ({error}): save it as such.") from None
    patterns = [line.replace("\\", "") for line in lines if line and line[0] not in "#/"]
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(fnmatch.fnmatch(part, each) for part in parts for each in patterns):
            yield path


def read_stages(repository: Workspace) -> dict[str, dict[str, Any]]:
    """Return the stages in dvc.yaml, in their order, in which each comes after those it depends on.

    Raises:
        PipelineError: If the file can't be read, or DVC would refuse it.
    """
    from dvc.schema import COMPILED_MULTI_STAGE_SCHEMA
    from voluptuous import Invalid

    path = repository.dvc_yaml
    try:
        text = path.read_text(encoding="utf-8")
        refuse_conflict(text, path)
        content = load_yaml(text)
        COMPILED_MULTI_STAGE_SCHEMA(content)
        stages: dict[str, dict[str, Any]] = content["stages"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipelineError(yaml_fault(error, path)) from None
    except (Invalid, KeyError) as error:
        raise PipelineError(f"{path} does not describe stages as DVC expects: {error}.") from None
    return stages


def _stages(repository: Workspace) -> dict[str, dict[str, Any]]:
    """Return the stages of the pipeline, with variables resolved and without `frozen`."""
    present = read_stages(repository)
    stages = {name: present[name] for name in STAGES if name in present}
    if "${" in str(stages):
        # Importing DVC takes half a second, which is rarely needed.
        from dvc.dvcfile import ProjectFile
        from dvc.repo import Repo

        with Repo(str(repository.root)) as repo:
            resolver = ProjectFile(repo, str(repository.dvc_yaml)).resolver
            stages = {name: resolver.resolve_one(name)[name] for name in stages}
    return {name: {key: stage[key] for key in stage if key != "frozen"} for name, stage in stages.items()}


def share_cache(workspace: Workspace, file: str, repository: Workspace, **core: bool) -> None:
    """Configure DVC in `workspace` to use the cache of `repository`.

    Files are copied from the cache, because writing through a link would damage the cache.

    The file in `.dvc` to write is config, or config.local if git tracks config.
    """
    from configobj import ConfigObj

    settings = ConfigObj(
        {
            "core": {
                **core,
                "analytics": False,
                "check_update": False,
                "site_cache_dir": str(workspace.root / ".dvc" / "site"),
            },
            "cache": {"dir": str(repository.dvc_cache()), "type": "copy"},
        }
    )
    # ConfigObj quotes special characters in paths.
    write_text(workspace.root / ".dvc" / file, "\n".join(settings.write()) + "\n")


def _fill(workspace: Workspace, config: Config, repository: Workspace) -> None:
    """Write params.yaml, and a DVC configuration that uses the cache of `repository`."""
    write_text(workspace.params, dump(config))
    share_cache(workspace, "config", repository, no_scm=True)
