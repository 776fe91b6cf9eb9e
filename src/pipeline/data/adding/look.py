"""Read a whole source: what it contains, and what is to be pinned of it."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.artifacts.workspace import RAW_ARRAYS, Workspace
from pipeline.config.schema import DataSection
from pipeline.console import count
from pipeline.data.adding import report
from pipeline.data.adding.index import Index
from pipeline.data.adding.options import AddOptions, reader_of
from pipeline.data.adding.space import refuse_if_too_large
from pipeline.data.adding.survey import survey
from pipeline.data.adding.unlabelled import refuse_without_classes
from pipeline.data.arrays import canonical
from pipeline.data.batches import Listing, LocalSource
from pipeline.data.collect import Collected, arranged, collect, limits_for, sides_of
from pipeline.data.formats.npy import write_npy
from pipeline.errors import PipelineError

_TEST_FRACTION = 0.2
_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Found:
    """What was found in a source."""

    data: DataSection
    collected: Collected
    labels: NDArray[np.int32]
    sides: NDArray[np.int8]  # 0: training, 1: validation, 2: test
    sizes: str

    @property
    def index(self) -> dict[str, list[str]]:
        """{image: [class, digest]}, for a source of files."""
        if not self.collected.is_set:
            return {}
        digests = [bytes(digest).hex() for digest in self.collected.digests]
        classes = [self.data.classes[label] for label in self.labels]
        return {
            name: [label, digest]
            for name, label, digest in zip(self.collected.rows.names, classes, digests, strict=True)
        }

    @property
    def what(self) -> str:
        """A short description."""
        kind, classes = self.data.sources[0].kind, len(self.data.classes)
        described = f", {self.collected.description}" if self.collected.description else ""
        return f"{count(len(self.labels), 'image')} in {classes:,} classes ({kind}{described})"

    def lines(self, path: str) -> Iterator[str]:
        """Yield the lines of a human-readable description."""
        yield f"{path}: {self.what}."
        yield from report.split_table(self.data.classes, self.labels, self.sides)
        yield self.sizes
        reader = self.data.reader
        height, width = reader.image_size
        yield f"They become images of {height}×{width} pixels, {reader.colour} ({reader.resize})."
        yield from report.skipped(self.collected)
        yield from report.duplicates(self.collected, self.data.classes, self.labels, self.sides)


def look(
    options: AddOptions, values: dict[str, Any], workspace: Workspace, index: Index | None, *, fresh: bool
) -> Found:
    """Read the whole source, and determine what is to be pinned.

    `index` is the source when it was pinned, if that is known; `fresh` says that no earlier file in conf/data
    is being updated.

    Raises:
        PipelineError: If the source can't be read, or no classifier could be trained on it.
    """
    data, home, listing = DataSection.model_validate(values), workspace.home, Listing()
    source = data.sources[0]
    assert isinstance(source, LocalSource)
    batches = importlib.import_module(f"pipeline.data.sources.{source.kind}").batches
    try:
        seen = survey(batches(source, data, home, listing), listing, data.reader)
        found = {"image_size": list(seen.image_size), "colour": seen.colour} if fresh else {}
        values = values | {"reader": values["reader"] | found | reader_of(options)}
        data = DataSection.model_validate(values)
        if fresh or options.image_size:
            refuse_if_too_large(seen.sizes.total(), data.reader, home)
        collected = collect(batches, source, data, home, total=seen.total)
        return _pinned(options, values, collected, seen.description, index)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise PipelineError(f"{source.path}: its {where} is not valid: {fault['msg']}") from None
    except PipelineError as error:
        said = str(error)
        raise PipelineError(said if source.path in said else f"{source.path}: {said}") from None


def _pinned(
    options: AddOptions, values: dict[str, Any], collected: Collected, sizes: str, index: Index | None
) -> Found:
    """Pin the order of the classes, the rule for test images, and the digests of the raw arrays."""
    source = values["sources"][0]
    known = values["classes"] if values["sha256"] else []
    there = set(collected.classes)
    classes = [name for name in known if name in there]
    classes += [name for name in collected.classes if name not in set(known)]
    if not known or len(classes) < 2:
        refuse_without_classes(collected, classes)
    if len(classes) > _MOST_CLASSES:
        raise PipelineError(f"it has {len(classes):,} classes, more than {_MOST_CLASSES:,}")
    labels = collected.labels_in(classes)
    below: list[float] | None = None
    fraction = options.test_fraction or source.get("test_fraction") or _TEST_FRACTION
    if not (collected.splits == 2).any():
        below = limits_for(collected, labels, len(classes), fraction)
        before = source.get("test_below") or []
        # If a person edited the classes, it is not known which limit is whose.
        if options.test_fraction is None and len(before) == len(known) and _are_known(collected, index):
            # Adding images must not move any other image from training to test or back.
            limits = dict(zip(known, before, strict=True))
            below = [limits.get(name, limit) for name, limit in zip(classes, below, strict=True)]
    sides = sides_of(collected, labels, below)
    _refuse_without_images(classes, labels, sides, collected)
    pinned = canonical(arranged(collected, labels, sides), classes, collected.rows.shape)
    # Limits are chosen again for new classes, and for all of them if the reader changes.
    asked = None if below is None or fraction == _TEST_FRACTION else fraction
    first = source | {"images": len(labels), "test_below": below, "test_fraction": asked}
    if collected.numbers is not None:
        numbers = dict(zip(collected.classes, collected.numbers, strict=True))
        first["labels"] = [numbers[name] for name in classes]
    values = values | {
        "classes": classes,
        "sources": [first, *values["sources"][1:]],
        "validation_images": int((sides == 1).sum()),
        "sha256": {name: write_npy(pinned[name]) for name in RAW_ARRAYS},
    }
    return Found(DataSection.model_validate(values), collected, labels, sides, sizes)


def _are_known(collected: Collected, index: Index | None) -> bool:
    """Check whether any image is unchanged; with another reader all change, and are split from scratch."""
    if index is None or not index.images:
        return True
    before = {digest for _, digest in index.images.values()}
    return any(bytes(digest).hex() in before for digest in collected.digests)


def _refuse_without_images(
    classes: list[str], labels: NDArray[np.int32], sides: NDArray[np.int8], collected: Collected
) -> None:
    trained = np.bincount(labels[sides == 0], minlength=len(classes))
    if not trained.all():
        raise PipelineError(f"the class {classes[int(trained.argmin())]!r} has no training image: add some")
    if not (sides == 2).any():
        different = len(np.unique(collected.digests))
        if different <= len(classes) < len(labels):
            raise PipelineError(
                f"there are no test images: the {len(labels):,} images are copies of {different:,}, and "
                "copies are never divided; add different ones"
            )
        raise PipelineError(
            "there are no test images: the classes are too small for --test-fraction; raise it, or add images"
        )
