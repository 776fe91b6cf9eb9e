import sys

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.evaluation.label_issues import doubtful_labels
from pipeline.evaluation.metrics import Predictions


def predictions(labels, classes=3):
    """Of a model that is sure of the true classes, which are 0, 1, 2 in turns, whatever the labels say."""
    rng = np.random.default_rng(0)
    logits = 6 * np.eye(classes)[np.arange(len(labels)) % 3] + rng.normal(size=(len(labels), classes))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions(tuple(map(str, range(classes))), np.array(labels, np.int32), scores.astype(np.float32))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [3, 5], ids=["all-classes-occur", "two-classes-never-occur"])
def test_planted_wrong_labels_are_found_the_most_doubtful_first(classes):
    labels = np.arange(300) % 3
    planted = np.arange(0, 60, 6)
    labels[planted] = (labels[planted] + 1) % 3
    guesses = predictions(labels, classes)
    found = doubtful_labels(guesses)
    assert set(found) <= set(planted)
    assert len(found) >= 4
    given = guesses.probabilities[found, labels[found]]
    assert (np.diff(given) > 0).all()


def test_where_all_labels_are_right_none_is_doubtful():
    assert doubtful_labels(predictions(np.arange(300) % 3)).tolist() == []


def test_without_cleanlab_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(PipelineError, match=r"make setup EXTRAS=labels"):
        doubtful_labels(predictions([0, 1, 2]))


def test_labels_of_one_class_are_refused():
    with pytest.raises(PipelineError, match="at least 2 classes"):
        doubtful_labels(predictions([1, 1, 1]))
