import math

import numpy as np
import pytest

from pipeline.evaluation.significance import McNemar, mcnemar


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
def test_p_is_the_chance_that_a_fair_coin_falls_so_unevenly(only_first, only_second, p):
    found = mcnemar(*disagreeing(only_first, only_second))
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p == pytest.approx(p, rel=1e-9)


def test_only_images_on_which_the_models_disagree_count():
    few, many = disagreeing(2, 9, both=0, neither=0), disagreeing(2, 9, both=9000, neither=100)
    assert mcnemar(*few) == mcnemar(*many)


def test_models_that_never_disagree_are_equal():
    assert mcnemar(*disagreeing(0, 0)) == McNemar(0, 0, 1.0)


def test_equal_models_are_told_apart_no_more_often_than_the_level_says():
    rng = np.random.default_rng(0)
    found = [mcnemar(*(rng.random((2, 300)) < 0.9)).p for _ in range(400)]
    assert np.mean(np.array(found) < 0.05) < 0.07
