"""Runs that MLflow lacks, made again from what DVC's cache has of their trainings."""

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
    """Have MLflow hold the runs of trials that are known.

    Args:
        configs: of the trials.
        repository: whose runs they are.
        code: a snapshot of the code that they ran with.
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
    """Copy a file or a folder out of the cache, where the first two digits of an MD5 are a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if cached.suffix != ".dir":
        shutil.copyfile(cached, target)
        return
    for file in json.loads(cached.read_text(encoding="utf-8")):
        digest = file["md5"]
        _check_out(cached.parents[1] / digest[:2] / digest[2:], target / file["relpath"])
