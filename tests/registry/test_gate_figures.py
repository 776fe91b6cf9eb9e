"""The gate: what it says it found, and what it does exactly at a limit, on models whose figures are known."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.significance import CalibrationPair, fall, mcnemar, non_inferiority
from pipeline.registry.gate import Champion, Predictions, check
from promotion_settings import FACTS, SETTINGS

CLASSES = ("ant", "bee", "cow")


def model(wrong=(), images=128, name="new"):
    """Predictions for ants and then as many bees, and no cow, that are wrong at these indices."""
    labels = np.repeat([0, 1], images // 2)
    predicted = labels.copy()
    predicted[list(wrong)] = 1 - labels[list(wrong)]
    return Predictions(name, CLASSES, labels, predicted, np.full(images, 0.95), 15)


def checks(candidate, champion, facts=FACTS, slices=None, **settings):
    """Return each check by its name."""
    version = Champion("3", champion) if isinstance(champion, Predictions) else champion
    found = check(candidate, facts, version, slices or {}, SETTINGS.model_copy(update=settings))
    return {one.name: one for one in found}


@pytest.mark.parametrize(
    ("change", "name", "passed", "found"),
    [
        ({}, "code", True, "1a2b3c4d, clean"),
        ({"is_in_git": False}, "code", False, "1a2b3c4d, not in this repository's git, clean"),
        ({"dirty": "true"}, "code", False, "1a2b3c4d, with changes that are not recorded"),
        ({"dirty": "true", "has_patch": True}, "code", True, "1a2b3c4d, with changes that are recorded"),
        ({"dirty": "unknown"}, "code", False, "1a2b3c4d, changes unknown"),
        ({}, "files", True, "9 files as recorded"),
        ({"files": 0}, "files", False, "no digest is recorded"),
        ({"problems": ("a is damaged", "b is missing")}, "files", False, "a is damaged"),
        ({"problems": ("a is damaged",), "files": 0}, "files", False, "a is damaged"),
        ({"megabytes": 100.0}, "size", True, "100 MB"),
        ({"milliseconds": 50.0}, "latency", True, "50 ms"),
        ({"milliseconds": None}, "latency", False, "not measured"),
    ],
)
def test_what_is_known_about_a_model_is_said_as_it_is(change, name, passed, found):
    one = checks(model(), None, replace(FACTS, **change))[name]
    assert (one.passed, one.found) == (passed, found)


@pytest.mark.parametrize(
    ("champion", "found"),
    [
        (Champion("3", model()), "the same"),
        (
            Champion("3", model(), evaluated_now=True),
            "different: the champion was evaluated on these now",
        ),
    ],
)
def test_it_is_said_whether_the_champion_was_evaluated_on_the_same_test_images(champion, found):
    one = checks(model(), champion)["test images"]
    assert (one.passed, one.found) == (True, found)


def test_a_model_that_is_clearly_worse_is_not_better():
    worse = checks(model(range(40)), model(), require="better")["accuracy"]
    assert not worse.passed
    assert worse.found == "68.75 % against 100.00 %, gains 0, loses 40 (p = 1.8e-12)"
    assert not checks(model(range(128)), None)["accuracy"].passed


def test_a_p_value_that_equals_the_level_shows_nothing():
    # All of six disagreements are gains, or losses.
    worse, better = (model(range(6)), model()), (model(), model(range(6)))
    limit = mcnemar(better[0].right, better[1].right).p
    assert limit == pytest.approx(2 / 2**6)
    assert not checks(*better, require="better", level=limit)["accuracy"].passed
    assert checks(*better, require="better", level=limit * 1.001)["accuracy"].passed
    ants = np.arange(128) < 64
    limit = fall(worse[0].right, worse[1].right)
    assert limit == pytest.approx(1 / 2**6)
    settings = {"max_slice_fall": 0.01, "max_recall_fall": 0.01}
    assert checks(*worse, slices={"ants": ants}, level=limit, **settings)["slice ants"].passed
    assert not checks(*worse, slices={"ants": ants}, level=limit * 1.001, **settings)["slice ants"].passed
    # Two classes occur, so that p is doubled.
    assert checks(*worse, level=2 * limit, **settings)["recall of classes"].passed
    assert not checks(*worse, level=2.001 * limit, **settings)["recall of classes"].passed


def test_a_first_model_must_be_clearly_better_than_a_constant_not_just_at_the_level():
    # It is right on six bees that "always ant" is wrong on.
    first = model(range(70, 128))
    limit = mcnemar(first.right, first.labels == 0).p
    assert not checks(first, None, level=limit)["accuracy"].passed
    assert checks(first, None, level=limit * 1.001)["accuracy"].passed


def test_equal_models_with_just_too_few_images_are_refused_and_the_number_is_given():
    right = model().right
    p = non_inferiority(right, right, 0.01, 0.05).p
    refused = checks(model(), model(), level=p, margin=0.01)["accuracy"]
    assert not refused.passed
    assert refused.found.endswith("; 128 images are too few for that: they can show 1.1 points at best")
    assert checks(model(), model(), level=p * 1.001, margin=0.01)["accuracy"].passed


def test_a_worse_model_on_enough_images_is_not_said_to_have_too_few():
    refused = checks(model(range(300), 2000), model((), 2000))["accuracy"]
    assert not refused.passed
    assert "too few" not in refused.found


def test_a_fall_of_just_what_is_allowed_is_allowed():
    ants = {"ants": np.arange(128) < 64}
    quarter = model(range(16))  # of the ants
    allowed = checks(quarter, model(), slices=ants, max_slice_fall=0.25, max_recall_fall=0.25)
    assert allowed["slice ants"].passed
    assert allowed["slice ants"].found == "75.00 % against 100.00 % of 64 images"
    assert allowed["recall of classes"].passed
    assert allowed["recall of classes"].found == "ant: 75.00 % against 100.00 %"
    refused = checks(quarter, model(), slices=ants, max_slice_fall=0.24, max_recall_fall=0.24)
    assert not refused["slice ants"].passed
    assert refused["slice ants"].found == "75.00 % against 100.00 % of 64 images (p = 1.5e-05)"


def test_the_recall_that_fell_most_is_shown_with_a_p_value_for_the_classes_that_occur():
    lost = checks(model([0, *range(64, 74)]), model())["recall of classes"]
    assert not lost.passed
    # p is 1 / 2¹⁰ for each of two classes; no test image is a cow.
    assert lost.found == "bee: 84.38 % against 100.00 % (p = 0.002)"


def test_a_calibration_error_that_rises_within_what_is_allowed_passes_however_sure_the_rise():
    # All are right, so the calibration errors are 0.05 and 0.04, and no draw gives another order.
    new, old = model(), replace(model(), confidence=np.full(128, 0.96))
    within = checks(new, old)["calibration error"]
    assert (within.passed, within.found) == (True, "0.0500 against 0.0400")
    pair = CalibrationPair((new.confidence, new.right), (old.confidence, old.right), new.bins)
    just = checks(new, old, max_calibration_rise=pair.new - pair.old)["calibration error"]
    assert just.passed
    beyond = checks(new, old, max_calibration_rise=0.005)["calibration error"]
    assert (beyond.passed, beyond.found) == (False, "0.0500 against 0.0400 (p = 0.002)")


def test_a_calibration_error_that_rises_by_chance_passes_with_its_p_value():
    rng = np.random.default_rng(3)
    new, old = (replace(model(), confidence=rng.uniform(0.9, 1, 128)) for _ in range(2))
    pair = CalibrationPair((new.confidence, new.right), (old.confidence, old.right), new.bins)
    if pair.new < pair.old:
        new, old = old, new
        pair = CalibrationPair((new.confidence, new.right), (old.confidence, old.right), new.bins)
    assert 0 < pair.p < 1
    at = checks(new, old, max_calibration_rise=0.0, level=pair.p)["calibration error"]
    assert at.passed
    assert at.found.endswith(f"(p = {pair.p:.2g})")
    above = checks(new, old, max_calibration_rise=0.0, level=pair.p + 1e-6)["calibration error"]
    assert not above.passed


def test_differences_are_required_in_points_not_in_percent_of_the_accuracy():
    found = checks(model(), model(), slices={"ants": np.arange(128) < 64}, margin=0.01, max_slice_fall=0.005)
    assert found["accuracy"].required.startswith("less than 1 point below ")
    assert found["slice ants"].required.startswith("at most 0.5 points less")
    assert found["recall of classes"].required.startswith("at most 5 points less")
