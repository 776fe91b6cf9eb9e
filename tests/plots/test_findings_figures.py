"""Figures of a data set, for few and many classes, with short and long names."""

import numpy as np

from pipeline.data.findings import Finding
from pipeline.plots.findings import Shown, balance, outliers


def test_counts_of_images_are_whole_numbers_however_few_there_are():
    figure = balance({"train": [2, 1], "validation": [1, 0], "test": [1, 0]}, ["cat", "dog"])
    figure.canvas.draw()
    [axes] = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()][:5] == ["0", "1", "2", "3", "4"]
    assert "Training images: from 1 (class dog) to 2 (class cat)" in [
        text.get_text() for text in figure.texts
    ]


def test_of_many_classes_those_with_the_fewest_and_the_most_images_are_shown():
    names = [f"a class with a rather long name, {number}" for number in range(60)]
    figure = balance({"train": list(range(1000, 61000, 1000))}, names)
    figure.canvas.draw()
    [axes] = figure.axes
    assert axes.get_xlabel() == "images of the 40 classes with the fewest and the most"
    assert [bar.get_width() for bar in axes.patches] == [
        *range(1000, 21000, 1000),
        *range(41000, 61000, 1000),
    ]
    assert "20,000" in [tick.get_text() for tick in axes.get_xticklabels()]
    for text in figure.texts:
        assert text.get_window_extent().x1 <= figure.bbox.x1


def test_the_value_of_an_outlier_is_shown_whatever_its_class_is_called():
    dark = Shown(np.zeros(16, np.uint8), Finding("brightness", "train", 0, 0, value="3.5"), "a" * 50)
    figure = outliers(lambda finding: dark, [dark.finding], (4, 4))
    assert any(text.get_text().startswith("level 3.5: aaa") for text in figure.texts + figure.axes[0].texts)
