"""The file of conf/data that describes a source: short, commented, with everything pinned."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from pipeline.config.schema import DataSection
from pipeline.data.batches import update_command
from pipeline.errors import PipelineError

_NAME = re.compile(r"[A-Za-z_][\w-]{0,99}", re.ASCII)
_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "nan", "inf", "none", "y", "n")

_TEXT = """\
# {what}. Written by: pipeline add-data {path}
# After a change of the pictures, or of the reader below: {update}
name: {name}
classes: {classes} # in the order of the labels; pinned
sources: # tried in this order until one gives the bytes pinned below
{sources}
reader: # how a picture becomes an image, wherever it comes from; it travels with the model
  image_size: {image_size} # height and width
  colour: {colour} # grey or rgb
  resize: {resize} # pad: the proportions are kept, with a border; crop: what is too much is cut off; stretch
  background: {background} # black or white: the border, and what shows through where a picture is transparent
  prepare: {prepare} # none; or digit: ink on any paper, found, scaled and centred as MNIST's digits were
  max_pixels: {max_pixels} # that a picture may have
validation_images: {validation_images} # the last so many training images are the source's own for it; pinned
sha256: # of data/raw/NAME.npy, as sha256sum prints it; pinned
{digests}
timeout: {timeout} # seconds without a byte before an attempt at a download is given up
deadline: {deadline} # seconds that a download may take in all, further attempts included
retries: {retries} # further attempts at a download that fails in passing, after 1, 2, 4 ... seconds
max_bytes: {max_bytes} # that any one file may unpack to
"""
_COMMENTS = {
    "images": "that it has; pinned",
    "test_below": "per class: those whose digest, as a fraction, is below are for testing; pinned",
    "labels": "what the source calls the classes above, which you may rename",
    "label_pattern": "is searched for in a picture's path; its group is the class",
    "transpose": "height and width are exchanged, as EMNIST has them",
    "unreadable": "skip or refuse pictures that can't be read",
}


def check_name(name: str) -> None:
    """Refuse what would be no name of a file in conf/data, or read as something else on a command line.

    Raises:
        PipelineError: with the rule.
    """
    if not _NAME.fullmatch(name) or name.lower() in _WORDS:
        raise PipelineError(
            f"{name!r} can't be a name in conf/data: choose one with --name, of letters, digits, _ and -, "
            "that begins with a letter and is no word such as null or no."
        )


def name_for(path: str) -> str:
    """A name made of a path's or an address's last part."""
    last = path.rstrip("/").rpartition("/")[2].partition("?")[0]
    stem = re.sub(r"(\.(tar|csv|gz|xz|zst|zip|tgz|npz|npy|parquet|mat|bz2))+$", "", last, flags=re.IGNORECASE)
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-").lower() or "data"
    return f"data_{name}" if not _NAME.fullmatch(name) or name in _WORDS else name


def text_of(data: DataSection, what: str) -> str:
    """The file.

    Raises:
        PipelineError: a name of a class would be taken for a reference to another value.
    """
    for name in data.classes:
        if "${" in name or not re.sub(r"[\n\t]", "", name).isprintable():
            raise PipelineError(f"The class {name!r} can't be named in conf/: rename it.")
    values = data.model_dump(mode="json")
    path = data.sources[0].model_dump()["path"].replace("\n", "?")  # A comment is one line.
    text = _TEXT.format(
        what=what,
        path=shlex.quote(path),
        update=update_command(path, data.name),
        name=data.name,
        classes=_quoted(values["classes"]),
        sources="\n".join(_source(source) for source in values["sources"]),
        digests="\n".join(f"  {name}: {digest}" for name, digest in (values["sha256"] or {}).items()),
        **values["reader"],
        **{key: values[key] for key in ("validation_images", "timeout", "deadline", "retries", "max_bytes")},
    )
    if DataSection.model_validate(yaml.safe_load(text)) != data:
        raise PipelineError(f"The classes of {data.name} have names that YAML can't hold: rename them.")
    return text


def updated(text: str, data: DataSection, anew: str) -> str | None:
    """The text of the file with other values, and everything else in it, such as comments, as it is.

    Args:
        text: of the file.
        data: the values.
        anew: what `text_of` makes of them, whose first line says how many there are.

    Returns:
        None if it is written in a way in which they can't be put.
    """
    from io import StringIO

    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    parser = YAML()
    parser.preserve_quotes = True
    parser.width = 10**6
    parser.indent(mapping=2, sequence=4, offset=2)
    written = StringIO()
    first, end, rest = text.partition("\n")
    if " Written by: pipeline add-data " in first:
        text = anew.partition("\n")[0] + end + rest
    try:
        document = parser.load(text)
        _put(document, data.model_dump(mode="json"))
        parser.dump(document, written)
        found = DataSection.model_validate(yaml.safe_load(written.getvalue()))
    except (YAMLError, ValueError, TypeError, KeyError, IndexError):
        return None
    return written.getvalue() if found == data else None


def _put(place: Any, values: Mapping[str, Any]) -> None:
    """Set what differs in a mapping of the document, and in the mappings inside it."""
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(place.get(key), Mapping):
            _put(place[key], value)
        elif key == "sources":
            for inner, source in zip(place[key], value, strict=True):
                _put(inner, source)
        elif place.get(key) != value and not (key not in place and value in (None, False, 0)):
            place[key] = _in_quotes(value)


def _in_quotes(value: Any) -> Any:
    """A value that YAML reads as it is, a list in one line."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, list):
        line = CommentedSeq(map(_in_quotes, value))
        line.fa.set_flow_style()
        return line
    if isinstance(value, dict):
        return CommentedMap({key: _in_quotes(inner) for key, inner in value.items()})
    return DoubleQuotedScalarString(value) if isinstance(value, str) else value


def _source(source: Mapping[str, Any]) -> str:
    lines = [f"  - kind: {source['kind']}"]
    for key, value in source.items():
        if key == "kind" or value is None or value is False or value == 0:
            continue
        comment = f" # {_COMMENTS[key]}" if key in _COMMENTS else ""
        lines.append(f"    {key}: {_quoted(value)}{comment}")
    return "\n".join(lines)


def _quoted(value: Any) -> str:
    """YAML that is read alike by every reader: JSON, with letters as they are."""
    if isinstance(value, str) and re.fullmatch(r"[a-z]{4,}", value) and value not in _WORDS:
        return value
    # JSON leaves these as they are, YAML takes them for ends of lines.
    return re.sub(
        r"[\x7f-\x9f\u2028\u2029]", lambda m: f"\\u{ord(m[0]):04x}", json.dumps(value, ensure_ascii=False)
    )
