"""Compare runs: how they differ, what each reached, and whether the difference is more than chance."""

import re
from collections.abc import Sequence

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.console import percent, table, terminal_width
from pipeline.errors import PipelineError
from pipeline.evaluation.metrics import wilson
from pipeline.evaluation.significance import show_p
from pipeline.plots.text import shortened
from pipeline.results.lookup import TEST_PINS, Evaluated, look_up
from pipeline.results.predictions import mcnemar_of, same_labels
from pipeline.tracking.mlflow_run import TEST_TAG

_VALIDATION = ("best_val_accuracy", "best_val_loss")
_TEST = ("test_accuracy", "test_nll", "test_ece", "test_macro_f1", "test_errors", "test_tta_accuracy")
# The setting of the evaluation that a metric depends on.
_SETTING = {"test_ece": "evaluate.calibration_bins", "test_tta_accuracy": "evaluate.tta_shift"}
LEVEL = 0.05  # of significance
_LEAST = 14  # characters that a column needs; columns that do not fit go into a further table
_LONGEST = 80  # characters of a value that are shown


def compare(names: Sequence[str], tracking: TrackingSection, repository: Workspace) -> list[str]:
    """Compare two or more runs, and return the lines to print, as wide as the terminal.

    The names are those of runs or of a sweep, as in `look_up`.

    Raises:
        PipelineError: If a run is not found or was not evaluated, or if there are fewer than two.
    """
    runs = look_up(names, tracking, repository)
    if len(runs) < 2:
        raise PipelineError("There is only one run to compare: name another, or a sweep.")
    params = dict.fromkeys(key for run in runs for key in run.params)
    # After a later evaluation the test images may be the same although the configurations pin different ones.
    one_test = len({run.tags.get(TEST_TAG) for run in runs}) == 1
    hidden = ("tracking.", TEST_PINS) if one_test else ("tracking.",)
    rows = [
        (key, [_brief(run.params.get(key, "–")) for run in runs])
        for key in params
        if not key.startswith(hidden) and len({run.params.get(key) for run in runs}) > 1
    ]
    # Metrics of evaluations with different settings can't be compared.
    differ = {key for key, _ in rows}
    rows += [
        (key.removeprefix("best_"), [_value(key, run) for run in runs])
        for key in (*_VALIDATION, *_TEST)
        if _SETTING.get(key) not in differ and any(key in run.metrics for run in runs)
    ]
    lines = _tables([run.name for run in runs], rows)
    first, *others = runs
    # As in a sweep over preprocess.validation_split: the run with the easier images would seem better.
    if len({run.tags.get("data.validation") for run in runs}) > 1:
        lines += ["", "Their validation images differ: val_accuracy and val_loss can't be compared."]
    return [*lines, "", *(_verdict(first, other, len(others)) for other in others)]


def _tables(names: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Format the rows below the names, in as many tables as the width of the terminal requires."""
    keys = max(len(key) for key, _ in rows) if rows else 0
    at_once = max(1, (terminal_width() - keys) // (_LEAST + 2))
    lines: list[str] = []
    for start in range(0, len(names), at_once):
        shown = slice(start, start + at_once)
        lines += [""] if start else []
        lines += table(("", *names[shown]), [(key, *values[shown]) for key, values in rows])
    return lines


def _brief(value: str) -> str:
    """Shorten a long value or digest for display."""
    if re.fullmatch("[0-9a-f]{64}", value):
        return value[:8]
    return shortened(value, _LONGEST)


def _value(key: str, run: Evaluated) -> str:
    """Format a metric, with its 95 % interval if it is an accuracy."""
    value = run.metrics.get(key)
    if value is None:
        return "–"
    if key == "test_errors":
        return f"{value:,.0f}"
    if not key.endswith("accuracy"):
        return f"{value:.4f}"
    if key.startswith("test_"):
        return accuracy_text(value, run.metrics[f"{key}_low"], run.metrics[f"{key}_high"])
    images = int(run.tags.get("data.validation.images", 0))
    return accuracy_text(value, *wilson(round(value * images), images) if images else (None, None))


def accuracy_text(value: float, low: float | None, high: float | None) -> str:
    """Format an accuracy with its interval, if that is known: "97.50 % (97.18 to 97.79)"."""
    interval = "" if low is None or high is None else f" ({100 * low:.2f} to {100 * high:.2f})"
    return percent(value) + interval


def _verdict(first: Evaluated, second: Evaluated, tests: int) -> str:
    """Describe the result of the paired test, with Bonferroni's correction for the number of `tests`."""
    pair = f"{first.name} and {second.name}"
    tests_of = {run.tags.get(TEST_TAG) for run in (first, second)}
    if len(tests_of) > 1 or not same_labels(first.predictions, second.predictions):
        return f"{pair} were evaluated on different test images: no test can pair them."
    outcome = mcnemar_of(first.predictions, second.predictions)
    if not outcome.only_first + outcome.only_second:
        images = len(first.predictions)
        return f"{pair} are right on the same of {images:,} test images: nothing tells them apart."
    p = min(1.0, outcome.p * tests)
    corrected = f", times {tests} for as many tests" if tests > 1 else ""
    seen = (
        f"Of {len(first.predictions):,} test images, {outcome.only_first:,} only {first.name} gets right and "
        f"{outcome.only_second:,} only {second.name} ({show_p(p)}, McNemar's exact test{corrected}): "
    )
    if p < LEVEL:
        better = first if outcome.only_first > outcome.only_second else second
        return f"{seen}{better.name} is better, by more than chance would explain."
    return f"{seen}equal models often differ as much by chance, so neither is shown to be better."
