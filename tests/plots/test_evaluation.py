import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from pipeline.artifacts.history import Epoch, History
from pipeline.config.schema import EvaluateSection
from pipeline.evaluation.metrics import Predictions
from pipeline.plots.evaluated import Evaluated, draw
from pipeline.plots.evaluation import confusion_counts, label_issues, learning_curves, top_losses

NAMES = {
    "confusion_counts", "confusion_by_row", "learning_curves", "reliability", "top_losses", "label_issues",
}  # fmt: skip


def history(epochs=4, best=3, validated=True):
    rows = [
        Epoch(n, 1 / n, 1 - 1 / n, 1 / n if validated else None, 1 - 1 / n if validated else None, 0.001)
        for n in range(1, epochs + 1)
    ]
    return History(rows, best + 1)


def guesses(classes, images, noise=1.0):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(classes), images).astype(np.int32)
    logits = 3 * np.eye(len(classes))[labels] + noise * rng.normal(size=(images, len(classes)))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions(classes, labels, scores.astype(np.float32))


def evaluated(predictions, images=None, shape=(2, 2), curves=None, bins=15, highest=6, issues=None, most=3):
    if images is None:
        images = np.zeros((len(predictions.labels), 4), np.uint8)
    settings = EvaluateSection(
        calibration_bins=bins, top_losses=highest, tta_shift=0, label_issues=most, robustness=0
    )
    return Evaluated(predictions, images, shape, curves or history(), settings, issues)


def draw_all(folder: Path, predictions, shape=(8, 8), curves=None, bins=15, highest=6):
    folder.mkdir()
    pixels = np.arange(len(predictions.labels) * np.prod(shape)) % 256
    images = pixels.astype(np.uint8).reshape(len(predictions.labels), -1)
    issues = np.flatnonzero(~predictions.correct)
    draw(folder, evaluated(predictions, images, shape, curves, bins, highest, issues))
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("classes", "images", "options"),
    [
        (tuple("0123456789"), 300, {}),
        (("cat", "dog"), 50, {"shape": (8, 6, 3), "curves": history(1, 0, validated=False)}),
        (tuple(f"a class with a long name, number {i}" for i in range(100)), 500, {"bins": 100}),
        (("$1", "T-shirt/top", "Ankle boot"), 2, {"shape": (8, 8, 1), "curves": history(40, 7), "bins": 1}),
        (("猫", "a\nb"), 20, {}),
        (("a", "b"), 20, {"shape": (8, 6, 2)}),
        (("a", "b"), 20, {"shape": (8, 6, 5)}),
    ],
    ids=["ten", "two-in-colour", "hundred", "two-images", "no-glyphs", "two-channels", "five-channels"],
)
@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
def test_every_figure_is_a_picture_as_wide_as_mlflow_shows_it(tmp_path: Path, classes, images, options):
    files = draw_all(tmp_path / "figures", guesses(classes, images), **options)
    assert set(files) == NAMES
    for path in files.values():
        picture = imread(path)
        assert picture.shape[1] == 880
        assert picture.std() > 0.01, f"{path.name} is blank"


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_no_tick_is_below_0_or_above_100_percent(accuracy):
    curves = History([Epoch(1, 0.5, accuracy, 0.5, accuracy, 0.001)], 1)
    _, axes = learning_curves.draw(evaluated(guesses(("a", "b"), 9), curves=curves)).axes
    low, high = axes.get_ylim()
    shown = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert shown
    assert shown == pytest.approx(np.clip(shown, 0, 1))


def test_the_same_predictions_give_the_same_bytes_with_any_matplotlib_settings(tmp_path: Path):
    plain = draw_all(tmp_path / "plain", guesses(("a", "b"), 20))
    with matplotlib.rc_context({"font.size": 30, "savefig.transparent": True, "axes.facecolor": "red"}):
        styled = draw_all(tmp_path / "styled", guesses(("a", "b"), 20))
        assert matplotlib.rcParams["font.size"] == 30
    assert all(plain[name].read_bytes() == styled[name].read_bytes() for name in NAMES)
    assert b"Software" not in plain["reliability"].read_bytes()


def test_a_matrix_has_numbers_in_its_cells_or_a_colour_scale_if_they_do_not_fit():
    few, many = guesses(("a", "b"), 20, noise=2), guesses(tuple(map(str, range(60))), 500)
    assert captions(confusion_counts.draw(evaluated(few))) == [
        str(count) for count in few.confusion.flat if count
    ]
    figure = confusion_counts.draw(evaluated(many))
    assert captions(figure) == []
    assert [axes.get_ylabel() for axes in figure.axes[0].child_axes] == ["images"]


def of_no_and_yes():
    scores = np.array([[0.4, 0.6], [0.1, 0.9], [0.9, 0.1], [0.2, 0.8]], np.float32)
    return Predictions(("no", "yes"), np.zeros(4, np.int32), scores)


def test_the_highest_losses_come_first_and_only_as_many_as_configured():
    figure = top_losses.draw(evaluated(of_no_and_yes(), highest=2))
    assert captions(figure) == ["no → yes   2.30", "no → yes   1.61"], "-log 0.1, -log 0.2"
    assert "The 2 highest losses" in texts(figure)


@pytest.mark.parametrize("name", ["common", "m" * 60])
def test_captions_of_wide_letters_do_not_touch_each_other(name):
    figure = top_losses.draw(evaluated(guesses((name, "rare"), 60, noise=0), highest=24))
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    rows = {box.y0 for box in boxes}
    assert len(boxes) == 24
    for y0 in rows:
        row = sorted((box.x0, box.x1) for box in boxes if box.y0 == y0)
        assert all(before[1] < after[0] for before, after in pairwise(row))


def test_a_model_without_mistakes_has_highest_losses_too():
    figure = top_losses.draw(evaluated(guesses(("a", "b"), 20, noise=0)))
    assert len(captions(figure)) == 6
    assert any("100.00 % of 20 test images right" in text for text in texts(figure))


def texts(figure):
    return [text.get_text() for text in figure.texts]


def captions(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_label_issues_are_shown_in_their_order_with_the_probability_of_the_label():
    figure = label_issues.draw(evaluated(of_no_and_yes(), issues=np.array([1, 3, 0]), most=2))
    assert captions(figure) == ["no → yes   10.0 %", "no → yes   20.0 %"]
    assert "The 2 least probable of 3 labels that look wrong" in texts(figure)


def test_if_no_label_looks_wrong_the_figure_says_so():
    nothing = label_issues.draw(evaluated(guesses(("a", "b"), 4), issues=np.array([], int)))
    assert "There are no label issues to show." in texts(nothing)


def test_figures_need_neither_pyplot_nor_tensorflow():
    code = "import sys, pipeline.plots.evaluated; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"matplotlib.pyplot", "tensorflow", "keras"} & set(loaded.stdout.split())
