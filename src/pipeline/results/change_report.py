"""Report what changed since a commit, in Markdown for a pull request, a job summary or a terminal."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts.workspace import SPLITS, Workspace
from pipeline.evaluation.significance import show_p
from pipeline.plots.text import shortened
from pipeline.results.change import Side, changed_stages, of_commit, of_workspace
from pipeline.results.compare import LEVEL, accuracy_text
from pipeline.results.predictions import mcnemar_of, same_labels
from pipeline.tracking.occasion import label_of

_ROWS = 30  # of a table, so that a report is small enough for a comment
_CONFUSIONS = 5
_POINTS = 60  # of a curve, at most
_LONGEST = 120  # characters of a value that are shown
_COLOURS = """%%{init: {"themeVariables": {"xyChart": {"plotColorPalette": "#4e79a7, #f28e2b"}}}}%%"""


def report(base: str, workspace: Workspace) -> str:
    """Compare the workspace after `dvc repro` with a commit, as Markdown of at most 60 KB.

    The commit `base` is any revision that git understands.

    Raises:
        PipelineError: If there is no such commit, or it has no dvc.lock.
    """
    with tempfile.TemporaryDirectory() as folder:
        old, new = of_commit(base, workspace, Path(folder)), of_workspace(workspace)
        parts = (_results, _verdict, _configuration, _data, _stages, _confusions, _curves)
        texts = [f"# What changed since {old.name}", *(part(old, new) for part in parts), *_missing(old, new)]
    return "\n\n".join(filter(None, texts)) + "\n"


def _results(old: Side, new: Side) -> str:
    rows: list[tuple[str, Callable[[Side], str]]] = [
        ("test accuracy", lambda side: _accuracy(side, "test_accuracy")),
        ("validation accuracy", lambda side: _accuracy(side, "val_accuracy")),
        ("training accuracy", lambda side: _accuracy(side, "train_accuracy")),
        ("test NLL", lambda side: _number(side.metrics.get("test_nll"))),
        ("test calibration error", lambda side: _number(side.metrics.get("test_ece"))),
        ("test macro F1", lambda side: _number(side.metrics.get("test_macro_f1"))),
        ("parameters", lambda side: _result(side, "parameters")),
        ("epochs", lambda side: _result(side, "epochs")),
        ("weights", lambda side: str(side.metrics.get("weights_sha256", "–"))[:12]),
        ("run", lambda side: label_of(side.run, side.occasions)),
        ("training, CPU seconds", _cost),
        ("reproduced", _reproduced),
    ]
    found = [(name, of(old), of(new)) for name, of in rows]
    return _table(("", old.name, new.name), [row for row in found if row[1:] != ("–", "–")])


def _verdict(old: Side, new: Side) -> str:
    """Describe the result of the paired test on the same images."""
    before, after = old.predictions, new.predictions
    if not before or not after:
        return ""
    digests = [side.dataset.get("sha256", {}).get("test") for side in (old, new)]
    if digests[0] != digests[1] or not same_labels(before, after):
        return "The test images differ: no test can pair the results."
    outcome = mcnemar_of(before, after)
    if not outcome.only_first + outcome.only_second:
        return f"Of {len(before):,} test images, both get the same ones right."
    verdict = "neither is shown to be better"
    if outcome.p < LEVEL:
        effect = "**better**" if outcome.only_second > outcome.only_first else "**worse**"
        verdict = f"the change makes the model {effect}, by more than chance would explain"
    return (
        f"Of {len(before):,} test images, {outcome.only_first:,} are no longer right and "
        f"{outcome.only_second:,} are right now ({show_p(outcome.p)}, McNemar's exact test): {verdict}."
    )


def _configuration(old: Side, new: Side) -> str:
    both = [(key, old.values.get(key, "–"), new.values.get(key, "–")) for key in {**old.values, **new.values}]
    rows = [(f"`{key}`", _value(before), _value(after)) for key, before, after in both if before != after]
    return _section("Configuration", _table(("key", old.name, new.name), rows), "No value changed.")


def _data(old: Side, new: Side) -> str:
    rows = []
    for split in SPLITS:
        counts, digests = (
            [str(side.dataset.get(key, {}).get(split, "–")) for side in (old, new)]
            for key in ("counts", "sha256")
        )
        if counts != counts[::-1] or digests != digests[::-1]:
            shown = [_images(side, split) for side in (old, new)]
            rows.append((split, *shown))
    instead = "The images are the same." if old.dataset and new.dataset else ""
    return _section("Data", _table(("images", old.name, new.name), rows), instead)


def _stages(old: Side, new: Side) -> str:
    return _section("Stages", _table(("stage", "what changed", "its result"), changed_stages(old, new)), "")


def _confusions(old: Side, new: Side) -> str:
    before, after = old.confusions, new.confusions
    # Other classes, as of another data set, can't be confused: their zeros would look like an improvement.
    classes = {label for label, _ in old.predictions} & {label for label, _ in new.predictions}
    change = {pair: after[pair] - before[pair] for pair in {**before, **after} if classes.issuperset(pair)}
    most = sorted((pair for pair in change if change[pair]), key=lambda pair: (-abs(change[pair]), pair))
    if not most:
        return ""
    rows = [
        (f"{label} taken for {taken}", before[label, taken], after[label, taken])
        for label, taken in most[:_CONFUSIONS]
    ]
    return _section("The confusions that changed most", _table(("", old.name, new.name), rows), "")


def _curves(old: Side, new: Side) -> str:
    """Return the losses as a Mermaid chart, which is text and which GitHub draws."""
    losses = [
        [epoch.train_loss if epoch.val_loss is None else epoch.val_loss for epoch in side.epochs]
        for side in (old, new)
    ]
    if not all(losses):
        return ""
    longest = max(map(len, losses))
    step = -(-longest // _POINTS)
    # Mermaid would stretch a shorter line over the whole axis.
    padded = [one + [one[-1]] * (longest - len(one)) for one in losses]
    lines = [f"    line [{', '.join(f'{loss:.4g}' for loss in one[::step])}]" for one in padded]
    end = 1 + step * ((longest - 1) // step)
    ended = "" if len(set(map(len, losses))) == 1 else " After the end of a training, its line is flat."
    return (
        f"## Validation loss by epoch\n\nBlue is {old.name}, orange is {new.name}.{ended}\n\n"
        f'```mermaid\n{_COLOURS}\nxychart-beta\n    x-axis "epoch" 1 --> {end}\n' + "\n".join(lines) + "\n```"
    )


def _missing(old: Side, new: Side) -> Iterable[str]:
    for side, remedy in ((old, "`dvc pull` may bring it"), (new, "`dvc repro` makes it")):
        if side.missing:
            yield f"Missing for {side.name}: {', '.join(side.missing)} ({remedy})."


def _accuracy(side: Side, key: str) -> str:
    value = side.metrics.get(key)
    if value is None:
        return "–"
    return accuracy_text(value, *(side.metrics.get(f"{key}_{end}") for end in ("low", "high")))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _result(side: Side, key: str) -> str:
    value = side.run.get("result", {}).get(key)
    return "–" if value is None else f"{value:,}"


def _cost(side: Side) -> str:
    return next((f"{one.cpu_seconds:.1f}" for one in side.occasions if one.cpu_seconds is not None), "–")


def _reproduced(side: Side) -> str:
    tried = (one.reproduction for one in reversed(side.occasions) if one.reproduction)
    return next(tried, "not tried here" if side.run else "–")


def _images(side: Side, split: str) -> str:
    if not side.dataset:
        return "–"
    count, digests = side.dataset["counts"][split]["total"], side.dataset["sha256"][split]
    return f"{count:,} (images {digests['images'][:8]}, labels {digests['labels'][:8]})"


def _value(value: Any) -> str:
    return shortened("none" if value is None else str(value), _LONGEST)


def _section(title: str, body: str, instead: str) -> str:
    return f"## {title}\n\n{body or instead}" if body or instead else ""


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table, cut after `_ROWS` rows, or "" without rows."""
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows[:_ROWS]]
    text = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
    return f"{text}\n\n{len(rows) - _ROWS} more." if len(rows) > _ROWS else text


def _cell(content: object) -> str:
    return _value(content).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
