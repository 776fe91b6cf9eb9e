"""Restore runs that MLflow lacks from the outputs in DVC's cache."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.params import dump
from pipeline.config.schema import Config
from pipeline.trials.run_cache import RunCache
from pipeline.trials.trial import show, trial_workspace


def restore(configs: Iterable[Config], repository: Workspace, code: Workspace) -> None:
    """Send the runs of trials that were trained before to MLflow again.

    Args:
        configs: The configurations of the trials.
        repository: The repository that the runs belong to.
        code: A snapshot of the code that they ran with.
    """
    cache = RunCache(code)
    for config in configs:
        with trial_workspace(config, repository) as trial:
            write_text(trial.params, dump(config))
            for path, cached in cache.find(config).outputs.items():
                if path.startswith(("models/", "reports/")):
                    _check_out(cached, trial.root / path)
            show(config, trial)


def _check_out(cached: Path, target: Path) -> None:
    """Copy a file or a folder from the cache, in which the first two digits of an MD5 name a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if cached.suffix != ".dir":
        shutil.copyfile(cached, target)
        return
    for file in json.loads(cached.read_text(encoding="utf-8")):
        digest = file["md5"]
        _check_out(cached.parents[1] / digest[:2] / digest[2:], target / file["relpath"])
