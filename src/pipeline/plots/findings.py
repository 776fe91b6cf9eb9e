"""Figures of a data set: how many images each class has, and images that should be checked."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.artifacts.processed import FINDINGS
from pipeline.data.findings import Finding
from pipeline.plots.rows import in_rows
from pipeline.plots.style import BLUE, GREY, LIGHT_BLUE, ORANGE, titled
from pipeline.plots.text import shortened

_COLUMNS, _MOST = 6, 24  # images in a row, and that a figure shows
_MOST_CLASSES = 40
_COLOURS = {"train": BLUE, "validation": LIGHT_BLUE, "test": ORANGE}


@dataclass(frozen=True, eq=False)
class Shown:
    """An image to show, uint8 (pixels,), with the reason and its class."""

    image: NDArray[np.uint8]
    finding: Finding
    label: str


def balance(counts: Mapping[str, Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw a bar for each of at most 40 classes, with its number of images by split.

    For each split, `counts` has the number of images of each class, in the order of the labels.
    """
    per_class = np.array([counts[split] for split in counts])
    train = per_class[0]
    # Of many classes, the smallest and the largest matter most.
    order = np.argsort(train, kind="stable")
    shown = np.sort(order if len(order) <= _MOST_CLASSES else np.r_[order[:20], order[-20:]])
    title = f"{per_class.sum():,} images in {len(classes):,} classes"
    rarest, largest = int(train.argmin()), int(train.argmax())
    subtitle = (
        f"Training images: from {train[rarest]:,} (class {shortened(classes[rarest], 20)}) "
        f"to {train[largest]:,} (class {shortened(classes[largest], 20)})"
    )
    figure = titled(2 + 0.24 * len(shown), title, subtitle)
    axes = figure.subplots()
    left = np.zeros(len(shown))
    for split, of in zip(counts, per_class, strict=True):
        if of.any():
            axes.barh(np.arange(len(shown)), of[shown], 0.75, left, color=_COLOURS[split], label=split)
        left += of[shown]
    axes.set_yticks(np.arange(len(shown)), [shortened(classes[at], 24) for at in shown])
    extremes = f" of the {len(shown)} classes with the fewest and the most"
    axes.set(xlabel="images" + extremes * (len(shown) < len(classes)), ylim=(len(shown) - 0.4, -0.6))
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def near_pairs(
    show: Callable[[Finding], Shown],
    found: Iterable[Finding],
    test_images: int,
    is_complete: bool,
    image_shape: tuple[int, ...],
) -> Figure:
    """Draw the test images that nearly equal a training image, each before that image, the closest first.

    `show` returns the image of a finding, of the given shape; `is_complete` says whether all candidate pairs
    were compared.
    """
    near = [each for each in found if each.kind == "near_duplicate"]
    shown = [show(each) for each in near[:_MOST]]
    number = len(near) // 2
    title = f"{number:,} of {test_images:,} test images nearly equal a training image"
    captions = [f"{each.finding.split}: {each.label}" for each in shown]
    if not is_complete:
        title = f"At least {title}"
    closest = f"The closest {len(shown) // 2} pairs" if number > len(shown) // 2 else "Pairs"
    subtitle = f"{closest}, by the correlation of their pixels; equal images are not among them"
    return _pictures(shown, captions, image_shape, title, subtitle)


def outliers(
    show: Callable[[Finding], Shown], found: Iterable[Finding], image_shape: tuple[int, ...]
) -> Figure:
    """Draw images that are unusually bright, dark or empty, or whose pictures are unusually large or small.

    `show` returns the image of a finding, of the given shape: (height, width) or (height, width, channels).
    """
    kinds = ("one_colour", "brightness", "size")
    of_kind = [[each for each in found if each.kind == kind] for kind in kinds]
    # The kinds take turns, so that one with many images leaves room for the others.
    turns = [each for row in zip_longest(*of_kind) for each in row if each][:_MOST]
    shown = [show(each) for each in sorted(turns, key=lambda each: kinds.index(each.kind))]
    # The value comes first, since a long name of a class is cut.
    captions = [
        f"{'level ' if each.finding.kind != 'size' else ''}{each.finding.value}: {each.label}"
        for each in shown
    ]
    number = len({(each.split, each.index) for of in of_kind for each in of})
    title = f"{number:,} image{'s are' if number != 1 else ' is'} unlike most others"
    counts = [f"{len(of):,} {FINDINGS[kind]}" for kind, of in zip(kinds, of_kind, strict=True) if of]
    return _pictures(shown, captions, image_shape, title, ", ".join(counts) or "By brightness and size")


def _pictures(
    shown: Sequence[Shown],
    captions: Sequence[str],
    image_shape: tuple[int, ...],
    title: str,
    subtitle: str,
) -> Figure:
    """Draw images in rows with a line of text above each; if there are none, a figure that says so."""
    if not shown:
        figure = titled(1.6, title, subtitle)
        figure.text(0.5, 0.2, "none found", ha="center", color=GREY, size=13)
        return figure
    return in_rows(
        [each.image for each in shown],
        [shortened(text, 20) for text in captions],
        image_shape,
        title,
        subtitle,
        columns=_COLUMNS,
        caption=0.2,
        gap=0.1,
        size=8,
    )
