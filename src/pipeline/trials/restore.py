"""Restore runs that MLflow lacks from the outputs in DVC's cache."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.artifacts.workspace import Workspace, copy_file, files_in, object_in, write_text
from pipeline.config.params import dump
from pipeline.config.schema import Config
from pipeline.trials.run_cache import RunCache
from pipeline.trials.trial import show, trial_workspace


def restore(configs: Iterable[Config], repository: Workspace, code: Workspace) -> None:
    """Send the runs of trials that were trained before to MLflow again.

    `code` is a snapshot of the code that they ran with.
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
    """Copy a file or a folder from DVC's cache."""
    if cached.suffix != ".dir":
        copy_file(cached, target)
    cache = cached.parents[3]
    for path, md5 in files_in(cache, cached.parent.name + cached.name).items():
        copy_file(object_in(cache, md5), target / path)
