"""The model card: what is known about a model, in Markdown, for its users."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.artifacts.history import Epoch
from pipeline.artifacts.onnx_file import Description
from pipeline.artifacts.processed import Dataset, findings_text
from pipeline.console import count, percent, printable
from pipeline.evaluation.metrics import ClassMetrics, Predictions
from pipeline.evaluation.robustness import Robustness

_CLASSES = 20  # the number of classes to list: those with the lowest F1
_CONFUSIONS = 5
# What begins emphasis, HTML, a link, code, a formula, an entity or an escape.
_MARKUP = re.compile(r"[*<\[`$~]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|\\(?=[!-/:-@\[-`{-~])")


@dataclass(frozen=True, eq=False)
class Card:
    """The contents of a model card."""

    description: Description  # in the model file
    run: Mapping[str, Any]  # the contents of models/run.json
    dataset: Dataset  # that the model was trained and evaluated on
    best: Epoch  # the one whose weights the model has
    metrics: Mapping[str, float]  # with the names of metrics.json
    classes: Sequence[ClassMetrics]
    predictions: Predictions  # for the test images
    robustness: Sequence[Robustness]  # on changed test images; empty if not requested

    def text(self) -> str:
        """Return the text of the card, without the sections about which nothing is known."""
        sections = (
            f"# {self.run['name']}",
            self._purpose(),
            self._data(),
            self._training(),
            self._results(),
            self._confusions(),
            self._limits(),
            self._use(),
            self._reproduction(),
        )
        return self._front_matter() + "\n" + "\n\n".join(filter(None, sections)) + "\n"

    def _front_matter(self) -> str:
        measured = [
            ("accuracy", "test_accuracy"),
            ("f1", "test_macro_f1"),
            ("nll", "test_nll"),
            ("ece", "test_ece"),
        ]
        metrics: list[dict[str, Any]] = [
            {"type": kind, "name": name, "value": round(self.metrics[name], 6)} for kind, name in measured
        ]
        interval = [round(self.metrics[f"test_accuracy_{end}"], 6) for end in ("low", "high")]
        metrics[0]["confidence_interval_95"] = interval
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"type": self.dataset.name, "name": self.dataset.name, "split": "test"},
            "metrics": metrics,
        }
        values = {
            "library_name": "onnx",
            "pipeline_tag": "image-classification",
            "tags": ["image-classification", "onnx", "keras"],
            "datasets": [self.dataset.name],
            "metrics": ["accuracy", "f1"],
            "model-index": [{"name": self.run["name"], "results": [result]}],
        }
        return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n"

    def _purpose(self) -> str:
        reader = self.description.reader
        height, width = reader.image_size
        names = list(self.dataset.classes)
        more = f" and {len(names) - _CLASSES:,} more" if len(names) > _CLASSES else ""
        listed = ", ".join(map(_plain, names[:_CLASSES])) + more
        colour = "grey" if reader.colour == "grey" else "colour"
        how = (
            "A picture of any size is prepared like the digits of the training: the ink, light or dark, "
            "is found, scaled and centred."
            if reader.prepare == "digit"
            else "A picture of any size is resized."
        )
        return (
            "## What it is for\n\n"
            f"It says which of {len(names):,} classes an image belongs to: {listed}. It takes {colour} "
            f"images of {height}×{width} pixels (uint8) and gives a probability for each class. {how}"
        )

    def _data(self) -> str:
        rows = []
        for split, images in self.dataset.counts.items():
            if images.total:
                fewest, most = min(images.per_class), max(images.per_class)
                rows.append((split, f"{images.total:,}", f"{fewest:,}", f"{most:,}"))
        equal = {pair: number for pair, number in self.dataset.duplicates.items() if number}
        said = (
            "Images that occur more than once: "
            + ", ".join(f"{number:,} in {pair.replace('+', ' and ')}" for pair, number in equal.items())
            + "."
            if equal
            else "No image occurs twice, within a split or across splits."
        )
        table = _table(("split", "images", "fewest in a class", "most"), rows)
        if listed := findings_text(self.dataset.findings):
            said += f" Images to look at, listed in data/processed/findings.csv: {listed}."
        return f"## Data\n\nThe data set is {self.dataset.name}.\n\n{table}\n\n{said}"

    def _training(self) -> str:
        config, result = self.run["config"], self.run["result"]
        train = config["train"]
        changed = [f"{name} {value:g}" for name, value in train["augment"].items() if value]
        rows = [
            ("architecture", config["model"]["name"]),
            ("parameters", f"{result['parameters']:,}"),
            ("epochs, of which the best is kept", str(result["epochs"])),
            ("best epoch", str(self.best.epoch)),
            *(
                (name.replace("_", " "), str(train[name]))
                for name in ("optimizer", "learning_rate", "schedule", "batch_size")
            ),
            ("computed with", _computed_with(train)),
            ("augmentation", ", ".join(changed)),
            ("seed", str(config["seed"])),
        ]
        return f"## Training\n\n{_table(('what', 'value'), [row for row in rows if row[1]])}"

    def _results(self) -> str:
        metrics = self.metrics
        rows = [
            ("accuracy", percent(metrics["test_accuracy"]), _interval("test_accuracy", metrics)),
            ("macro F1", f"{metrics['test_macro_f1']:.4f}", ""),
            ("negative log-likelihood", f"{metrics['test_nll']:.4f}", ""),
            ("expected calibration error", f"{metrics['test_ece']:.4f}", ""),
        ]
        # Nothing is known about classes without test images, so they are listed only if all are.
        worst = sorted(self.classes, key=lambda found: (not found.support, found.f1))[:_CLASSES]
        listed = [found for found in self.classes if found in worst]
        by_class = [
            (
                found.name,
                percent(found.precision),
                percent(found.recall) if found.support else "–",
                f"{found.f1:.4f}" if found.support else "–",
                f"{found.support:,}",
            )
            for found in listed
        ]
        head = (
            f"On the {len(self.predictions.labels):,} test images, with which nothing was trained or chosen"
            f"{self._except_copies()}:"
        )
        some = "" if len(listed) == len(self.classes) else f" (the {len(listed)} that are recognised worst)"
        confidence = self.predictions.confidence.mean()
        return (
            f"## Results\n\n{head}\n\n{_table(('metric', 'value', '95 % interval'), rows)}\n\n"
            f"By class{some}:\n\n{_table(('class', 'precision', 'recall', 'F1', 'images'), by_class)}\n\n"
            f"Calibration: the mean confidence is {percent(confidence)}, the accuracy "
            f"{percent(metrics['test_accuracy'])}.\n\n"
            "![Reliability diagram](figures/reliability.png)"
        )

    def _except_copies(self) -> str:
        copies = [
            f"{number:,} equal to {split} images"
            for split in ("training", "validation")
            if (number := self.dataset.duplicates.get(f"{split.removesuffix('ing')}+test", 0))
        ]
        return f", except {' and '.join(copies)}" if copies else ""

    def _confusions(self) -> str:
        names, confusion = self.predictions.classes, self.predictions.confusion.copy()
        for label in range(len(names)):
            confusion[label, label] = 0
        pairs = sorted(
            (-int(confusion[label, taken]), label, taken)
            for label, taken in zip(*confusion.nonzero(), strict=True)
        )
        if not pairs:
            return ""
        rows = [(names[label], names[taken], str(-number)) for number, label, taken in pairs[:_CONFUSIONS]]
        return (
            f"## Worst confusions\n\n{_table(('class', 'taken for', 'images'), rows)}\n\n"
            "The test images with the highest loss:\n\n"
            "![Images with the highest loss](figures/top_losses.png)"
        )

    def _limits(self) -> str:
        unlike = self.description.unlike
        parts = []
        if self.robustness:
            rows = [
                (
                    found.change,
                    percent(found.accuracy),
                    f"{percent(found.low)} to {percent(found.high)}",
                    "" if found.unlike is None else percent(found.unlike, 1),
                )
                for found in self.robustness
            ]
            table = _table(("change", "accuracy", "95 % interval", "called unlike"), rows)
            parts.append(f"On {self.robustness[0].images:,} of the test images, changed:\n\n{table}")
            if self.description.reader.prepare == "digit":
                parts.append(
                    "The images were changed as the network gets them. Pictures are prepared before that, so "
                    "one of a moved or inverted digit becomes nearly the same image as the original."
                )
        if unlike:
            rate, images = percent(unlike.false_alarm_rate, 0), f"{unlike.images:,}"
            measured = (
                "validation images."
                if self.dataset.counts["validation"].total
                else "training images. Since the network was trained on these, and is more confident for "
                "them, new images may exceed it more often."
            )
            parts.append(
                "An image is called unlike the training images if its score is above a threshold that about "
                f"{rate} of images of their kind exceed, as measured on {images} {measured}"
            )
        return "## Limits\n\n" + "\n\n".join(parts) if parts else ""

    def _use(self) -> str:
        return (
            "## Use\n\n```console\n$ pipeline predict PICTURE\n$ pipeline serve\n```\n\n"
            "They use the workspace's model. If that is now a different one, add "
            f"`--model {self.run['name']}`."
        )

    def _reproduction(self) -> str:
        weights = self.description.weights_sha256
        computed = _computed_with(self.run["config"]["train"])
        needs = f" That takes {computed}: see docs/gpu.md." if computed else ""
        return (
            f"## Reproduce\n\n```console\n$ pipeline reproduce {self.run['name']}\n```\n\n"
            f"trains it again; the digest of its weights is `{weights}`.{needs}"
        )


def _computed_with(train: Mapping[str, Any]) -> str:
    """Return what a training computed with, such as "JAX on 1 GPU"; "" with TensorFlow."""
    if train["backend"] == "tensorflow":
        return ""
    precision = "" if train["precision"] == "float32" else f", in {train['precision']}"
    return f"{train['backend'].upper()} on {count(train['devices'], train['device'].upper())}{precision}"


def _interval(name: str, metrics: Mapping[str, float]) -> str:
    return f"{percent(metrics[f'{name}_low'])} to {percent(metrics[f'{name}_high'])}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is: a class may be called <b> or *, which would vanish."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))
