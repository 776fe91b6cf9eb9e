"""A folder of pictures becomes a trained, evaluated and tracked run in two commands."""

import re
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
import made_letters

PAGE = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text()
# The commands of README.md and docs/own-data.md, which run here with fewer epochs.
ADD = "pipeline add-data ../letters"
TRAIN = "python -m pipeline data=letters experiment=folder"
BALANCED = f"{TRAIN} train.class_weight=balanced"
PRETRAINED = f"{TRAIN} model=pretrained"
CURVE = "python -m pipeline -m data=letters experiment=folder sweep=learning_curve"


def reached(output: str) -> float:
    """Return the test accuracy in percent from the summary of a run."""
    return float(re.search(r", test ([\d.]+) %", output)[1])


def test_the_commands_of_the_page_are_those_that_are_run_here():
    assert set(re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)) == {ADD, TRAIN, BALANCED, PRETRAINED, CURVE}


@pytest.mark.slow
def test_a_folder_of_letters_is_added_trained_and_extended_by_a_class(fresh):
    letters = fresh.root.parent / "letters"
    made_letters.write(letters, "ABCDE", 80)
    before = fresh.changes()
    said = fresh.run(*ADD.split(), "--image-size", "32x32")
    assert said.endswith("Next:\n  python -m pipeline data=letters experiment=folder\n")
    assert set(fresh.changes().splitlines()) - set(before.splitlines()) == {"?? conf/data/letters.yaml"}
    options = ["train.epochs=20"]
    trained = fresh.run(*TRAIN.split(), *options)
    assert "Epoch 1 of 20" in trained
    assert reached(trained) >= 95
    run = fresh.mlflow_runs()[-1]
    assert run.data.params["data.name"] == "letters"
    assert run.data.metrics["test_accuracy"] >= 0.95

    again = fresh.run(*TRAIN.split(), *options)
    assert "Epoch" not in again
    assert "Fetched" not in again

    made_letters.write(letters, "F", 80)
    refused = fresh.run(*ADD.split(), code=1)
    assert "  F: 80 images added\n" in refused
    fresh.run(*ADD.split(), "--update")
    conf = yaml.safe_load((fresh.root / "conf" / "data" / "letters.yaml").read_text())
    assert conf["classes"] == list("ABCDEF")
    extended = fresh.run(*TRAIN.split(), "train.epochs=1")
    for made in ("Fetched letters", "Processed letters", "Epoch 1 of 1"):
        assert made in extended
    # With another training option, only the training runs.
    other = fresh.run(*TRAIN.split(), "train.epochs=2")
    assert "Epoch 2 of 2" in other
    assert "Fetched" not in other
    assert "Processed" not in other

    fresh.run(*BALANCED.split(), "train.epochs=1")
    # Without pinned weights it is refused, whether they can be downloaded or not.
    refused = fresh.run(*PRETRAINED.split(), code=1)
    assert "MobileNetV3Small" in refused or "model.sha256=" in refused
    assert "Epoch 1 of 1" in fresh.run(*PRETRAINED.split(), "model.weights=null", "train.epochs=1")
    curve = fresh.run(*CURVE.split(), "train.epochs=3")
    assert "Twice the images: " in curve
