"""The pictures of an evaluation: PNG files with the same bytes for the same predictions.

All are as wide as MLflow shows them, so that their text is read unscaled.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from pipeline.evaluation.metrics import Floats, Ints, Predictions, calibrate, wilson
from pipeline.evaluation.style import (
    BLUE,
    GREY,
    INK,
    LIGHT_BLUE,
    LIGHT_ORANGE,
    ORANGE,
    PALE,
    STYLE,
    WIDTH,
    titled,
)
from pipeline.training.history import History


def draw(
    folder: Path,
    predictions: Predictions,
    images: NDArray[np.uint8],
    image_shape: tuple[int, ...],
    history: History,
    bins: int,
    worst: int,
    doubtful: Ints | None,
    most: int,
) -> None:
    """Write every figure of an evaluation into `folder`, which exists.

    Args:
        folder: where confusion_counts.png and the others go.
        predictions: of n images.
        images: uint8 (n, pixels), the images in the predictions' order.
        image_shape: (height, width) or (height, width, channels) of an image.
        history: the training's curves.
        bins: of the reliability diagram.
        worst: how many mistakes to show.
        doubtful: the indices of the images with doubtful labels, if they were looked for.
        most: how many of those to show.
    """
    # The reset keeps a user's matplotlibrc out of the files.
    with matplotlib.style.context(STYLE, after_reset=True):
        figures = {
            "confusion_counts": confusion_counts(predictions),
            "confusion_by_row": confusion_by_row(predictions),
            "learning_curves": learning_curves(history),
            "reliability": reliability(predictions, bins),
            "mistakes": mistakes(predictions, images, image_shape, worst),
        }
        if doubtful is not None:
            figures["doubtful_labels"] = doubtful_labels(predictions, images, image_shape, doubtful, most)
        for name, figure in figures.items():
            # Figure.savefig would draw it twice.
            canvas: Any = FigureCanvasAgg(figure)
            canvas.print_png(folder / f"{name}.png", metadata={"Software": None})


def confusion_counts(predictions: Predictions) -> Figure:
    """How many images of each class were taken for which."""
    counts, names = predictions.confusion, predictions.classes
    subtitle = "No mistakes"
    mistaken = counts - np.diag(np.diag(counts))
    if mistaken.any():
        true, predicted = np.unravel_index(mistaken.argmax(), mistaken.shape)
        times = f"{mistaken.max():,} times" if mistaken.max() > 1 else "once"
        subtitle = (
            f"Most frequent mistake: {_short(names[true])} taken for {_short(names[predicted])}, {times}"
        )
    figure = titled(7.4, f"Confusion: {_accuracy(predictions)}", subtitle)
    digits = len(str(counts.max()))
    _matrix(
        figure,
        counts.astype(np.float64),
        [[f"{count:,}" if count else "" for count in row] for row in counts],
        names,
        ticks=[0, *(10**power for power in range(max(digits - 4, 0), digits))],
        top=int(counts.max()),
        unit="images",
    )
    return figure


def confusion_by_row(predictions: Predictions) -> Figure:
    """Which share of each class's images was taken for which; grey where a class has no images."""
    counts, names = predictions.confusion, predictions.classes
    totals = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        percent = 100 * counts / totals[:, None]
    recall = np.diagonal(percent)
    hardest = int(np.nanargmin(recall))
    found = "no mistakes"
    if recall[hardest] < 100:
        of = _images(totals[hardest])
        found = f"hardest class: {_short(names[hardest])}, {recall[hardest]:.1f} % of {of} right"
    title = f"Where each class's images went: {_accuracy(predictions)}"
    figure = titled(7.4, title, f"Percent of each row; {found}")
    _matrix(
        figure,
        percent,
        [[_short_percent(share) for share in row] for row in percent],
        names,
        ticks=[0, 1, 5, 20, 50, 100],
        top=100,
        unit="% of the true class's images",
    )
    return figure


