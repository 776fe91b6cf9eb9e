"""The page of results shows the results of the trainings."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import results
from benchmarks.results import SEEDS, Result, picture, render

REPOSITORY = Path(__file__).parents[1]


def made_up(name, accuracies, cpu_seconds, data="mnist"):
    return [
        Result(name, data, 79_510, cpu_seconds, 15.0, 0.996, accuracy, None, 10_000)
        for accuracy in accuracies
    ]


def test_a_row_has_mean_deviation_interval_and_cost():
    page = render([made_up("mlp_best", [0.990, 0.991, 0.992], 30.0)])
    row = next(line for line in page.splitlines() if "`mlp_best`" in line)
    # The known bounds of the interval for 9,910 of 10,000.
    assert row == (
        "| [`mlp_best`](../conf/experiment/mlp_best.yaml) | 79,510 | 3 of 5 | 99.10 ± 0.10 % | – "
        "| 98.90 to 99.27 % | 99.60 % | 30 s | 2.0 |"
    )
    assert "Not trained yet: `baseline`, `cnn_fast`, `cnn_best`, `fashion_cnn`, `fashion_best`." in page


def test_rows_of_earlier_code_are_marked():
    experiments = [made_up("baseline", [0.97], 6.0), made_up("mlp_best", [0.99], 30.0)]
    assert "†" not in render(experiments)
    page = render(experiments, {"mlp_best"})
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    assert ["†" in row for row in rows] == [False, True]
    assert "†: trained with earlier code or values" in page


def test_accuracies_with_test_time_augmentation_are_named_as_such():
    augmented = [
        replace(result, test_accuracy=None, test_tta_accuracy=result.test_accuracy)
        for result in made_up("mlp_best", [0.990, 0.991, 0.992], 30.0)
    ]
    row = next(line for line in render([augmented]).splitlines() if "`mlp_best`" in line)
    assert "| – | 99.10 ± 0.10 % | 98.90 to 99.27 % |" in row
    (axes,) = picture([augmented]).axes
    assert [text.get_text() for text in axes.texts] == ["mlp_best (TTA)\n99.10 %"]


def test_the_picture_has_each_experiment_by_error_and_cost():
    figure = picture([made_up("a", [0.99], 30.0), made_up("b", [0.92, 0.94], 150.0, "fashion_mnist")])
    (axes,) = figure.axes
    points = [tuple(bar.lines[0].get_xydata()[0]) for bar in axes.containers]
    assert points == [pytest.approx((2.0, 1.0)), pytest.approx((10.0, 7.0))]
    assert [text.get_text() for text in axes.texts] == ["a\n99.00 %", "b\n93.00 %"]


@pytest.mark.parametrize("name", SEEDS)
def test_the_accuracy_that_an_experiment_states_is_that_of_its_page(name):
    text = (REPOSITORY / "conf" / "experiment" / f"{name}.yaml").read_text()
    promise = re.search(
        r"([\d.]+) % (?:\(± ([\d.]+)\) )?on the test images( with test-time augmentation)?", text
    )
    page = "gpu.md" if "docs/gpu.md has the table" in text else "results.md"
    rows = [line.split("|") for line in (REPOSITORY / "docs" / page).read_text().splitlines()]
    [header] = [row for row in rows if " test, TTA " in row]
    [row] = [row for row in rows if len(row) == len(header) and f"`{name}`" in row[1]]
    measured = row[header.index(" test, TTA " if promise[3] else " test ")]
    assert float(measured.split()[0]) == pytest.approx(float(promise[1]), abs=float(promise[2] or 0.06))


def test_each_row_is_an_experiment():
    assert set(SEEDS) <= {path.stem for path in (REPOSITORY / "conf" / "experiment").glob("*.yaml")}


def test_a_training_is_kept_until_its_values_or_its_code_change(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "TRAINED", tmp_path)
    monkeypatch.setattr(results, "_code", lambda: "some code")
    (kept,) = made_up("baseline", [0.973], 8.0)
    results.keep("baseline", 0, kept)
    assert results.known("baseline", 0) == kept
    assert results.known("baseline", 1) is None
    assert not results.is_of_earlier_code("baseline")
    with monkeypatch.context() as edited:
        edited.setattr(results, "_code", lambda: "other code")
        assert results.known("baseline", 0) is None
        assert results.kept("baseline", 0) == kept
        assert results.is_of_earlier_code("baseline")
    (tmp_path / "baseline-0.json").rename(tmp_path / "mlp_best-0.json")
    assert results.known("mlp_best", 0) is None
