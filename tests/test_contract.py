"""Rule 2: what a stage reads and imports is what dvc.yaml declares for it, no less and no more.

The stages really run, on scikit-learn's digits, to see which values of the config they read. Their imports
are found in the code. The modules of the boundary (stages.__main__, tracking) don't change any artifact that
a later stage reads.
"""

import copy
import dataclasses
import functools
import json

import numpy as np
import pytest
from PIL import Image

from declared import (
    DIGESTS,
    DOCSTRING_ONLY,
    EVERYBODY,
    REPOSITORY,
    STAGES,
    file_of,
    files_of,
    imported_by,
    is_exempt,
)
from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.config.params import dump
from pipeline.config.section import Section, leaves
from pipeline.environment import use_threads
from pipeline.stages import evaluate, fetch, preprocess, train

use_threads(1)


MODULES = {"fetch": fetch, "preprocess": preprocess, "train": train, "evaluate": evaluate}

# Together, these cover every branch that reads a value.
VARIANTS = [
    ["experiment=smoke", "train.epochs=1", "train.xla=false"],
    [
        "experiment=smoke",
        "train.epochs=1",
        "train.xla=false",
        "train.optimizer=adamw",
        "train.weight_decay=0.01",
        "train.early_stopping.patience=1",
        "model.dropout=0.1",
        "train.schedule=cosine",
        "train.augment.shift=1",
        "preprocess.validation_split=stratified",
        # The first two sources fail, but their settings are read before.
        "data.sources=[{kind: keras, dataset: mnist, url: 'http://127.0.0.1:9'}, {kind: idx, path: idx}, "
        "{kind: sklearn, dataset: digits}]",
        "data.retries=0",
    ],
    [
        "experiment=smoke",
        "train.epochs=1",
        "train.xla=false",
        # The images of the first source differ from the pins, which is noticed after reading all of them.
        "data.sources=[{kind: folder, path: pictures}, {kind: sklearn, dataset: digits}]",
        "data.reader.prepare=none",
        "preprocess.validation_split=hash",
        "preprocess.duplicates=drop",
        "preprocess.train_fraction=0.9",
    ],
]
IDX_FILES = [
    f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
]


