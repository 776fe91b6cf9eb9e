import math

import numpy as np
import pytest

from pipeline.evaluation.metrics import Predictions, calibrate
from pipeline.evaluation.significance import (
    CalibrationPair,
    McNemar,
    fall,
    mcnemar,
    non_inferiority,
    show_p,
    tango,
)


def disagreeing(only_first, only_second, both=50, neither=3):
    pairs = [(1, 0)] * only_first + [(0, 1)] * only_second + [(1, 1)] * both + [(0, 0)] * neither
    return np.array(pairs, bool).T


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (5, 0, 2 / 2**5),
        (0, 5, 2 / 2**5),
        (1, 5, 2 * (1 + 6) / 2**6),
        (4, 4, 1.0),
        (59, 6, 2 * sum(math.comb(65, heads) for heads in range(7)) / 2**65),
    ],
)
def test_p_is_that_of_the_exact_binomial_test(only_first, only_second, p):
    found = mcnemar(*disagreeing(only_first, only_second))
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p == pytest.approx(p, rel=1e-9)


def test_only_images_on_which_the_models_disagree_count():
    few, many = disagreeing(2, 9, both=0, neither=0), disagreeing(2, 9, both=9000, neither=100)
    assert mcnemar(*few) == mcnemar(*many)


def test_models_that_never_disagree_are_equal():
    assert mcnemar(*disagreeing(0, 0)) == McNemar(0, 0, 1.0)


def test_a_p_is_shown_with_two_digits_or_as_below_a_limit():
    assert [show_p(p) for p in (1.0, 0.01234, 1e-99, 9e-100, 0.0)] == [
        *("p = 1", "p = 0.012", "p = 1e-99", "p < 1e-99", "p < 1e-99"),
    ]


def test_equal_models_differ_significantly_no_more_often_than_the_level_says():
    rng = np.random.default_rng(0)
    found = [mcnemar(*(rng.random((2, 300)) < 0.9)).p for _ in range(400)]
    assert np.mean(np.array(found) < 0.05) < 0.07


# --- non-inferiority ---------------------------------------------------------------------------


def test_the_bound_is_that_of_a_published_example():
    # Fagerland, Lydersen and Laake (2014), "Recommended tests and confidence intervals for paired binomial
    # proportions": 7 of 21 lost and 1 gained, Tango's interval -0.517 to -0.026.
    new, old = disagreeing(1, 7, both=1, neither=12)
    found = non_inferiority(new, old, 0.1, 0.025)
    assert found.lower == pytest.approx(-0.517, abs=5e-4)
    assert -non_inferiority(old, new, 0.1, 0.025).lower == pytest.approx(-0.026, abs=5e-4)


def test_without_a_margin_the_statistic_is_mcnemars():
    assert tango(10, 20, 2000, 0.0) == pytest.approx((10 - 20) / math.sqrt(10 + 20))
    assert tango(0, 0, 2000, 0.0) == 0


def test_of_models_that_never_disagree_the_statistic_has_a_closed_form():
    for images, worse in ((100, 0.001), (2000, 0.1)):
        expected = math.sqrt(images * worse / (1 - worse))
        assert tango(0, 0, images, -worse) == pytest.approx(expected)


@pytest.mark.parametrize("images", [50, 360, 10_000])
def test_it_passes_exactly_if_the_bound_is_above_the_margin(images):
    for gained, lost in ((0, 0), (3, 1), (1, 9), (20, 20), (0, 30)):
        new, old = disagreeing(gained, lost, both=images - gained - lost, neither=0)
        for margin in (0.001, 0.01, 0.05, 0.2):
            found = non_inferiority(new, old, margin, 0.05)
            assert (found.p < 0.05) == (found.lower > -margin), (gained, lost, margin, found)


def test_few_images_cannot_show_that_equal_models_are_equal():
    equal = np.ones(100, bool)
    assert non_inferiority(equal, equal, 0.01, 0.05).p > 0.05
    # If one in a hundred is lost, the probability that none of 360 is lost is 0.99**360.
    many = np.ones(360, bool)
    assert non_inferiority(many, many, 0.01, 0.05).p == pytest.approx(0.99**360, abs=0.003)


@pytest.mark.parametrize("gained", [0, 5])
def test_extreme_counts_have_a_result(gained):
    found = non_inferiority(*disagreeing(gained, 5 - gained, both=0, neither=0), 0.1, 0.05)
    difference = (2 * gained - 5) / 5
    assert -1 <= found.lower < difference or found.lower == difference == -1
    assert 0 <= found.p <= 1


def test_the_test_of_a_fall_is_one_sided():
    new, old = disagreeing(0, 5)
    assert fall(new, old) == pytest.approx(1 / 2**5)
    assert fall(old, new) == 1.0
    assert fall(*disagreeing(1, 5)) == pytest.approx((1 + 6) / 2**6)
    assert fall(*disagreeing(0, 0)) == 1.0


# --- calibration -------------------------------------------------------------------------------


def overconfident(images=4000, by=0.0):
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, images)
    right = rng.random(images) < confidence
    return np.minimum(confidence + by, 1.0), right


def test_the_calibration_errors_are_those_of_the_evaluation():
    def expected(confidence, right):
        scores = np.stack([confidence, 1 - confidence], axis=1)
        return calibrate(Predictions(("a", "b"), np.where(right, 0, 1), scores), 15).error

    honest, boasting = overconfident(500), overconfident(500, by=0.05)
    pair = CalibrationPair(boasting, honest, 15)
    assert (pair.new, pair.old) == pytest.approx((expected(*boasting), expected(*honest)), abs=1e-12)
    on_an_edge = np.array([0.5, 0.9]), np.array([False, True])
    assert CalibrationPair(on_an_edge, on_an_edge, 2).new == pytest.approx((0.5 + 0.1) / 2)
    pair = CalibrationPair(honest, honest, 15)
    assert pair.new == pair.old
    assert pair.p == 1.0


def test_a_rise_beyond_chance_has_a_small_p_and_the_same_one_each_time():
    honest, boasting = overconfident(), overconfident(by=0.05)
    pair = CalibrationPair(boasting, honest, 15)
    assert pair.new > pair.old + 0.02
    assert pair.p == 1 / 501, "500 draws cannot show a smaller one"
    assert CalibrationPair(boasting, honest, 15).p == pair.p
    assert CalibrationPair(honest, boasting, 15).p == 1.0
