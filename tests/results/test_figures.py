import itertools
import subprocess
import sys

import matplotlib
import pytest
from made_up import sweep, trial
from matplotlib.colors import to_hex
from matplotlib.image import imread

from pipeline.plots.style import ORANGE
from pipeline.results.figures.by_hyperparameter import by_hyperparameter
from pipeline.results.figures.draw import draw
from pipeline.results.figures.parallel_coordinates import parallel_coordinates
from pipeline.results.leaderboard import rank

NAMES = {"parallel_coordinates", "by_hyperparameter"}


def grid():
    rates, models = ("0.01", "0.001", "0.003"), ("mlp", "cnn")
    for place, (model, rate, seed) in enumerate(itertools.product(models, rates, "01")):
        results = {"val_accuracy": 0.8 + place / 100, "parameters": 100 * len(rate)}
        yield trial(results, **{"model": model, "train.learning_rate": rate, "seed": seed})


def search(number):
    for place in range(number):
        state = "pruned" if place % 7 == 5 else "done"
        differs = {
            "train.learning_rate": repr(10 ** (-1 - 3 * place / number)),
            "data.x": f"[{place % 9}, 3]",
        }
        if place % 3:
            differs["model.dropout"] = str(place / number)
        yield trial({"val_accuracy": place % 11 / 11} if state == "done" else {}, state, **differs)


SWEEPS = {
    "one-that-nothing-differs-from": sweep([trial()]),
    "one": sweep([trial(rate="0.1")]),
    "seeds": sweep([trial(seed="0"), trial({"val_accuracy": 0.6}, seed="1")]),
    "a-grid": sweep(grid(), [trial({}, "failed", **{"model": "mlp", "seed": "3"})]),
    "two-objectives": sweep(grid(), objectives=("parameters", "val_accuracy")),
    "all-alike-and-perfect": sweep([trial({"val_accuracy": 1.0}, n=str(n)) for n in range(3)]),
    "no-validation": sweep([trial({"parameters": 3}, n="$a_b$"), trial({"parameters": 4}, n="nan")]),
    "two-hundred": sweep(search(200), space={"train.learning_rate": "tag(log, interval(1e-4, 1e-1))"}),
    "many-keys": sweep([trial(**{f"train.a_long_name_{n}": str(m * n) for n in range(14)}) for m in (1, 2)]),
}


@pytest.mark.parametrize("report", SWEEPS.values(), ids=SWEEPS)
@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
def test_every_figure_is_a_picture_as_wide_as_mlflow_shows_it(tmp_path, report):
    draw(tmp_path, report)
    assert {path.stem for path in tmp_path.iterdir()} == NAMES
    for path in tmp_path.iterdir():
        picture = imread(path)
        assert picture.shape[1] == 880
        assert picture.std() > 0.01, f"{path.name} is blank"


def test_the_same_results_give_the_same_bytes_with_any_matplotlib_settings(tmp_path):
    draw(tmp_path / "plain", SWEEPS["a-grid"])
    with matplotlib.rc_context({"font.size": 30, "savefig.transparent": True, "axes.facecolor": "red"}):
        draw(tmp_path / "styled", SWEEPS["a-grid"])
    for name in NAMES:
        plain, styled = ((tmp_path / style / f"{name}.png").read_bytes() for style in ("plain", "styled"))
        assert plain == styled
        assert b"Software" not in plain


def test_a_sweep_without_results_has_no_figures(tmp_path):
    draw(tmp_path / "figures", sweep([trial({}, "failed", rate="1"), trial({}, "waiting", rate="2")]))
    assert not (tmp_path / "figures").exists()


def lines_of(report):
    """The lines of the settings, in the order in which they are drawn, and the texts at the axes."""
    [axes] = parallel_coordinates(report, rank(report)).axes
    across = len(axes.get_xticks())
    lines = [line for line in axes.lines if len(line.get_xdata()) == across and line.get_zorder() < 10]
    return lines, {text.get_text(): text.xy for text in axes.texts}


