"""Learning curves: what a sweep over shares of the training images predicts for twice as many."""

import subprocess
import sys

import pytest
from made_up import sweep, trial
from matplotlib.image import imread

from pipeline.results.figures.draw import draw
from pipeline.results.leaderboard import rank
from pipeline.results.learning_curve import KEY, curves

SHARES = (0.125, 0.25, 0.5, 1.0)


def trials(error_of, objective="val_accuracy", shares=SHARES, spread=0.0, **others):
    """Two trials with different seeds for each share, unsorted."""
    for share in (*shares[1:], shares[0]):
        for seed, sign in (("0", 1), ("1", -1)):
            error = error_of(share) + sign * spread
            value = error if objective == "val_loss" else 1 - error
            yield trial({objective: value, "parameters": 9}, **{KEY: str(share), "seed": seed}, **others)


def found(*groups, objective="val_accuracy"):
    return curves(rank(sweep(*groups, objectives=(objective,))))


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss", "val_macro_f1"])
def test_the_power_law_is_recovered_and_predicts_the_error_of_twice_the_images(objective):
    [curve] = found(trials(lambda share: 0.1 * share**-0.5, objective, spread=0.01), objective=objective)
    assert curve.exponent == pytest.approx(-0.5)
    assert curve.expected(2.0) == pytest.approx(0.1 / 2**0.5)
    assert curve.shares == SHARES
    assert curve.spreads[0] == pytest.approx(0.01 * 2**0.5)
    value = {"val_accuracy": "92.93 %", "val_loss": "0.0707", "val_macro_f1": "0.9293"}[objective]
    now = {"val_accuracy": "90.00 %", "val_loss": "0.1000", "val_macro_f1": "0.9000"}[objective]
    assert curve.text == (
        f"Twice the images: {objective} {value} is expected, after {now} with all images; the error goes "
        "with their number to the power of -0.50."
    )


def test_three_shares_of_the_images_are_enough_for_a_power_law():
    [curve] = found(trials(lambda share: 0.1 * share**-0.5, shares=SHARES[:3]))
    assert curve.text.startswith(
        "Twice the images: val_accuracy 90.00 % is expected, after 85.86 % with a share of 0.5;"
    )


def test_a_trial_without_a_share_has_all_images_and_one_share_makes_no_curve():
    whole = trial({"val_accuracy": 0.9}, seed="0")
    alone = trial({"val_accuracy": 0.8}, **{KEY: "0.5"}, model="cnn")
    [curve] = found(trials(lambda share: 0.1 * share**-0.5, shares=(0.25, 0.5)), [whole, alone])
    assert (curve.label, curve.shares) == ("", (0.25, 0.5, 1.0))


def test_each_choice_of_the_other_values_has_its_own_curve():
    small = trials(lambda share: 0.2 * share**-0.1, model="mlp")
    large = trials(lambda share: 0.1 * share**-0.4, model="cnn")
    exponents = {curve.label: curve.exponent for curve in found(small, large)}
    assert exponents == {"model=mlp": pytest.approx(-0.1), "model=cnn": pytest.approx(-0.4)}


def test_more_images_that_did_not_help_are_not_recommended():
    [curve] = found(trials(lambda share: 0.1 + 0.05 * share))
    assert curve.text == "Twice the images: no better val_accuracy is expected than 85.00 % with all images."


@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
def test_results_that_vary_more_than_images_help_have_no_forecast(tmp_path):
    # By the law through them, twice the images would reach 42.33 %: less than all images reach already.
    reached = {0.125: 0.3208, 0.25: 0.2765, 0.5: 0.2522, 1.0: 0.4504}
    group = list(trials(lambda share: 1 - reached[share], "val_macro_f1"))
    report = sweep(group, objectives=("val_macro_f1",))
    [curve] = curves(rank(report))
    assert curve.exponent == pytest.approx(-0.087, abs=0.001)
    assert curve.text.startswith("Twice the images: no forecast beyond 0.4504 with all images, since ")
    draw(tmp_path, report)
    assert imread(tmp_path / "learning_curve.png").shape[1] == 880


@pytest.mark.parametrize(
    ("group", "says"),
    [
        (trials(lambda share: 0.1 * share**-0.5, shares=(0.5, 1.0)), ""),
        (
            trials(lambda share: 0.0 if share == 1 else 0.1),
            "Twice the images: no forecast, since a share of 1 already leaves no error.",
        ),
    ],
)
def test_two_shares_or_results_without_errors_give_no_power_law(tmp_path, group, says):
    report = sweep(group)
    [curve] = curves(rank(report))
    assert (curve.exponent, curve.expected(2), curve.text) == (None, None, says)
    draw(tmp_path, report)
    assert imread(tmp_path / "learning_curve.png").shape[1] == 880


@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
def test_the_figure_is_drawn_for_such_sweeps_only(tmp_path):
    draw(tmp_path / "curve", sweep(trials(lambda share: 0.03 * share**-0.8, spread=0.002)))
    assert imread(tmp_path / "curve" / "learning_curve.png").shape[1] == 880
    draw(tmp_path / "none", sweep([trial(rate="0.1"), trial(rate="0.2")]))
    assert not (tmp_path / "none" / "learning_curve.png").exists()
    draw(tmp_path / "parameters", sweep(trials(lambda share: 0.1), objectives=("parameters",)))
    assert not (tmp_path / "parameters" / "learning_curve.png").exists()


def test_the_power_law_does_not_import_matplotlib():
    code = "import pipeline.results.learning_curve, sys; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
