"""Look up the outputs of a trial in DVC's cache before it runs.

DVC's run cache maps a stage's command, code, values and inputs to its outputs, whichever workspace it ran in.
The inputs of a stage are the outputs of earlier stages, so a trial is looked up stage by stage.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.workspace import Workspace, files_in, object_in, remove
from pipeline.config.plain_yaml import load_yaml
from pipeline.config.schema import Config
from pipeline.config.section import value_at
from pipeline.console import warn

if TYPE_CHECKING:
    from dvc.stage import Stage

_MAX_CHECKED = 50_000  # bytes; smaller files, such as run.json, are hashed at each look-up
_MIN_AGE = 60.0  # seconds until an empty folder is removed: a process may be about to write to it


@dataclass(frozen=True)
class Known:
    """The cached outputs of a trial's stages, and the stages whose outputs are not cached."""

    outputs: dict[str, Path]  # path in a workspace -> path in the cache
    missing: dict[str, str]  # stage -> digest of the values that it and the stages before it read


class RunCache:
    """DVC's run cache, for trials with the code and the stages of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        """Open the DVC repository in `workspace`."""
        from dvc.repo import Repo

        self._repo = Repo(str(workspace.root))
        self._stages: list[Stage] = list(self._repo.index.stages)
        self._cache = workspace.dvc_cache()
        self._whole: dict[str, bool] = {}
        for stage in self._stages:
            for dependency in stage.deps:
                if dependency.exists and dependency.def_path.startswith("src/"):
                    dependency.save()

    def find(self, config: Config) -> Known:
        """Return the cached outputs of the stages of a trial with `config`."""
        values = config.model_dump(mode="json")
        outputs: dict[str, dict[str, Any]] = {}
        missing = {}
        read = hashlib.sha256()
        for stage in self._stages:
            keys = [key for dependency in stage.deps for key in getattr(dependency, "params", ())]
            read.update(json.dumps([value_at(values, key) for key in keys]).encode())
            entry = self._entry(stage, values, outputs)
            if entry is None:
                missing[stage.name] = read.hexdigest()[:16]
            else:
                outputs |= {out["path"]: out for out in entry["outs"]}
        return Known({path: object_in(self._cache, out["md5"]) for path, out in outputs.items()}, missing)

    def _entry(
        self, stage: "Stage", values: dict[str, Any], outputs: dict[str, dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Return the entry for `stage` with these values and inputs if all of its outputs are cached."""
        from dvc.dependency import ParamsDependency
        from dvc.stage.cache import _get_cache_hash
        from dvc.stage.serialize import to_single_stage_lockfile
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.meta import Meta

        for dependency in stage.deps:
            if isinstance(dependency, ParamsDependency):
                dependency.fill_values({key: value_at(values, key) for key in dependency.params})
            elif not dependency.def_path.startswith("src/"):
                if dependency.def_path not in outputs:
                    return None
                known = outputs[dependency.def_path]
                dependency.hash_info = HashInfo("md5", known["md5"])
                dependency.meta = Meta.from_dict(known)
        key = _get_cache_hash(to_single_stage_lockfile(stage), key=True)
        entry = self._newest(Path(self._repo.stage_cache._get_cache_dir(key)), key)
        return entry if entry and all(self._is_whole(out["md5"]) for out in entry["outs"]) else None

    def _newest(self, folder: Path, key: str) -> dict[str, Any] | None:
        """Return the latest complete entry, which DVC restores; remove damaged ones, at which DVC fails."""
        from dvc.exceptions import DvcException

        # The names of DVC's temporary files start with a dot.
        files = sorted(folder.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files:
            try:
                entry: dict[str, Any] | None = self._repo.stage_cache._load_cache(key, path.name)
            except (DvcException, OSError):
                entry = None
            if entry and "outs" in entry:
                return entry
            _discard(path)
        # DVC fails if the folder is empty.
        with suppress(OSError):
            if files or time.time() - folder.stat().st_mtime > _MIN_AGE:
                folder.rmdir()
        return None

    def _is_whole(self, digest: str) -> bool:
        """Return whether the cache has the file, or the folder with all of its files."""
        if digest not in self._whole:
            path = object_in(self._cache, digest)
            whole = path.is_file()
            if whole and path.stat().st_size <= _MAX_CHECKED:
                content = path.read_bytes()
                whole = hashlib.md5(content).hexdigest() == digest.removesuffix(".dir")  # noqa: S324 (DVC's)
                if not whole:
                    _discard(path)
                elif digest.endswith(".dir"):
                    files = files_in(self._cache, digest).values()
                    whole = all(object_in(self._cache, md5).exists() for md5 in files)
            self._whole[digest] = whole
        return self._whole[digest]


def past_outputs(cache: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (digest, path, entry) for each output of a past result, as the run cache names it."""
    import yaml

    for path in sorted((cache / "runs").glob("*/*/*")):
        try:
            entry = load_yaml(path.read_text(encoding="utf-8"))
            outs = [(out["md5"], out["path"]) for out in entry["outs"]]
        except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
            continue  # DVC's temporary files, or damaged entries, which DVC removes when it looks them up
        for md5, out in outs:
            yield md5, out, path.name[:12]


def _discard(path: Path) -> None:
    warn(f"{path} in DVC's cache was damaged and has been removed: it will be made again.")
    remove(path)
