"""`pipeline add-data`: read everything at a path, describe it, and pin it in conf/data."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.plain_yaml import load_yaml
from pipeline.config.schema import DataSection
from pipeline.console import count
from pipeline.data.adding.conf_file import check_name, name_for, text_of, updated
from pipeline.data.adding.detect import detect
from pipeline.data.adding.index import Index, changes, read_index, write_index
from pipeline.data.adding.look import look
from pipeline.data.adding.options import AddOptions, reader_of, settings_of
from pipeline.data.batches import Listing, expanded, is_address, update_command
from pipeline.data.sources.folder import list_files
from pipeline.errors import PipelineError


def add_data(options: AddOptions, workspace: Workspace, here: Path) -> Iterator[str]:
    """Describe a source, yielding the lines to print, and write its file in conf/data.

    A relative path is resolved against the folder `here`.

    Raises:
        PipelineError: If the path can't be read, an option is invalid, or the file exists and pins other
            images.
    """
    path = options.path
    if not is_address(path):
        path = _as_in_conf(path, here, workspace.home)
    name = name_for(path) if options.name is None else options.name
    check_name(name)
    conf = workspace.root / "conf" / "data" / f"{name}.yaml"
    before = _existing(conf, path, options, workspace.home)
    if before and not is_address(path) and not (workspace.home / path).exists():
        raise PipelineError(
            f"There is no {path}. If the images are elsewhere now, change `path` in conf/data/{name}.yaml."
        )
    values = before or _defaults(name, detect(path, workspace.home), path)
    source = values["sources"][0]
    kind = source["kind"]
    if kind == "folder" and workspace.home.is_relative_to(workspace.home / path):
        raise PipelineError(
            f"{path} contains this repository, whose figures would be among the pictures: give the path of a "
            "folder that has only the pictures."
        )
    if before is None and kind == "idx" and any((workspace.home / path).glob("emnist*")):
        source["transpose"] = True
    settings = settings_of(options, values)
    values = values | {"sources": [source | settings, *values["sources"][1:]]}

    index_file = workspace.scratch / "data" / f"{name}.json"
    index = read_index(index_file) if before else None
    # It is out of date if a person has edited the file since, or the file comes from another clone.
    known = index if before and index and index.state == _state(before) else None
    files = _stamps(path, workspace.home, kind)
    has_options = reader_of(options) or settings or options.test_fraction is not None
    if before and known and files and known.files == files and not has_options:
        yield f"{path} has not changed since conf/data/{name}.yaml was written: {_total(before)}."
        return

    found = look(options, values, workspace, index, fresh=before is None)
    yield from found.lines(path)
    after = Index(_state(found.data.model_dump(mode="json")), files, found.index)
    if before and _state(before) == after.state:
        write_index(index_file, after)
        yield f"Everything is as pinned in conf/data/{name}.yaml."
        return
    if before:
        yield f"Since conf/data/{name}.yaml was written:"
        yield from _changes(before, known, after, len(found.labels))
        if not options.update:
            raise PipelineError(
                f"Nothing was written. `{update_command(options.path, name, options.typed())}` pins what is "
                "there now."
            )
    fresh_text = text_of(found.data, found.what)
    edited_text = updated(conf.read_text(encoding="utf-8"), found.data, fresh_text) if before else None
    if before and edited_text is None:
        yield f"conf/data/{name}.yaml is rewritten from scratch: your comments and formatting are lost."
    write_text(conf, edited_text or fresh_text)
    write_index(index_file, after)
    yield f"Wrote conf/data/{name}.yaml. Next:"
    recipe = " experiment=folder" if found.collected.rows.sizes else ""
    given = " preprocess.validation_split=given" if found.data.validation_images else ""
    yield f"  python -m pipeline data={name}{recipe}{given}"


# --- the existing file ------------------------------------------------------------------------------


def _as_in_conf(path: str, here: Path, home: Path) -> str:
    """Return the path relative to the repository if it is inside it, else as an absolute path."""
    if not path:
        raise PipelineError("The path is empty: give that of a folder of pictures, an archive or a table.")
    whole = Path(os.path.normpath((here / expanded(path)).absolute()))
    try:
        whole.exists()
    except OSError as error:
        raise PipelineError(f"{path[:60]} ...: {error.strerror}.") from None
    named = str(whole.relative_to(home) if whole.is_relative_to(home) else whole)
    named = str(whole) if named.startswith("~") else named
    try:
        named.encode()
    except UnicodeEncodeError:
        raise PipelineError(f"{named!a} has bytes that are not UTF-8, as conf/ must be: rename it.") from None
    return named


def _existing(conf: Path, path: str, options: AddOptions, home: Path) -> dict[str, Any] | None:
    """Read what an earlier add-data wrote about the same path; a person may have edited it since.

    Return the values of the file, or None if there is none or it is to be overwritten.
    """
    if not conf.exists():
        if options.update:
            raise PipelineError(f"There is no conf/data/{conf.name} to update: leave out --update.")
        return None
    if options.force:
        return None
    try:
        values = load_yaml(conf.read_text(encoding="utf-8"))
        found = DataSection.model_validate(values).model_dump(mode="json")
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        why = str(error).splitlines()[0]
        if isinstance(error, ValidationError):
            keys = dict.fromkeys(str(fault["loc"][0]) for fault in error.errors() if fault["loc"])
            why = f"missing or wrong: {', '.join(keys) or 'all its keys'}"
        raise PipelineError(
            f"conf/data/{conf.name} exists, but does not describe a data set ({why}): choose another --name, "
            "fix the file, or overwrite it with --force."
        ) from None
    there = found["sources"][0].get("path")
    # A person may have written it relative to the repository or to the home folder.
    if there and not is_address(there):
        there = _as_in_conf(there, home, home)
    if there != path:
        raise PipelineError(
            f"conf/data/{conf.name} exists and describes other data: choose another --name, or overwrite it "
            "with --force. If these are the same images in another place, change its `path`."
        )
    return found


def _defaults(name: str, kind: str, path: str) -> dict[str, Any]:
    return {
        "name": name,
        "classes": ["0", "1"],  # until the source was read
        "sources": [{"kind": kind, "path": path, "unreadable": "skip"}],
        "reader": {
            "image_size": [1, 1],
            "colour": "rgb",
            "resize": "pad",
            "background": "black",
            "prepare": "none",
            "max_pixels": 100_000_000,
        },
        "validation_images": 0,
        "sha256": None,
        "timeout": 20.0,
        "deadline": 600.0,
        "retries": 3,
        "max_bytes": 1_000_000_000,
    }


def _stamps(path: str, home: Path, kind: str) -> dict[str, list[int]]:
    """Return the size and times of all files: if none of them changed, the content did not change either.

    Returns:
        {path: [bytes, modification time, status change time]}, or nothing for an address or a CSV file.
    """
    # The pictures that a table names may be anywhere below its folder.
    if is_address(path) or kind == "csv":
        return {}
    whole = home / path
    found = list_files(whole, Listing()) if whole.is_dir() else {whole.name: whole.stat()}
    return {name: [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for name, stat in found.items()}


def _state(values: dict[str, Any]) -> str:
    """Return a digest of the values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _changes(before: dict[str, Any], known: Index | None, after: Index, images: int) -> list[str]:
    """Describe what changed since the file was written; `known` was there then, if this clone knows it."""
    if known and known.images:
        return changes(known, after) or [
            "  no image was added, removed or changed: what changed is a setting, or which are for testing"
        ]
    why = "a source of this kind is pinned as a whole" if known else "they were not pinned in this clone"
    return [
        f"  {_total(before)} were pinned, {count(images, 'image')} are there now; it is not known which ones "
        f"changed, since {why}"
    ]


def _total(values: dict[str, Any]) -> str:
    """Return the pinned number of images in words."""
    return count(values["sources"][0]["images"] or 0, "image")
