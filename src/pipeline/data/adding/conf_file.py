"""Write and update the file in conf/data that describes a source: short, commented, everything pinned."""

import json
import re
import shlex
import unicodedata
from collections.abc import Mapping
from typing import Any

import yaml

from pipeline.config.plain_yaml import load_yaml
from pipeline.config.schema import DataSection
from pipeline.data.batches import update_command
from pipeline.errors import PipelineError

_NAME = re.compile(r"[A-Za-z_][\w-]{0,99}", re.ASCII)
_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "nan", "inf", "none", "y", "n")

_TEXT = """\
# {what}. Written by: pipeline add-data {path}
# After changing the pictures, or the reader below: {update}
name: {name}
classes: {classes} # in the order of the labels; pinned
sources: # tried in this order until one gives the bytes that are pinned below
{sources}
reader: # how any picture becomes such an image; stored with the model
  image_size: {image_size} # height and width
  colour: {colour} # grey or rgb
  resize: {resize} # pad: keep the proportions and add a border; crop: cut off the excess; stretch: distort
  background: {background} # black or white: the colour of the border, and of transparent parts
  prepare: {prepare} # none; or digit: find ink on any paper, scale and centre it as in MNIST
  max_pixels: {max_pixels} # the largest number of pixels that a picture may have
validation_images: {validation_images} # how many of the last training images are for validation; pinned
sha256: # of data/raw/NAME.npy, as sha256sum prints it; pinned
{digests}
timeout: {timeout} # seconds without receiving data after which a download attempt is given up
deadline: {deadline} # seconds that a download may take in total, including retries
retries: {retries} # further attempts after a temporary failure of a download, after 1, 2, 4 ... seconds
max_bytes: {max_bytes} # the largest size to which a single file may unpack
"""
_COMMENTS = {
    "images": "how many it has; pinned",
    "test_below": "per class: images whose digest, as a fraction, is below this are for testing; pinned",
    "test_fraction": "the part of each class for which that was chosen; --test-fraction changes it; pinned",
    "labels": "what the source calls the classes above, which you may rename",
    "label_pattern": "regular expression searched for in a picture's path; its group is the class",
    "transpose": "swap height and width, as needed for EMNIST",
    "unreadable": "skip or refuse pictures that can't be read",
}


def check_name(name: str) -> None:
    """Refuse a name that can't be a file in conf/data or a value on the command line."""
    if not _NAME.fullmatch(name) or name.lower() in _WORDS:
        raise PipelineError(
            f"{name!r} can't be a name in conf/data: with --name, choose one of letters, digits, _ and - "
            "that begins with a letter and is not a word such as null or no."
        )


def name_for(path: str) -> str:
    """Return a name made from the last part of a path or an address."""
    last = path.rstrip("/").rpartition("/")[2].partition("?")[0]
    last = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", last))  # ü becomes u
    stem = re.sub(r"(\.(tar|csv|gz|xz|zst|zip|tgz|npz|npy|parquet|mat|bz2))+$", "", last, flags=re.IGNORECASE)
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-").lower() or "data"
    return f"data_{name}" if not _NAME.fullmatch(name) or name in _WORDS else name


def text_of(data: DataSection, what: str) -> str:
    """Return the text of the file.

    Its first line has `what`, a short description of the source.

    Raises:
        PipelineError: If the name of a class can't be written in YAML, or would be taken for a reference to
            another value.
    """
    for name in data.classes:
        if "${" in name or not re.sub(r"[\n\t]", "", name).isprintable():
            raise PipelineError(f"The class name {name!r} can't be used in conf/: rename it.")
    values = data.model_dump(mode="json")
    path = data.sources[0].model_dump()["path"].replace("\n", "?")  # A comment must fit in one line.
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
    if DataSection.model_validate(load_yaml(text)) != data:
        raise PipelineError(f"Class names of {data.name} can't be written in YAML: rename them.")
    return text


def updated(text: str, data: DataSection, fresh_text: str) -> str | None:
    """Put other values into the text of a file, and leave everything else in it, such as comments, as it is.

    The first line, with the number of images, is that of `fresh_text`, which `text_of` made of the values.

    Returns:
        The new text, or None if the file is written in a way that can't be edited.
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
        text = fresh_text.partition("\n")[0] + end + rest
    try:
        document = parser.load(text)
        _put(document, data.model_dump(mode="json"))
        parser.dump(document, written)
        found = DataSection.model_validate(load_yaml(written.getvalue()))
    except (YAMLError, yaml.YAMLError, ValueError, TypeError, KeyError, IndexError):
        return None
    return written.getvalue() if found == data else None


def _put(place: Any, values: Mapping[str, Any]) -> None:
    """Set the values that differ in a mapping of the document, and in the mappings inside it."""
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(place.get(key), Mapping):
            _put(place[key], value)
        elif key == "sources":
            for inner, source in zip(place[key], value, strict=True):
                _put(inner, source)
        elif place.get(key) != value and not (key not in place and value in (None, False, 0)):
            place[key] = _in_quotes(value)


def _in_quotes(value: Any) -> Any:
    """Return a value in quotes, so that YAML reads it unchanged, and a list on one line."""
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
    """Return the lines that describe one source."""
    lines = [f"  - kind: {source['kind']}"]
    for key, value in source.items():
        if key == "kind" or value is None or value is False or value == 0:
            continue
        comment = f" # {_COMMENTS[key]}" if key in _COMMENTS else ""
        lines.append(f"    {key}: {_quoted(value)}{comment}")
    return "\n".join(lines)


def _quoted(value: Any) -> str:
    """Return YAML that every parser reads in the same way: JSON, with letters unescaped."""
    if isinstance(value, str) and re.fullmatch(r"[a-z]{4,}", value) and value not in _WORDS:
        return value
    # JSON leaves these characters unescaped, but YAML treats them as line breaks.
    return re.sub(
        r"[\x7f-\x9f\u2028\u2029]", lambda m: f"\\u{ord(m[0]):04x}", json.dumps(value, ensure_ascii=False)
    )
