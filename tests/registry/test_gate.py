"""The gate: which models it refuses, and which it does not."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.registry.gate import Champion, Predictions, check
from promotion_settings import FACTS, SETTINGS

CLASSES = tuple("0123456789")
IMAGES = 5000


def predictions(seed, name="model", spoil=slice(0, 0), confidence=0.0):
    """Predictions that are right nine times in ten, as confident as that, and wrong in `spoil`."""
    images = np.random.default_rng(0)
    labels = images.integers(0, 10, IMAGES)
    sure = images.uniform(0.8, 1, IMAGES)
    rng = np.random.default_rng(seed)
    right = rng.random(IMAGES) < sure
    right[spoil] = False
    predicted = np.where(right, labels, (labels + 1) % 10)
    return Predictions(name, CLASSES, labels, predicted, np.minimum(sure + confidence, 1), 15)


CHAMPION = Champion("3", predictions(1, "champion"))
LABELS = CHAMPION.predictions.labels


def closed(candidate, champion=CHAMPION, facts=FACTS, slices=None, **settings):
    """The names of the checks that are not passed."""
    found = check(candidate, facts, champion, slices or {}, SETTINGS.model_copy(update=settings))
    return [one.name for one in found if not one.passed]


def test_a_model_that_differs_only_by_chance_passes():
    assert closed(predictions(2), margin=0.02) == []


def test_a_model_that_differs_only_by_chance_is_not_better():
    assert closed(predictions(2), require="better") == ["accuracy"]


def test_a_better_model_is_better():
    # The champion is wrong on images on which this one is right.
    worse = Champion("3", predictions(1, "champion", spoil=slice(0, 400)))
    assert closed(predictions(2), worse, require="better") == []


def test_a_worse_model_is_refused():
    candidate = predictions(2, spoil=slice(0, 150))
    assert closed(candidate, max_calibration_rise=1.0, max_recall_fall=0.2) == ["accuracy"]


def test_a_badly_calibrated_model_is_refused():
    assert closed(predictions(2, confidence=0.06), margin=0.02) == ["calibration error"]


def test_a_model_that_loses_one_class_is_refused():
    lost = np.flatnonzero(LABELS == 7)[:60]
    candidate = predictions(2, spoil=lost)
    assert closed(candidate, margin=0.05, max_calibration_rise=1.0) == ["recall of classes"]
    [recall] = [
        one for one in check(candidate, FACTS, CHAMPION, {}, SETTINGS) if one.name == "recall of classes"
    ]
    assert recall.found.startswith("7: ")


def test_a_class_whose_recall_falls_by_chance_does_not_close_the_gate():
    few = np.arange(IMAGES) < 200  # 20 images of each class
    models = [
        replace(
            predictions(seed),
            **{key: getattr(predictions(seed), key)[few] for key in ("labels", "predicted", "confidence")},
        )
        for seed in (1, 2)
    ]
    fell = [
        models[0].right[models[0].labels == index].mean() - models[1].right[models[0].labels == index].mean()
        for index in range(10)
    ]
    assert max(fell) > SETTINGS.max_recall_fall
    assert "recall of classes" not in closed(models[1], Champion("3", models[0]))


def test_a_slice_that_gets_worse_is_named():
    dark = np.zeros(IMAGES, bool)
    dark[:300] = True
    assert closed(predictions(2, spoil=slice(0, 60)), slices={"dark": dark}, margin=0.05) == ["slice dark"]
    assert closed(predictions(2), slices={"dark": dark}, margin=0.05) == []


def test_a_margin_that_so_few_images_cannot_show_is_refused_with_one_that_they_can():
    small = {key: getattr(CHAMPION.predictions, key)[:50] for key in ("labels", "predicted", "confidence")}
    champion = replace(CHAMPION.predictions, **small)

    def accuracy(margin):
        settings = SETTINGS.model_copy(update={"margin": margin})
        checks = check(champion, FACTS, Champion("3", champion), {}, settings)
        return next(one for one in checks if one.name == "accuracy")

    text = "50 images are too few for that: they can show 5.2 points at best"
    assert text in accuracy(SETTINGS.margin).found
    assert text in accuracy(0.051).found
    assert accuracy(0.052).passed


def test_the_first_champion_must_be_better_than_the_most_frequent_class():
    assert closed(predictions(1), None) == []
    most = np.bincount(LABELS).argmax()
    constant = replace(predictions(1), predicted=np.full(IMAGES, most))
    assert closed(constant, None) == ["accuracy"]


def test_a_champion_without_predictions_closes_the_gate():
    assert closed(predictions(1), Champion("3", None, "others")) == ["test images"]


@pytest.mark.parametrize(
    ("change", "settings", "name"),
    [
        ({"status": "FAILED"}, {}, "run"),
        ({"is_in_git": False}, {}, "code"),
        ({"dirty": "unknown"}, {}, "code"),
        ({"dirty": "true"}, {}, "code"),
        ({"dirty": "true", "has_patch": True}, {"code": "clean"}, "code"),
        ({"problems": ("model.onnx is damaged",)}, {}, "files"),
        ({"files": 0}, {}, "files"),
        ({"megabytes": 100.1}, {}, "size"),
        ({"milliseconds": 51.0}, {}, "latency"),
        ({"occasions": 1}, {"reproduced": True}, "reproduced"),
    ],
)
def test_a_missing_requirement_closes_the_gate(change, settings, name):
    assert closed(predictions(1), facts=replace(FACTS, **change), **settings) == [name]


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"dirty": "true", "has_patch": True}, {}),
        ({"dirty": "unknown", "is_in_git": False}, {"code": "any"}),
        ({"occasions": 2}, {"reproduced": True}),
    ],
)
def test_facts_that_are_no_requirement_do_not_close_the_gate(change, settings):
    assert closed(predictions(1), facts=replace(FACTS, **change), **settings) == []


def test_a_restored_model_whose_training_mlflow_does_not_know_is_not_said_to_be_missing_in_git():
    facts = replace(FACTS, commit="unknown", dirty="unknown", is_in_git=False)
    [found] = [each.found for each in check(predictions(1), facts, None, {}, SETTINGS) if each.name == "code"]
    assert found == "not recorded: MLflow does not know the training"


def test_the_page_has_the_measured_shares():
    root = Path(__file__).parents[2]
    measured = json.loads((root / "benchmarks" / "gate.json").read_text())
    page = (root / "docs" / "trust.md").read_text()
    assert f"{measured['pairs']:,} pairs" in page
    tables = re.findall(r"^\| the candidate is truly .*\n((?:\|.*\n)+)", page, re.M)
    for table, shares in zip(tables, measured["shares"].values(), strict=True):
        found = {
            truth: (opens, better)
            for truth, opens, better in re.findall(r"^\| (.+?) \| ([\d.]+) % \| ([\d.]+) % \|$", table, re.M)
        }
        assert found == {
            truth: tuple(f"{100 * share[what]:.1f}".removesuffix(".0") for what in ("opens", "better"))
            for truth, share in shares.items()
        }