def test_the_best_setting_is_the_orange_line_on_top():
    report = SWEEPS["a-grid"]
    lines, texts = lines_of(report)
    assert len(lines) == 6 + 1
    assert [to_hex(line.get_color()) == ORANGE for line in lines] == [False] * 6 + [True]
    model, rate, result = lines[-1].get_ydata()
    assert abs(model - texts["cnn"][1]) < abs(model - texts["mlp"][1])
    assert abs(rate - texts["0.003"][1]) < abs(rate - texts["0.01"][1])
    assert result == 1


def test_few_values_are_evenly_spaced_and_names_keep_the_order_of_the_space():
    trials = [trial(rate=rate, name=name) for rate, name in zip(["0.01", "1e-5", "8"], "bca", strict=True)]
    _, texts = lines_of(sweep(trials, space={"name": ["c", "b", "a"]}))
    for names in (("1e-5", "0.01", "8"), ("c", "b", "a")):
        assert [texts[name][1] for name in names] == pytest.approx([1 / 6, 3 / 6, 5 / 6])


def test_many_values_drawn_on_a_log_scale_are_shown_on_one():
    rates = [10 ** (-4 + place / 10) for place in range(31)]
    trials = [trial({"val_accuracy": 0.5 + rate}, rate=repr(rate)) for rate in rates]
    lines, texts = lines_of(sweep(trials, space={"rate": "tag(log, interval(1e-4, 1e-1))"}))
    assert [line.get_ydata()[0] for line in lines] == pytest.approx([place / 30 for place in range(31)])
    assert texts["0.001"][1] == pytest.approx(1 / 3)
    _, texts = lines_of(sweep(trials[20:], space={"rate": "interval(1e-2, 1e-1)"}))
    assert texts["0.04"][1] == pytest.approx(3 / 9)


def test_accuracies_near_one_are_placed_by_the_ratio_of_their_errors():
    trials = [trial({"val_accuracy": accuracy}, n=str(accuracy)) for accuracy in (0.1, 0.91, 0.991)]
    lines, _ = lines_of(sweep(trials))
    assert [line.get_ydata()[1] for line in lines] == pytest.approx([0, 0.5, 1])


def test_a_lower_loss_is_darker_and_lower():
    trials = [trial({"val_loss": loss}, n=str(loss)) for loss in (0.3, 0.2, 0.1)]
    (worst, middle, best), _ = lines_of(sweep(trials, objectives=("val_loss",)))
    assert [line.get_ydata()[1] for line in (worst, middle, best)] == pytest.approx([1, 0.5, 0])
    assert sum(middle.get_color()[:3]) < sum(worst.get_color()[:3])


def test_trials_without_a_result_are_dotted_and_unset_values_are_labelled():
    lines, texts = lines_of(
        sweep([trial(a="1", b="2"), trial({}, "failed", a="1"), trial({}, "waiting", a="3")])
    )
    assert [line.get_linestyle() for line in lines] == [":", "-"]
    assert lines[0].get_ydata()[-1] == texts["no result"][1] < 0
    assert lines[0].get_ydata()[1] == texts["not set"][1]


def test_lines_that_share_a_value_are_side_by_side_with_the_better_ones_higher():
    trials = [trial({"val_accuracy": 0.5 + n / 100}, a="x" if n < 4 else "y", b=str(n)) for n in range(5)]
    lines, texts = lines_of(sweep(trials))
    at_x = [line.get_ydata()[0] for line in lines[:4]]
    assert at_x == sorted(set(at_x))
    assert sum(at_x) / 4 == pytest.approx(texts["x"][1])
    assert lines[4].get_ydata()[0] == texts["y"][1]


def test_each_hyperparameter_has_a_panel_with_each_trial():
    report = SWEEPS["a-grid"]
    panels = by_hyperparameter(report, rank(report)).axes
    titles = [axes.get_title() for axes in panels]
    assert titles == ["model (bars: medians)", "learning_rate (bars: medians)"]
    for axes in panels:
        points = [line for line in axes.lines if line.get_marker() == "o"]
        assert len(points) == 12
        assert len([point for point in points if point.get_color() == ORANGE]) == 2
    assert [line.get_marker() for line in panels[0].lines].count("x") == 1


def test_figures_need_neither_pyplot_nor_tensorflow():
    code = "import sys, pipeline.results.figures.draw; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"matplotlib.pyplot", "tensorflow", "keras", "mlflow"} & set(loaded.stdout.split())
