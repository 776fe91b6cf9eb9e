import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.compose import compose
from pipeline.errors import PipelineError
from pipeline.evaluation.label_issues import label_issues
from pipeline.evaluation.metrics import Predictions

CONF = Path(__file__).parents[2] / "conf"


def predictions(labels, classes=3):
    """Return predictions that are sure of the true classes, 0, 1, 2 in turns, whatever the labels say."""
    rng = np.random.default_rng(0)
    logits = 6 * np.eye(classes)[np.arange(len(labels)) % 3] + rng.normal(size=(len(labels), classes))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions(tuple(map(str, range(classes))), np.array(labels, np.int32), scores.astype(np.float32))


@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
@pytest.mark.parametrize("classes", [3, 5], ids=["all-classes-occur", "two-classes-never-occur"])
def test_wrong_labels_are_found_with_the_least_probable_first(classes):
    labels = np.arange(300) % 3
    planted = np.arange(0, 60, 6)
    labels[planted] = (labels[planted] + 1) % 3
    guesses = predictions(labels, classes)
    found = label_issues(guesses)
    assert set(found) <= set(planted)
    assert len(found) >= 4
    given = guesses.probabilities[found, labels[found]]
    assert (np.diff(given) > 0).all()


def test_wrong_labels_are_found_between_just_two_classes():
    labels = np.arange(300) % 3
    guesses = predictions(labels)
    some = np.flatnonzero(labels < 2)
    planted = np.arange(0, 60, 6)
    swapped = labels[some]
    swapped[planted] = 1 - swapped[planted]
    found = label_issues(Predictions(guesses.classes, swapped, guesses.probabilities[some]))
    assert len(found) >= 4
    assert set(found) <= set(planted)


def test_if_all_labels_are_right_none_is_found():
    assert label_issues(predictions(np.arange(300) % 3)).tolist() == []


def test_if_all_labels_are_of_one_class_none_is_found():
    assert label_issues(predictions([1, 1, 1])).tolist() == []


def test_without_cleanlab_the_option_is_refused_before_any_work_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    assert compose(CONF).evaluate.label_issues == 0
    refused = r"evaluate: label_issues is 24, which needs cleanlab.* `make setup EXTRAS=labels`"
    with pytest.raises(PipelineError, match=refused):
        compose(CONF, ["evaluate.label_issues=24"])