def recorder(config, read: set[str]):
    """Return a `__getattribute__` for sections that records in `read` which leaves of `config` are read."""
    places: dict[int, str] = {}

    def walk(section, prefix):
        places[id(section)] = prefix
        for name, value in section.__dict__.items():
            if isinstance(value, Section):
                walk(value, f"{prefix}{name}.")

    walk(config, "")
    plain = Section.__getattribute__

    def watched(self, name):
        value = plain(self, name)
        prefix = places.get(id(self))
        if prefix is not None:
            if name in type(self).model_fields and not isinstance(value, Section):
                read.add(prefix + name)
            # model_dump_json makes a digest of all values, which does not count as reading them.
            elif name in ("model_dump", "__iter__", "copy", "model_copy"):
                read.update(f"{prefix}{key}" for key, _ in leaves(plain(self, "__dict__")))
        return value

    return watched


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A workspace in which every stage ran, and the leaves that each stage read over all variants."""
    read = {stage: set() for stage in MODULES}
    for number, overrides in enumerate(VARIANTS):
        workspace = Workspace(tmp_path_factory.mktemp(f"variant{number}"))
        config = compose(REPOSITORY / "conf", overrides)
        workspace.params.write_text(dump(config))
        (workspace.root / "idx").mkdir()
        for label in range(20):
            picture = workspace.root / "pictures" / ("train", "test")[label % 2] / str(label // 2) / "1.png"
            picture.parent.mkdir(parents=True)
            pixels = np.random.default_rng(label).integers(0, 256, (9, 7), np.uint8)
            Image.fromarray(pixels).save(picture)
        for name in IDX_FILES:
            (workspace.root / "idx" / name).write_bytes(b"no images")
        for stage, module in MODULES.items():
            with pytest.MonkeyPatch.context() as patch:
                # Keras's own cache must not be used.
                patch.setenv("KERAS_HOME", str(workspace.root / "keras"))
                patch.setattr(Section, "__getattribute__", recorder(config, read[stage]))
                result = module.run(config, workspace)
            if stage == "train":  # Written by tracking, not by the stage.
                values = config.model_dump(mode="json")
                run = {"name": "of-this-test", "config": values, "result": dataclasses.asdict(result)}
                workspace.run.write_text(json.dumps(run))
    return workspace, read


@functools.cache
def all_leaves():
    return {key for key, _ in leaves(compose(REPOSITORY / "conf", VARIANTS[0]).model_dump())}


def mismatches(stage, definition, read, modules):
    """Return what `definition`, a stage of dvc.yaml, declares needlessly, and what it fails to declare."""
    every = all_leaves()
    # What the digests cover is compared with the imports below; checkpoints are identified by them, too.
    read = read - DIGESTS.keys()
    keys = definition.get("params", [])
    keys_read = [key for key in keys if key not in DIGESTS]
    declared = {leaf for key in keys_read for leaf in every if leaf == key or leaf.startswith(f"{key}.")}
    found = [
        f"params: {key} is not a key"
        for key in keys
        if not any(f"{leaf}.".startswith(f"{key}.") for leaf in every)
    ]
    found += [f"params: {leaf} is never read" for leaf in declared - read]
    found += [f"params: {leaf} is read" for leaf in read - declared]
    found += [
        f"params: {key} stands for code that is {'' if package in modules else 'not '}used"
        for key, package in DIGESTS.items()
        if (package in modules and stage != "compose") != (key in keys)
    ]

    files = {file for dep in definition["deps"] if dep.startswith("src/") for file in files_of(dep)}
    # The output of compose depends on the schema and the text of the options; other stages get its values.
    exempt = {file_of(module) for module in modules if is_exempt(module)} if stage != "compose" else set()
    hashed = set()
    if stage == "compose":
        followed = ("models", "data", "training/backends")
        hashed = set().union(*(files_of(f"src/pipeline/{folder}") for folder in followed))
    used = {file_of(module) for module in modules} - DOCSTRING_ONLY - EVERYBODY
    found += [f"deps: {file} is never used" for file in files - used - hashed]
    found += [f"deps: {file} is used" for file in (used | hashed) - exempt - files]
    return sorted(found)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_what_it_reads_and_imports_and_nothing_else(ran, stage):
    assert mismatches(stage, STAGES[stage], ran[1].get(stage, set()), imported_by(stage)) == []


CHANGES = [
    (stage, part, value)
    for stage, definition in STAGES.items()
    for part in ("deps", "params")
    for value in definition.get(part, [])
    if part == "params" or value.startswith("src/")
]


@pytest.mark.parametrize(("stage", "part", "value"), CHANGES)
def test_a_missing_declaration_is_noticed(ran, stage, part, value):
    definition = copy.deepcopy(STAGES[stage])
    definition[part].remove(value)
    found = mismatches(stage, definition, ran[1].get(stage, set()), imported_by(stage))
    assert found
    assert all(value in line for line in found)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("deps", "src/pipeline/trials/trial.py"),
        ("params", "tracking.timeout"),
        ("params", "tracking"),
        ("params", "train.lr"),
    ],
)
@pytest.mark.parametrize("stage", STAGES)
def test_a_needless_declaration_is_noticed(ran, stage, part, value):
    definition = copy.deepcopy(STAGES[stage])
    definition.setdefault(part, []).append(value)
    found = mismatches(stage, definition, ran[1].get(stage, set()), imported_by(stage))
    assert found
    assert all(value in line for line in found)


@pytest.mark.parametrize("stage", MODULES)
def test_reading_one_more_value_would_be_noticed(ran, stage):
    more = ran[1][stage] | {"tracking.timeout"}
    found = mismatches(stage, STAGES[stage], more, imported_by(stage))
    assert found == ["params: tracking.timeout is read"]
