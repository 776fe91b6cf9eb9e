"""Refuse pictures whose classes are unknown, with hints where the classes might be found."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from pipeline.data.batches import split_of
from pipeline.data.collect import Collected
from pipeline.data.formats.delimited import ENDINGS
from pipeline.data.table import is_example
from pipeline.errors import PipelineError

# The part before the number: "cat" in cat.0.jpg, "great_dane" in great_dane_12.png.
_NUMBERED = r"([^/]*[^/\d._ -])[._ -]*\d+\.\w+$"


def refuse_without_classes(collected: Collected, classes: Sequence[str]) -> None:
    """Refuse pictures with fewer than two classes, or whose classes are just the folders of splits."""
    splits = [name for name in classes if collected.is_set and split_of(name)]
    if len(classes) > 1 and len(splits) < len(classes):
        return
    why = "none of its images has a class"
    if splits:
        what = "which is a split, not a class" if len(splits) == 1 else "which are splits, not classes"
        why = f"its pictures are in {' and '.join(splits)}, {what}"
    elif classes:
        why = f"it has only one class, {classes[0]!r}, and a classifier needs at least two"
    raise PipelineError(
        f"{why}: put the images of each class into a folder of their own, or add a table metadata.csv with "
        f"the columns file_name and label{''.join(_hints(collected))}"
    )


def _hints(collected: Collected) -> Iterator[str]:
    """Yield sentences about tables and file names that may contain the classes."""
    names = [*collected.rows.names, *(name for name, _ in collected.rows.skipped)]
    if found := [name for name in names if name.endswith(ENDINGS) and not is_example(name)]:
        tables = " or ".join(sorted(found)[:3])
        yield f". If {tables} has the classes, give its folder, unpacked, or the file itself as the path"
    called = Counter(match[1] for name in names if (match := re.search(_NUMBERED, name)))
    if 2 <= len(called) <= called.total() / 2:
        yield (
            f". If file names contain the classes, such as {' and '.join(sorted(called)[:2])}, add "
            f"--set 'label_pattern={_NUMBERED}'"
        )
