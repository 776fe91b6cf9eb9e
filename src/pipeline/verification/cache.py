"""Check DVC's cache and the workspace against dvc.lock and the entries of the run cache."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.workspace import Workspace, files_in, object_in
from pipeline.config.params import read_generated
from pipeline.trials.layout import read_stages
from pipeline.trials.run_cache import past_outputs
from pipeline.verification.problems import Problem, digests


@dataclass(frozen=True)
class Output:
    """A file that dvc.lock names, or a file in a folder that it names."""

    path: str  # in the workspace
    md5: str
    stage: str


class Cache:
    """The DVC cache of a repository."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.root = workspace.dvc_cache()
        self.objects = self.root / "files" / "md5"

    def place(self, digest: str) -> Path:
        """Return the path of the object with this MD5, which ends in .dir if it is a folder."""
        return object_in(self.root, digest)

    def locked(self) -> list[Output]:
        """Return the cached outputs in dvc.lock; the digests of folders end in .dir.

        Raises:
            PipelineError: If dvc.lock or dvc.yaml can't be read.
        """
        stages = read_generated(self.workspace.dvc_lock).get("stages", {})
        uncached = set(_uncached(read_stages(self.workspace)))
        return [
            Output(out["path"], out["md5"], stage)
            for stage, content in stages.items()
            for out in content.get("outs", ())
            if out["path"] not in uncached
        ]

    def has_outputs(self) -> bool:
        """Return whether the workspace has any output in dvc.lock, unlike that of a new clone."""
        return any((self.workspace.root / output.path).exists() for output in self.locked())

    def stages(self) -> list[str]:
        """Return the stages in the order of dvc.yaml, where each comes after those it depends on."""
        return list(read_stages(self.workspace))

    def files(self) -> list[Output]:
        """Return all files that dvc.lock names, including each file in a folder."""
        found = []
        for output in self.locked():
            if not output.md5.endswith(".dir"):
                found.append(output)
            for inner, md5 in files_in(self.root, output.md5).items():
                found.append(Output(f"{output.path}/{inner}", md5, output.stage))
        return found


def check_cache(cache: Cache, everything: bool) -> list[Problem]:
    """Check that each object has the digest in its name, and that what dvc.lock names exists.

    `everything` includes the objects that neither dvc.lock nor a past result names.
    """
    named: dict[str, tuple[str, str]] = {}
    for digest, what, stage in _named(cache, everything):
        named.setdefault(digest, (what, stage))
    places = {cache.place(digest): digest for digest in named}
    problems = []
    for place, hashed in digests(places, "md5", "Hashed objects of the cache:").items():
        digest = places[place]
        what, stage = named[digest]
        # Objects that only past results name may be missing: they are made again when needed.
        if hashed == digest.removesuffix(".dir") or (hashed is None and not stage):
            continue
        text = f"{place} is {'missing' if hashed is None else 'damaged'}: {what}."
        problems.append(Problem("cache", text, place, digest, digest=digest, stage=stage))
    return problems


def _named(cache: Cache, everything: bool) -> Iterator[tuple[str, str, str]]:
    """Yield (digest, what it is, stage) for each object; the stage is empty if dvc.lock does not name it."""
    for output in cache.locked():
        made_by = f"an output of {output.stage}"
        yield output.md5, f"{output.path}, {made_by}", output.stage
        for inner, md5 in files_in(cache.root, output.md5).items():
            yield md5, f"{output.path}/{inner}, {made_by}", output.stage
    for digest, path, entry in past_outputs(cache.root):
        yield digest, f"{path} of the past result {entry}", ""
        for inner, md5 in files_in(cache.root, digest).items():
            yield md5, f"{path}/{inner} of the past result {entry}", ""
    if everything:
        for found in cache.objects.glob("??/*"):
            yield found.parent.name + found.name, "an object that nothing here refers to", ""


def check_workspace(cache: Cache) -> list[Problem]:
    """Check that the outputs in the workspace are those that dvc.lock names."""
    root = cache.workspace.root
    wanted = {root / output.path: output for output in cache.files()}
    problems = []
    for path, found in digests(wanted, "md5", "Hashed files of the workspace:").items():
        output = wanted[path]
        if found != output.md5:
            how = "is missing" if found is None else "differs from dvc.lock"
            text = f"{output.path} {how}: an output of {output.stage}."
            problems.append(
                Problem("workspace", text, path, output.path, digest=output.md5, stage=output.stage)
            )
    return problems + _unlisted(cache)


def _unlisted(cache: Cache) -> list[Problem]:
    """Find files in the folders of dvc.lock that it does not list."""
    problems = []
    for output in cache.locked():
        known = files_in(cache.root, output.md5)
        if not known:
            continue
        folder = cache.workspace.root / output.path
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
                    yield from (path for path, options in out.items() if options.get("cache") is False)
