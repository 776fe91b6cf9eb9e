"""Two runs side by side: how they differ, what each reached, whether the difference is more than chance."""

from typing import Any

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.evaluation.metrics import wilson
from pipeline.evaluation.significance import mcnemar
from pipeline.results.lookup import Evaluated, look_up

_VALIDATION = ("val_accuracy", "val_loss")
_TEST = ("test_accuracy", "test_nll", "test_ece", "test_macro_f1", "test_errors")
_LEVEL = 0.05  # at which a difference is called one


def compare(names: tuple[str, str], tracking: TrackingSection, repository: Workspace) -> list[str]:
    """The lines to show of two runs.

    Args:
        names: of the runs: their names or ids in MLflow, or unique beginnings of these.
        tracking: names the store.
        repository: whose store it is, if it is a local one.

    Raises:
        PipelineError: a run is not found, or was not evaluated.
    """
    first, second = runs = look_up(names, tracking, repository)
    params = dict.fromkeys([*first.params, *second.params])
    rows: list[tuple[str, ...]] = [("", first.name, second.name)]
    rows += [
        (key, *(run.params.get(key, "–") for run in runs))
        for key in params
        if first.params.get(key) != second.params.get(key)
    ]
    rows += [
        (key, *(_value(key, run) for run in runs))
        for key in (*_VALIDATION, *_TEST)
        if key in first.metrics or key in second.metrics
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return [*("  ".join(row).rstrip() for row in padded), "", _verdict(first, second)]


def _value(key: str, run: Evaluated) -> str:
    """A metric, with its 95 % interval if it is an accuracy."""
    value = run.metrics.get(key)
    if value is None:
        return "–"
    if key == "test_errors":
        return f"{value:,.0f}"
    if not key.endswith("accuracy"):
        return f"{value:.4f}"
    if key == "test_accuracy":
        return _with_interval(value, run.metrics["test_accuracy_low"], run.metrics["test_accuracy_high"])
    images = int(run.tags.get("data.validation.images", 0))
    return _with_interval(value, *wilson(round(value * images), images)) if images else _percent(value)


def _verdict(first: Evaluated, second: Evaluated) -> str:
    """The paired test, and what it means."""
    labels, others = ([label for label, _ in run.predictions] for run in (first, second))
    if labels != others or first.tags.get("data.test") != second.tags.get("data.test"):
        return "They were judged by different test images, so no test can pair their predictions."
    found = mcnemar(first.right, second.right)
    if not found.only_first + found.only_second:
        return f"Both are right on the same of {len(labels):,} test images: nothing tells them apart."
    seen = (
        f"Of {len(labels):,} test images, {found.only_first:,} only {first.name} gets right and "
        f"{found.only_second:,} only {second.name} (p = {found.p:.2g}, McNemar's exact test): "
    )
    if found.p < _LEVEL:
        better = first if found.only_first > found.only_second else second
        return f"{seen}{better.name} is better, by more than chance would explain."
    return f"{seen}chance alone would often part equal models as far, so neither is shown to be better."


def _with_interval(value: float, low: Any, high: Any) -> str:
    return f"{_percent(value)} ({100 * low:.2f} to {100 * high:.2f})"


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
