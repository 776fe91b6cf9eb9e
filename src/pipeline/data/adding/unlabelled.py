"""Pictures of which nothing says the class: refused, with what may say it."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from pipeline.data.batches import split_of
from pipeline.data.collect import Collected
from pipeline.data.formats.delimited import ENDINGS
from pipeline.data.table import is_example
from pipeline.errors import PipelineError

# cat.0.jpg, great_dane_12.png: what stands before the number.
_NUMBERED = r"([^/]*[^/\d._ -])[._ -]*\d+\.\w+$"


def refuse_without_classes(collected: Collected, classes: Sequence[str]) -> None:
    """Where there are fewer than two classes, or the only ones are folders of splits.

    Args:
        collected: what was read.
        classes: those that have images.

    Raises:
        PipelineError: with what to do.
    """
    splits = [name for name in classes if collected.is_set and split_of(name)]
    if len(classes) > 1 and len(splits) < len(classes):
        return
    why = "it has no image in a class"
    if splits:
        why = f"its pictures lie in {' and '.join(splits)}, which say no class"
    elif classes:
        why = f"it has one class, {classes[0]!r}, and a classifier tells at least two apart"
    raise PipelineError(
        f"{why}: put the images of each class into a folder, or add a table, metadata.csv, with the columns "
        f"file_name and label{''.join(_hints(collected))}"
    )


def _hints(collected: Collected) -> Iterator[str]:
    names = [*collected.rows.names, *(name for name, _ in collected.skipped)]
    if found := [name for name in names if name.endswith(ENDINGS) and not is_example(name)]:
        tables = " or ".join(sorted(found)[:3])
        yield f". If {tables} says the classes, give its folder, unpacked, or the file itself as the path"
    called = Counter(match[1] for name in names if (match := re.search(_NUMBERED, name)))
    if 2 <= len(called) <= called.total() / 2:
        yield (
            f". If names say the classes, such as {' and '.join(sorted(called)[:2])}, add "
            f"--set 'label_pattern={_NUMBERED}'"
        )