def learning_curves(history: History) -> Figure:
    """Loss and accuracy by epoch, in training and, if there was one, in validation."""
    epochs = [epoch.epoch for epoch in history.epochs]
    kept, validated = history.kept, history.kept.val_loss is not None
    accuracies = f"training accuracy {_percent(kept.accuracy)}"
    if kept.val_accuracy is not None:
        accuracies += f", validation {_percent(kept.val_accuracy)}"
    figure = titled(3.9, "Learning curves", f"The weights of epoch {kept.epoch} were kept: {accuracies}")
    for axes, column in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        marker = "o" if len(epochs) <= 30 else ""
        curves = [(column, "training", BLUE)] + [(f"val_{column}", "validation", ORANGE)] * validated
        for name, label, colour in curves:
            values = [getattr(epoch, name) for epoch in history.epochs]
            axes.plot(epochs, values, marker=marker, ms=4, color=colour, label=label)
        if kept.epoch != epochs[-1]:
            axes.axvline(kept.epoch, color=GREY, ls="--", lw=1, label=f"kept: epoch {kept.epoch}")
        axes.set(title=column.capitalize(), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.grid(visible=True)
    figure.axes[0].legend()
    figure.axes[1].yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return figure


def reliability(predictions: Predictions, bins: int) -> Figure:
    """Whether predictions made with 80 % confidence are right 80 % of the time, and how many there are."""
    calibration = calibrate(predictions, bins)
    filled = calibration.counts > 0
    counts = calibration.counts[filled]
    accuracy, confidence = calibration.accuracy[filled], calibration.confidence[filled]
    centres = (np.flatnonzero(filled) + 0.5) / bins
    width, few = 1 / bins, bins <= 50
    edge = 0.8 if few else 0

    figure = titled(
        6.8,
        f"Reliability: expected calibration error {_percent(calibration.error)}",
        f"Mean confidence {_percent(predictions.confidence.mean())}; {_accuracy(predictions)}",
    )
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.bar(centres, accuracy, width, color=LIGHT_BLUE, edgecolor="white", lw=edge, label="accuracy")
    above.bar(
        centres,
        confidence - accuracy,
        width,
        bottom=accuracy,
        facecolor="none" if few else LIGHT_ORANGE,
        edgecolor=ORANGE,
        hatch="////" if few else "",
        lw=edge,
        label="gap to confidence",
    )
    if few:
        low, high = wilson(np.rint(accuracy * counts).astype(np.int64), counts)
        above.vlines(centres, low, high, color=INK, lw=1.2, label="95 % interval")
    above.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1, label="perfect calibration")
    above.set(ylabel="accuracy", ylim=(0, 1.02))
    above.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    above.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=4, columnspacing=1.6)

    below.bar(centres, counts, width, color=LIGHT_BLUE, edgecolor="white", lw=edge)
    below.set(yscale="log", ylim=(0.7, max(2 * counts.max(), 15)), ylabel="images (log)")
    below.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    below.yaxis.set_minor_locator(NullLocator())
    below.set(xlabel="confidence of the prediction", xlim=(0, 1))
    below.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    for axes in (above, below):
        axes.grid(visible=True)
    return figure


def mistakes(
    predictions: Predictions, images: NDArray[np.uint8], image_shape: tuple[int, ...], worst: int
) -> Figure:
    """The errors that the model was surest of, at most `worst` of them; arguments as in `draw`."""
    wrong = np.flatnonzero(~predictions.correct)
    if not len(wrong):
        return _nothing(
            "The most confident mistakes", f"None: {_accuracy(predictions)}", "There are no mistakes to show."
        )
    surest = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:worst]
    title = "The only mistake" if len(wrong) == 1 else f"All {len(wrong):,} mistakes, most confident first"
    if len(surest) < len(wrong):
        title = f"The {len(surest):,} most confident of {len(wrong):,} mistakes"
    subtitle = f"true → predicted, with its confidence; {_accuracy(predictions)}"
    return _gallery(predictions, predictions.confidence, images, image_shape, surest, title, subtitle)


def doubtful_labels(
    predictions: Predictions,
    images: NDArray[np.uint8],
    image_shape: tuple[int, ...],
    doubtful: Ints,
    most: int,
) -> Figure:
    """The images whose labels are probably wrong, at most `most` of them; arguments as in `draw`."""
    if not len(doubtful):
        return _nothing("Doubtful labels", "None was found", "There are no doubtful labels to show.")
    shown = doubtful[:most]
    title = f"The {len(shown):,} most doubtful of {len(doubtful):,} doubtful labels"
    if len(shown) == len(doubtful):
        title = f"All {len(doubtful):,} doubtful labels" if len(doubtful) > 1 else "The only doubtful label"
    given = predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels]
    subtitle = f"label → suggested, with the label's probability; {_accuracy(predictions)}"
    return _gallery(predictions, given, images, image_shape, shown, title, subtitle)


def _nothing(title: str, subtitle: str, text: str) -> Figure:
    figure = titled(2.4, title, subtitle)
    figure.text(0.5, 0.4, text, ha="center", color=GREY, size=13)
    return figure


