"""DVC's cache and the workspace, held against dvc.lock and the entries of the run cache."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.verification.problems import Problem, digests


@dataclass(frozen=True)
class Output:
    """A file that dvc.lock names, or that is in a folder which it names."""

    path: str  # in the workspace
    md5: str
    stage: str


class Cache:
    """DVC's cache of a repository."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.root = workspace.dvc_cache()
        self.objects = self.root / "files" / "md5"

    def place(self, digest: str) -> Path:
        """Where the object with this MD5 lies; folders have one that ends in .dir."""
        return self.objects / digest[:2] / digest[2:]

    def locked(self) -> dict[str, list[Output]]:
        """The outputs in dvc.lock that are cached, with their stages, by digest; those of folders by .dir.

        Raises:
            PipelineError: dvc.lock or dvc.yaml can't be read.
        """
        found: dict[str, list[Output]] = {}
        stages = _read(self.workspace.dvc_lock).get("stages", {})
        uncached = set(_uncached(_read(self.workspace.dvc_yaml).get("stages", {})))
        for stage, content in stages.items():
            for out in content.get("outs", ()):
                if out["path"] not in uncached:
                    found.setdefault(out["md5"], []).append(Output(out["path"], out["md5"], stage))
        return found

    def stages(self) -> list[str]:
        """The stages of dvc.yaml, each after those whose outputs it reads, as they are written there."""
        return list(_read(self.workspace.dvc_yaml).get("stages", {}))

    def listed(self, digest: str) -> list[tuple[str, str]]:
        """The files of a folder, (path in it, MD5); none if its list is missing or damaged."""
        try:
            content = json.loads(self.place(digest).read_text(encoding="utf-8"))
            return [(file["relpath"], file["md5"]) for file in content]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def files(self) -> list[Output]:
        """Every file that dvc.lock names, those in folders one by one."""
        found = []
        for outputs in self.locked().values():
            for output in outputs:
                if output.md5.endswith(".dir"):
                    found += [
                        Output(f"{output.path}/{inner}", md5, output.stage)
                        for inner, md5 in self.listed(output.md5)
                    ]
                else:
                    found.append(output)
        return found

    def entries(self) -> Iterator[tuple[str, str, str]]:
        """What past stages came to, as the run cache has it: (digest, path, entry)."""
        for path in sorted((self.root / "runs").glob("*/*/*")):
            try:
                entry = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
                outs = [(out["md5"], out["path"]) for out in entry["outs"]]
            except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
                continue  # DVC's temporary files; a damaged entry is removed when it is looked up
            for md5, out in outs:
                yield md5, out, path.name[:12]


def check_cache(cache: Cache, everything: bool) -> list[Problem]:
    """Whether each object hashes to its name; what dvc.lock names must be there."""
    named: dict[str, str] = {}
    stage_of: dict[str, str] = {}
    for digest, outputs in cache.locked().items():
        named[digest] = f"{outputs[0].path}, an output of {outputs[0].stage}"
        stage_of[digest] = outputs[0].stage
        for inner, md5 in cache.listed(digest) if digest.endswith(".dir") else ():
            named.setdefault(md5, f"{outputs[0].path}/{inner}, an output of {outputs[0].stage}")
            stage_of.setdefault(md5, outputs[0].stage)
    for digest, path, entry in cache.entries():
        named.setdefault(digest, f"{path} of the past result {entry}")
        for inner, md5 in cache.listed(digest) if digest.endswith(".dir") else ():
            named.setdefault(md5, f"{path}/{inner} of the past result {entry}")
    if everything:
        for found in cache.objects.glob("??/*"):
            named.setdefault(found.parent.name + found.name, "an object that nothing here names")
    places = {cache.place(digest): digest for digest in named}
    problems = []
    for place, hashed in digests(places, "md5", "Hashed objects of the cache:").items():
        digest = places[place]
        # What only past results name may be gone: it is trained again when it is asked for.
        if hashed == digest.removesuffix(".dir") or (hashed is None and digest not in stage_of):
            continue
        text = f"{place} is {'missing' if hashed is None else 'damaged'}: {named[digest]}."
        stage = stage_of.get(digest, "")
        problems.append(Problem("cache", text, place, digest, digest=digest, stage=stage))
    return problems


def check_workspace(cache: Cache) -> list[Problem]:
    """Whether the outputs in the workspace are those that dvc.lock names."""
    root = cache.workspace.root
    wanted = {root / output.path: output for output in cache.files()}
    problems = []
    for path, found in digests(wanted, "md5", "Hashed files of the workspace:").items():
        output = wanted[path]
        if found != output.md5:
            how = "is missing" if found is None else "is not what dvc.lock names"
            text = f"{output.path} {how}: an output of {output.stage}."
            problems.append(
                Problem("workspace", text, path, output.path, digest=output.md5, stage=output.stage)
            )
    return problems + _unlisted(cache)


def _unlisted(cache: Cache) -> list[Problem]:
    """Files that lie in a folder of dvc.lock and that it does not list."""
    problems = []
    for outputs in cache.locked().values():
        for output in outputs:
            if not output.md5.endswith(".dir") or not cache.listed(output.md5):
                continue
            folder = cache.workspace.root / output.path
            known = {inner for inner, _ in cache.listed(output.md5)}
            for path in sorted(found for found in folder.rglob("*") if found.is_file()):
                if (inner := path.relative_to(folder).as_posix()) not in known:
                    text = f"{output.path}/{inner} is not among the outputs of {output.stage} in dvc.lock."
                    problems.append(Problem("workspace", text, path, f"{output.path}/{inner}"))
    return problems


def _uncached(stages: dict[str, Any]) -> Iterator[str]:
    for stage in stages.values():
        for kind in ("outs", "metrics", "plots"):
            for out in stage.get(kind, ()):
                if isinstance(out, dict):
                    yield from (
                        path for path, options in out.items() if (options or {}).get("cache") is False
                    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        if not isinstance(content, dict):
            raise TypeError("it is no mapping")  # noqa: TRY301
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing: `git checkout {path.name}` or `dvc repro` brings it back."
        ) from None
    except (OSError, yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"{path} can't be read ({error}): `git checkout {path.name}` restores it."
        ) from None
    return content
