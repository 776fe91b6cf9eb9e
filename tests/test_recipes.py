"""Each named experiment runs, and its network does not exceed its size limit."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts.processed import SCALE, Count, Dataset, write_dataset, write_split
from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.environment import use_threads
from pipeline.stages import train

use_threads(1)

CONF = Path(__file__).parents[1] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SIDES = {"digits": 8, "mnist": 28, "fashion_mnist": 28}
LARGEST = {"mlp_best": 79_510, "baseline": 79_510, "cnn_fast": 100_000, "folder": 300_000}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_epoch_runs_on_a_few_synthetic_images(tmp_path, name):
    # XLA would give the same results and only take longer to compile.
    config = compose(CONF, [f"experiment={name}", "train.epochs=1", "train.xla=false"])
    assert config.name == name
    workspace, side, rng = Workspace(tmp_path), SIDES[config.data.name], np.random.default_rng(0)
    held_out = round(20 * config.preprocess.validation_fraction)
    counts, digests = {"train": 100, "validation": held_out}, {}
    for split, count in counts.items():
        images = rng.integers(0, 256, (count, side**2), np.uint8)
        labels = rng.integers(0, 10, count).astype(np.int32)
        digests[split] = write_split(workspace, split, [images], images.shape, labels)
    totals = {split: Count(count, ()) for split, count in counts.items()}
    shape, classes = (side, side), config.data.classes
    reader = config.data.reader.model_dump(mode="json")
    described = Dataset(config.data.name, classes, shape, reader, SCALE, totals, 0, 1, {}, digests)
    write_dataset(workspace, described)
    seen = []
    result = train.run(config, workspace, seen.append)
    assert [np.isfinite(epoch.train_loss) for epoch in seen] == [True]
    assert (seen[0].val_loss is None) == (held_out == 0)
    assert result.parameters <= LARGEST.get(name, 200_000)