def _gallery(
    predictions: Predictions,
    shares: Floats,
    images: NDArray[np.uint8],
    image_shape: tuple[int, ...],
    chosen: Ints,
    title: str,
    subtitle: str,
) -> Figure:
    """The chosen images in rows; above each the true and the predicted class, and its share in percent."""
    most = 8 if max(map(len, predictions.classes)) <= 6 else 6
    columns = int(np.clip(np.ceil(np.sqrt(1.5 * len(chosen))), 4, most))
    captions = _captions(predictions, shares, chosen, 104 // columns)
    # All in inches.
    above, caption, gap, margin = 0.8, 0.17 * (captions[0].count("\n") + 1), 0.08, 0.12
    column = (WIDTH - 2 * margin + gap) / columns
    width = column - gap
    height = width * image_shape[0] / image_shape[1]
    row = caption + height + gap
    figure = titled(above + -(-len(chosen) // columns) * row + 0.05, title, subtitle)
    # One pair of axes for all images takes a fifth of the time of a pair for each.
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    for place, (i, text) in enumerate(zip(chosen, captions, strict=True)):
        left, top = margin + place % columns * column, above + place // columns * row + caption
        axes.text(left + width / 2, top - 0.04, text, size=9, ha="center", va="bottom")
        axes.imshow(
            images[i].reshape(image_shape),
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="nearest",
            extent=(left, left + width, top + height, top),
        )
    axes.set(xlim=(0, figure.get_figwidth()), ylim=(figure.get_figheight(), 0))
    axes.set_axis_off()
    return figure


def _captions(predictions: Predictions, shares: Floats, chosen: Ints, characters: int) -> list[str]:
    """Such as "4 → 9 99.8 %", in as few lines as fit, the same number for every image."""
    names = [_short(name, characters - 2) for name in predictions.classes]
    captions = []
    for layout in ("{} → {}   {:.1f} %", "{} → {}\n{:.1f} %", "{}\n→ {}\n{:.1f} %"):
        captions = [
            layout.format(names[predictions.labels[i]], names[predictions.predicted[i]], 100 * shares[i])
            for i in chosen
        ]
        if all(len(line) <= characters for caption in captions for line in caption.splitlines()):
            break
    return captions


def _matrix(
    figure: Figure,
    values: Floats,
    texts: Sequence[Sequence[str]],
    names: Sequence[str],
    *,
    ticks: Sequence[float],
    top: int,
    unit: str,
) -> None:
    """Square cells coloured from 0 to `top`, true classes down, predicted across; a scale if no text fits."""
    axes = figure.subplots()
    axes.set_anchor("N")
    # On a linear scale the mistakes of a good model would all be white.
    norm = PowerNorm(0.35, vmin=0, vmax=top)
    colours = matplotlib.colormaps["Blues"].with_extremes(bad=PALE)
    picture = axes.imshow(values, cmap=colours, norm=norm)
    cell = 5.2 / len(names)  # Inches, about.
    longest = max(len(text) for row in texts for text in row)
    size = min(11.0, 72 * 0.85 * cell / (0.6 * max(longest, 2)))
    if size >= 6:
        dark = norm(values) > 0.6
        for row, column in np.argwhere(np.array(texts) != ""):
            axes.text(
                column,
                row,
                texts[row][column],
                ha="center",
                va="center",
                size=size,
                color="white" if dark[row, column] else INK,
                in_layout=False,  # They fit; measuring each takes long.
            )
    else:
        beside = axes.inset_axes((1.03, 0, 0.03, 1))
        bar = figure.colorbar(picture, cax=beside, label=unit, ticks=list(ticks), format="{x:,.0f}")
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)
    _name_classes(axes, names, cell)
    axes.set(xlabel="predicted class", ylabel="true class")


def _name_classes(axes: Axes, names: Sequence[str], cell: float) -> None:
    """Label both axes with the classes, with as many of the names as can be read."""
    every = -(-len(names) // 34)
    shown = range(0, len(names), every)
    labels = [_short(names[i]) for i in shown]
    size = 10 if len(names) <= 20 else 8
    widest = max(map(len, labels)) * 0.6 * size / 72
    rotation = 0 if widest < cell * every else 45 if len(labels) <= 20 else 90
    axes.set_yticks(shown, labels, size=size)
    axes.set_xticks(
        shown,
        labels,
        size=size,
        rotation=rotation,
        ha="right" if rotation == 45 else "center",
        rotation_mode="anchor" if rotation == 45 else "default",
    )
    axes.tick_params(length=0 if every == 1 else 3)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _short(name: str, characters: int = 20) -> str:
    return name if len(name) <= characters else name[: characters - 1] + "…"


def _accuracy(predictions: Predictions) -> str:
    return f"{_percent(predictions.correct.mean())} of {_images(len(predictions.labels))} right"


def _images(count: int) -> str:
    return f"{count:,} test image{'s' if count != 1 else ''}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _short_percent(percent: float) -> str:
    """Three digits at most; nothing for what is zero or unknown."""
    if not percent > 0:
        return ""
    return "100" if percent > 99.95 else f"{percent:.1f}"
