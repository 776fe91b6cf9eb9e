"""`pipeline add-data`: look at all that a path holds, say what it is, and pin it in conf/data."""

import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.schema import DataSection
from pipeline.console import count
from pipeline.data.adding.conf_file import check_name, name_for, text_of, updated
from pipeline.data.adding.detect import detect
from pipeline.data.adding.index import Index, changes, read_index, write_index
from pipeline.data.adding.look import look
from pipeline.data.adding.options import AddOptions, reader_of, settings_of
from pipeline.data.batches import Listing, is_address, update_command
from pipeline.data.sources.folder import list_files
from pipeline.errors import PipelineError


def add_data(options: AddOptions, workspace: Workspace, here: Path) -> Iterator[str]:
    """Describe a source in lines, and write its file in conf/data.

    Args:
        options: what was typed.
        workspace: the repository.
        here: the current folder, to which a relative path is relative.

    Raises:
        PipelineError: nothing can be made of the path, or the file is there already and other images are.
    """
    path = options.path
    if not is_address(path):
        path = _as_in_conf(here / Path(path).expanduser(), workspace.home)
    name = name_for(path) if options.name is None else options.name
    check_name(name)
    conf = workspace.root / "conf" / "data" / f"{name}.yaml"
    wished = reader_of(options)
    before = _existing(conf, path, options)
    kind = before["sources"][0]["kind"] if before else detect(path, workspace.home)
    values = before or _defaults(name, kind, path)
    if before is None and kind == "idx" and any((workspace.home / path).glob("emnist*")):
        values["sources"][0]["transpose"] = True
    settings = settings_of(options, values)
    values = values | {"sources": [values["sources"][0] | settings, *values["sources"][1:]]}
    module = importlib.import_module(f"pipeline.data.sources.{kind}")

    kept = workspace.scratch / "data" / f"{name}.json"
    index = read_index(kept) if before else None
    files = _stamps(path, workspace.home, kind)
    is_known = before and index and index.state == _state(before)
    asks_more = wished or settings or options.test_fraction is not None
    if before and is_known and files and index and index.files == files and not asks_more:
        yield f"{path} has not changed since conf/data/{name}.yaml was written: {_total(before)}."
        return

    found = look(options, values, module, workspace, index, fresh=before is None)
    yield from found.lines(path)
    after = Index(_state(found.values), files, found.index)
    if before and _state(before) == _state(found.values):
        write_index(kept, after)
        yield f"All is as conf/data/{name}.yaml pins it."
        return
    if before:
        yield f"Since conf/data/{name}.yaml was written:"
        named = changes(index, after) if is_known and index and index.images else []
        yield from named or [
            f"  {_total(before)} were pinned, {count(len(found.labels), 'image')} are there now; which ones "
            "changed is not known here, since this clone did not pin them"
        ]
        if not options.update:
            raise PipelineError(
                f"Nothing was written. `{update_command(options.path, name)}` pins what is there now."
            )
    anew = text_of(found.data, found.what)
    kept_text = updated(conf.read_text(encoding="utf-8"), found.data, anew) if before else None
    if before and kept_text is None:
        yield f"conf/data/{name}.yaml is written anew: comments and other edits of its text are lost."
    write_text(conf, kept_text or anew)
    write_index(kept, after)
    yield f"Wrote conf/data/{name}.yaml. Next:"
    recipe = " experiment=folder" if found.collected.rows.sizes else ""
    given = " preprocess.validation_split=given" if found.data.validation_images else ""
    yield f"  python -m pipeline data={name}{recipe}{given}"


# --- what is there already --------------------------------------------------------------------------


def _as_in_conf(path: Path, home: Path) -> str:
    """Relative to the repository if it lies there, else absolute."""
    whole = Path(os.path.normpath(path.absolute()))
    return str(whole.relative_to(home) if whole.is_relative_to(home) else whole)


def _existing(conf: Path, path: str, options: AddOptions) -> dict[str, Any] | None:
    """What an earlier add-data wrote of the same path, by edits of a person as it may be."""
    if not conf.exists():
        if options.update:
            raise PipelineError(f"There is no conf/data/{conf.name} to update: leave --update away.")
        return None
    if options.force:
        return None
    try:
        values = yaml.load(conf.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        found = DataSection.model_validate(values).model_dump(mode="json")
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"conf/data/{conf.name} exists, and is no file of a data set ({str(error).splitlines()[0]}): "
            "mend it, choose another --name, or have it written anew with --force."
        ) from None
    if found["sources"][0].get("path") != path:
        raise PipelineError(
            f"conf/data/{conf.name} exists and is of other data: choose another --name, or write over it "
            "with --force."
        )
    return found


def _defaults(name: str, kind: str, path: str) -> dict[str, Any]:
    return {
        "name": name,
        "classes": ["0", "1"],
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
    """Size and times of all files: where none changed, no content did."""
    # A table may name pictures anywhere below its folder.
    if is_address(path) or kind == "csv":
        return {}
    whole = home / path
    found = list_files(whole, Listing()) if whole.is_dir() else {whole.name: whole.stat()}
    return {name: [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for name, stat in found.items()}


def _state(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _total(values: dict[str, Any]) -> str:
    return f"{count(values['sources'][0]['images'] or 0, 'image')}"
