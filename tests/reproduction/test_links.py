"""Links between a run and the rebuilt run: equal, within the tolerance, or described."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.reproduction.links import Link, compare
from pipeline.reproduction.recorded import Recorded
from pipeline.reproduction.reproduce import judge
from pipeline.tracking.lineage import Code

TOLERANCE = 0.001
LINKS = ["code", "configuration", "data", "packages", "processor", "weights", "predictions", "metrics"]


def recorded(root, nudge=0.0):
    files = Workspace(root)
    for path in (files.model, files.probabilities):
        path.parent.mkdir(parents=True)
    files.model.write_bytes(b"weights")
    np.save(files.probabilities, np.array([[0.9, 0.1], [0.4 + nudge, 0.6 - nudge]], np.float32))
    metrics = {"test_accuracy": 0.5, "test_nll": 0.3 + nudge, "test_errors": 1, "weights_sha256": "w" * 64}
    run = {
        "id": "1" * 32,
        "name": "letters-mlp-111111",
        "config": {"seed": 0, "train": {"epochs": 2, "learning_rate": 0.1}},
        "data": {"name": "letters", "splits": {"train": {"images": 2, "sha256": "d" * 64}}},
        "code": "c" * 64,
        "result": {"weights_sha256": "w" * 64, "model_sha256": sha256(files.model)},
    }
    tags = {"processor": "a processor", "package.python": "3.11.1", "package.keras": "3.1"}
    return Recorded("letters-111111", run["config"], Code("a" * 40), run, tags, "t" * 64, metrics, files)


@pytest.fixture
def old(tmp_path):
    return recorded(tmp_path / "old")


@pytest.fixture
def new(tmp_path):
    return recorded(tmp_path / "new")


def with_run(side, **changes):
    return replace(side, run={**side.run, **changes})


def differing(old, new):
    return {link.name: link for link in compare(old, new, TOLERANCE) if link.state != "same"}


def test_a_run_equals_itself_in_every_link(old, new):
    assert [(link.name, link.state) for link in compare(old, new, TOLERANCE)] == [
        (name, "same") for name in LINKS
    ]
    assert compare(old, new, TOLERANCE)[0].detail == 12 * "c"


@pytest.mark.parametrize(
    ("link", "change", "says"),
    [
        ("code", {"code": "e" * 64}, "cccccccccccc, rebuilt eeeeeeeeeeee"),
        (
            "configuration",
            {"config": {"seed": 0, "train": {"epochs": 2, "learning_rate": 0.2}}},
            "train.learning_rate 0.1, rebuilt 0.2",
        ),
        (
            "data",
            {"data": {"name": "letters", "splits": {"train": {"images": 2, "sha256": "e" * 64}}}},
            "splits.train.sha256 dddddddddddd, rebuilt eeeeeeeeeeee",
        ),
        (
            "weights",
            {"result": {"weights_sha256": "v" * 64}},
            "wwwwwwwwwwww, rebuilt vvvvvvvvvvvv",
        ),
    ],
)
def test_one_difference_is_named_with_both_values(old, new, link, change, says):
    found = differing(old, with_run(new, **change))
    assert found == {link: Link(link, "different", says)}


def test_different_test_images_are_different_data(old, new):
    assert differing(old, replace(new, test="u" * 64)).keys() == {"data"}
    assert differing(replace(old, test=""), replace(new, test="")) == {}


def test_packages_and_processor_are_named_and_may_be_unknown(old, new):
    other = replace(new, tags={**new.tags, "package.keras": "3.2", "processor": "another"})
    assert differing(old, other) == {
        "packages": Link("packages", "different", "keras 3.1, rebuilt 3.2"),
        "processor": Link("processor", "different", " a processor, rebuilt another"),
    }
    assert {link.state for link in differing(replace(old, tags={}), new).values()} == {"not recorded"}


def test_a_changed_model_file_is_not_that_of_the_run(old, new):
    old.files.model.write_bytes(b"weighty")
    [link] = differing(old, new).values()
    assert (link.name, link.state) == ("weights", "damaged")


@pytest.mark.parametrize(("nudge", "state"), [(0.0005, "within tolerance"), (0.01, "different")])
def test_predictions_and_metrics_may_differ_within_the_tolerance(old, tmp_path, nudge, state):
    found = differing(old, recorded(tmp_path / "nudged", nudge))
    assert {name: link.state for name, link in found.items()} == {"predictions": state, "metrics": state}
    assert "0 of 2 answers differ" in found["predictions"].detail
    assert "test_nll the most" in found["metrics"].detail


def test_the_tolerance_itself_is_within_it(old, new):
    np.save(old.files.probabilities, np.array([[1, 0], [0.5, 0.5]], np.float32))
    np.save(new.files.probabilities, np.array([[0.5, 0.5], [0.5, 0.5]], np.float32))
    found = compare(replace(old, metrics={"test_nll": 0.5}), replace(new, metrics={"test_nll": 1.0}), 0.5)
    assert [link.state for link in found[-2:]] == 2 * ["within tolerance"]


def test_a_metric_that_only_one_has_is_different(old, new):
    new = replace(new, metrics={**new.metrics, "test_ece": 0.1})
    assert differing(old, new)["metrics"].state == "different"
    old = replace(old, metrics={**new.metrics, "test_ece": "damaged"})
    assert differing(old, new)["metrics"].state == "different"


def test_the_metric_that_differs_most_is_named_with_large_ones_compared_by_ratio(old, new):
    old = replace(old, metrics={"test_errors": 2000, "test_nll": 1.5, "test_ece": 0.1})
    for nll, state in ((1.5012, "within tolerance"), (1.5018, "different")):
        found = differing(old, replace(new, metrics={"test_errors": 2001, "test_nll": nll, "test_ece": 0.1}))
        said = f"2 of 3, test_nll the most: 1.5, rebuilt {nll}"
        assert found["metrics"] == Link("metrics", state, said)


def test_three_differences_are_named_and_more_are_counted(old, new):
    for number, more in ((3, ""), (4, "; 1 more"), (5, "; 2 more")):
        other = with_run(new, config=new.run["config"] | {f"key{index}": 1 for index in range(number)})
        shown = "; ".join(f"key{index} none, rebuilt 1" for index in range(3))
        assert differing(old, other)["configuration"].detail == shown + more


def test_predictions_of_other_images_are_different(old, new):
    np.save(new.files.probabilities, np.ones((3, 2), np.float32))
    assert differing(old, new)["predictions"].state == "different"
    for content in (b"cut", b""):
        old.files.probabilities.write_bytes(content)
        assert differing(old, new)["predictions"].state == "different"
    old.files.probabilities.unlink()
    assert differing(old, new)["predictions"].state == "not recorded"


def links(**states):
    return [Link(name, states.get(name, "same")) for name in LINKS]


@pytest.mark.parametrize(
    ("states", "code", "verdict"),
    [
        ({}, 0, "reproduced, equal bit for bit"),
        ({"packages": "different", "processor": "different"}, 0, "reproduced, equal bit for bit"),
        ({"packages": "not recorded"}, 0, "reproduced, equal bit for bit"),
        (
            {"weights": "different", "predictions": "within tolerance", "metrics": "within tolerance"},
            3,
            "reproduced within 0.001; the first link that differs is weights",
        ),
        (
            {"processor": "different", "weights": "different", "predictions": "different"},
            1,
            "not reproduced; the first link that differs is processor",
        ),
        ({"code": "different"}, 1, "not reproduced; the first link that differs is code"),
        (
            {"data": "different", "weights": "different", "predictions": "within tolerance"},
            1,
            "not reproduced; the first link that differs is data",
        ),
        ({"weights": "damaged"}, 1, "not reproduced; the first link that differs is weights"),
        ({"predictions": "not recorded"}, 1, "not reproduced; predictions is not recorded"),
    ],
)
def test_the_verdict_follows_from_the_links(states, code, verdict):
    assert judge(links(**states), 0.001) == (code, verdict)
