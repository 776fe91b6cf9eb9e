"""Loss and accuracy by epoch."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.console import percent
from pipeline.plots.evaluated import Evaluated
from pipeline.plots.style import BLUE, GREY, ORANGE, titled


def draw(evaluated: Evaluated) -> Figure:
    """Draw the curves of training and, if there are validation images, of validation."""
    history = evaluated.history
    epochs = [epoch.epoch for epoch in history.epochs]
    best, validated = history.best, history.best.val_loss is not None
    accuracies = f"training accuracy {percent(best.train_accuracy)}"
    if best.val_accuracy is not None:
        accuracies += f", validation {percent(best.val_accuracy)}"
    figure = titled(3.9, "Learning curves", f"The model has the weights of epoch {best.epoch}: {accuracies}")
    for axes, column in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        marker = "o" if len(epochs) <= 30 else ""
        curves = [(f"train_{column}", "training", BLUE)] + [
            (f"val_{column}", "validation", ORANGE)
        ] * validated
        for name, label, colour in curves:
            values = [getattr(epoch, name) for epoch in history.epochs]
            axes.plot(epochs, values, marker=marker, ms=4, color=colour, label=label)
        if best.epoch != epochs[-1]:
            axes.axvline(best.epoch, color=GREY, ls="--", lw=1, label=f"best: epoch {best.epoch}")
        axes.set(title=column.capitalize(), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.grid(visible=True)
    figure.axes[0].legend()
    # If all are 0 or 1, there would be ticks below 0 or above 100 %.
    low, high = figure.axes[1].get_ylim()
    seen = [tick for tick in figure.axes[1].get_yticks() if low <= tick <= high]
    if min(seen) < 0 or max(seen) > 1:
        figure.axes[1].set_yticks([tick for tick in seen if -1e-9 < tick < 1 + 1e-9])
    figure.axes[1].yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return figure
