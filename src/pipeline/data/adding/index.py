"""Record in .pipeline what a source contained when it was pinned, so that changes can be listed quickly."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.workspace import write_text
from pipeline.console import count, printable

_VERSION = 1


@dataclass(frozen=True)
class Index:
    """The content of one source when it was read."""

    # Digest of the values in conf/data that it belongs to.
    state: str
    # {file: [bytes, modification time in ns, status change time in ns]}
    files: Mapping[str, Sequence[int]]
    # {image: [class, digest]}; empty for tables.
    images: Mapping[str, Sequence[str]]


def read_index(path: Path) -> Index | None:
    """Read what `write_index` wrote, or return None if there is nothing that this version wrote."""
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        if values.pop("version") != _VERSION:
            return None
        index = Index(**values)
        is_whole = isinstance(index.files, dict) and all(len(image) == 2 for image in index.images.values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return index if is_whole else None


def write_index(path: Path, index: Index) -> None:
    """Write the index to a file."""
    write_text(path, json.dumps({"version": _VERSION, **vars(index)}))


def changes(before: Index, after: Index) -> list[str]:
    """Describe what was added, removed, relabelled or changed, in one line for each class."""
    gone = {name: before.images[name] for name in before.images.keys() - after.images.keys()}
    new = {name: after.images[name] for name in after.images.keys() - before.images.keys()}
    moved: Counter[tuple[str, str]] = Counter()
    changed: Counter[str] = Counter()
    for name in before.images.keys() & after.images.keys():
        (old_class, old_digest), (new_class, new_digest) = before.images[name], after.images[name]
        if old_digest != new_digest:
            changed[new_class] += 1
        elif old_class != new_class:
            moved[old_class, new_class] += 1
    # The same pixels under another name mean that a file was moved.
    by_digest: dict[str, list[str]] = {}
    for name, (_, digest) in sorted(new.items()):
        by_digest.setdefault(digest, []).append(name)
    for name, (old_class, digest) in sorted(gone.items()):
        if others := by_digest.get(digest):
            new_class = new.pop(others.pop(0))[0]
            del gone[name]
            if new_class != old_class:
                moved[old_class, new_class] += 1
    lines = []
    for word, found in (("added", new), ("removed", gone)):
        for label, images in sorted(Counter(label for label, _ in found.values()).items()):
            lines.append(f"  {printable(label)}: {count(images, 'image')} {word}")
    lines += [
        f"  {printable(label)}: {count(images, 'image')} changed" for label, images in sorted(changed.items())
    ]
    lines += [
        f"  {count(images, 'image')} relabelled from {printable(old)} to {printable(new_label)}"
        for (old, new_label), images in sorted(moved.items())
    ]
    return lines
