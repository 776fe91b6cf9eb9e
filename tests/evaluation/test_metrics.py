import json
import math
from dataclasses import astuple

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from pipeline.evaluation.metrics import (
    ClassMetrics,
    Predictions,
    calibrate,
    is_unbalanced,
    measure,
    measure_classes,
    wilson,
)


def predictions(labels, scores, classes=("a", "b", "c")):
    return Predictions(classes, np.array(labels, np.int32), np.array(scores, np.float32))


def one_hot(indices, classes=3):
    return np.eye(classes)[list(indices)]


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [
        (10, 10, 0.7225, 1.0),
        (0, 10, 0.0, 0.2775),
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), table I, method 3.
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_the_published_one(right, of, low, high):
    assert wilson(right, of) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_stays_within_0_and_1_whatever_is_rounded():
    of = np.arange(1, 2000)
    assert wilson(0 * of, of)[0].min() == 0
    assert wilson(of, of)[1].max() == 1


def test_a_perfect_model_has_perfect_metrics():
    perfect = predictions([0, 1, 2, 1], one_hot([0, 1, 2, 1]))
    metrics = measure(perfect, bins=15)
    assert metrics["accuracy"] == metrics["macro_f1"] == metrics["accuracy_high"] == 1
    assert metrics["errors"] == 0
    assert metrics["nll"] == log_loss([0, 1, 2, 1], one_hot([0, 1, 2, 1]))
    assert metrics["ece"] == 0
    assert measure_classes(perfect)[1] == ClassMetrics("b", precision=1, recall=1, f1=1, support=2)


def test_a_constant_model_is_right_only_about_its_class():
    constant = predictions([0, 0, 1, 2], [[0.5, 0.3, 0.2]] * 4)
    metrics = measure(constant, bins=10)
    assert metrics["accuracy"] == 0.5
    assert metrics["errors"] == 2
    assert metrics["nll"] == pytest.approx(-(2 * math.log(0.5) + math.log(0.3) + math.log(0.2)) / 4)
    assert metrics["ece"] == pytest.approx(0, abs=1e-7)
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    first, _, last = measure_classes(constant)
    assert astuple(first) == ("a", 0.5, 1, pytest.approx(2 / 3), 2)
    assert last == ClassMetrics("c", precision=0, recall=0, f1=0, support=1)


def test_the_calibration_error_weights_the_gap_of_each_bin_by_its_images():
    # Bins of width 0.2: (0.4, 0.6] holds 0.5 and 0.55, one right; (0.8, 1.0] holds 0.9 and 1.0, both right.
    scores = [[0.5, 0.3, 0.2], [0.55, 0.45, 0.0], [0.9, 0.1, 0.0], [1.0, 0.0, 0.0]]
    calibration = calibrate(predictions([0, 1, 0, 0], scores), bins=5)
    assert calibration.counts.tolist() == [0, 0, 2, 0, 2]
    assert calibration.accuracy == pytest.approx([np.nan, np.nan, 0.5, np.nan, 1], nan_ok=True)
    assert calibration.confidence == pytest.approx([np.nan, np.nan, 0.525, np.nan, 0.95], nan_ok=True)
    assert calibration.error == pytest.approx(0.5 * 0.025 + 0.5 * 0.05, rel=1e-6)


def test_a_bin_includes_its_upper_edge_and_not_its_lower_one():
    assert calibrate(predictions([0], [[0.5, 0.25, 0.25]]), bins=2).counts.tolist() == [1, 0]


def test_a_class_of_one_image_counts():
    found = measure_classes(predictions([0, 1, 1], one_hot([0, 1, 2])))
    assert astuple(found[0]) == ("a", 1, 1, 1, 1)
    assert astuple(found[1]) == ("b", 1, 0.5, pytest.approx(2 / 3), 2)


def test_a_probability_of_one_is_in_the_last_bin_whatever_their_number():
    for bins in (1, 3, 15, 1000):
        assert calibrate(predictions([0], [[1, 0, 0]]), bins).counts.tolist() == [0] * (bins - 1) + [1]


def test_classes_that_never_occur_count_as_zero_and_not_as_nan():
    rare = predictions([0, 0], one_hot([0, 0]))
    metrics = measure(rare, bins=15)
    assert measure_classes(rare)[2] == ClassMetrics("c", precision=0, recall=0, f1=0, support=0)
    assert metrics["macro_f1"] == 1, "only classes that occur are averaged"
    json.dumps(metrics, allow_nan=False)


def test_a_true_class_of_probability_zero_has_a_finite_likelihood():
    assert math.isfinite(measure(predictions([1], [[1, 0, 0]]), bins=15)["nll"])


def test_the_likelihood_follows_from_the_scores_as_saved(rng):
    scores = rng.dirichlet(np.ones(3), 200).astype(np.float32)
    labels = rng.integers(0, 3, 200)
    exact = scores.astype(np.float64)
    expected = log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=[0, 1, 2])
    assert measure(predictions(labels, scores), bins=15)["nll"] == expected


def test_the_mean_of_the_images_losses_is_the_likelihood(rng):
    guesses = predictions(rng.integers(0, 3, 50), rng.dirichlet(np.ones(3), 50))
    assert guesses.losses.mean() == pytest.approx(measure(guesses, bins=15)["nll"], rel=1e-12)
    assert math.isfinite(predictions([1], [[1, 0, 0]]).losses[0])


def test_classes_are_unbalanced_if_one_has_more_than_twice_the_images_of_another():
    assert not is_unbalanced([5, 10, 7])
    assert is_unbalanced([5, 11, 7])


def test_the_confusion_matrix_has_a_row_for_each_true_class():
    assert predictions([0, 0, 2], one_hot([0, 1, 1])).confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_metrics_equal_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    classes = tuple("abcdefg")
    # The last two classes are no labels, and the last is never predicted.
    labels = rng.integers(0, 5, 400)
    scores = rng.dirichlet(np.full(7, 0.3), 400)
    scores[:, 6] = 0
    scores[:3] = one_hot([0, 1, 2], 7)
    found = predictions(labels, scores, classes)
    metrics = measure(found, bins=10)
    every = range(7)
    assert metrics["nll"] == pytest.approx(log_loss(labels, found.probabilities, labels=every), rel=1e-12)
    assert metrics["accuracy"] == accuracy_score(labels, found.predicted)
    expected = f1_score(labels, found.predicted, average="macro", zero_division=0)
    assert metrics["macro_f1"] == pytest.approx(expected, rel=1e-12)
    columns = precision_recall_fscore_support(labels, found.predicted, labels=every, zero_division=0)
    by_class = np.array([astuple(row)[1:] for row in measure_classes(found)])
    np.testing.assert_allclose(by_class, np.array(columns).T, rtol=1e-12)
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, found.predicted, labels=every))
