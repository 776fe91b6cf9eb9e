"""Draw the learning curve: what more training images bring."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from pipeline.plots.style import BLUE, GREY, INK, LIGHT_BLUE, ORANGE, titled
from pipeline.plots.text import shortened
from pipeline.results.learning_curve import Curve

_MOST = 4  # curves
_COLOURS = (BLUE, ORANGE, GREY, LIGHT_BLUE)


def learning_curve(curves: Sequence[Curve]) -> Figure:
    """Draw the errors by the share of the training images, the law, and the forecast for twice the images.

    The forecast is a hollow point; a curve without a forecast has none.
    """
    shown = curves[:_MOST]
    title = f"{curves[0].objective} by the share of the training images"
    subtitle = "No law: that takes three shares, each with an error"
    if curves[0].is_scattered:
        subtitle = "No forecast: the results vary by more than twice the images would bring"
    elif (twice := curves[0].expected(2 * curves[0].shares[-1])) is not None:
        subtitle = (
            f"Twice the images (hollow): {curves[0].value(twice)} is expected; the error goes with their "
            f"number to the power of {curves[0].exponent:.2f}"
        )
    figure = titled(4.6, title, subtitle)
    axes = figure.subplots()
    shares = sorted({share for curve in shown for share in curve.shares})
    ticks = {share: f"{share:g}" for share in shares}
    for curve, colour in zip(shown, _COLOURS, strict=False):
        spreads = [spread or 0.0 for spread in curve.spreads]
        axes.errorbar(
            curve.shares,
            curve.errors,
            spreads,
            fmt="o",
            color=colour,
            ms=6,
            capsize=3,
            lw=1.2,
            label=shortened(curve.label, 40) or "mean and standard deviation over the seeds",
        )
        twice = 2 * curve.shares[-1]
        if (expected := curve.expected(twice)) is not None:
            along = np.geomspace(curve.shares[0], curve.shares[-1] if curve.is_scattered else twice, 50)
            axes.plot(along, [curve.expected(share) or 0.0 for share in along], color=colour, lw=1.4, ls="--")
        if expected is not None and not curve.is_scattered:
            axes.plot(twice, expected, "o", color=colour, ms=8, mfc="white", mew=1.8)
            axes.annotate(
                curve.value(expected),
                (twice, expected),
                (-8, 10),
                textcoords="offset points",
                ha="right",
                size=10,
                color=INK,
            )
            ticks[twice] = f"{twice:g}"
    positive = all(error > 0 for curve in shown for error in curve.errors)
    axes.set(xscale="log", yscale="log" if positive else "linear", xlabel="share of the training images")
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: ticks.get(share, f"{share:g}")))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    low, high = axes.get_ylim()
    places = [place for place in MaxNLocator(6).tick_values(low, high) if low <= place <= high]
    if positive and high > 6 * low:
        places = _round_numbers(low, high)
    axes.yaxis.set_major_locator(FixedLocator(places))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: curves[0].value(error)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(FixedLocator([]))
    # Better results are further up, as in the other figures.
    if curves[0].objective != "val_loss":
        axes.invert_yaxis()
    axes.set_ylabel(curves[0].objective)
    axes.grid(visible=True)
    axes.legend(loc="best")
    return figure


def _round_numbers(low: float, high: float) -> list[float]:
    """Return one, two and five times the powers of ten between the bounds."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [
        step * 10.0**decade for decade in decades for step in (1, 2, 5) if low <= step * 10.0**decade <= high
    ]
