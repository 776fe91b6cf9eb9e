"""Rule 2: what a stage reads and imports is what dvc.yaml declares for it, no less and no more.

The stages are run for real on scikit-learn's digits: in this process to see which values of the config
they read, and each in a fresh one to see what they import. The boundary's own modules (stages.__main__,
tracking) are not loaded: they change no artifact that a later stage reads.
"""

import ast
import copy
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.config import Section, compose, dump, leaves
from pipeline.stages import evaluate, fetch, preprocess, train
from pipeline.training.loop import use_threads
from pipeline.workspace import Workspace

use_threads(1)

REPOSITORY = Path(__file__).parents[1]
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
MODULES = {"fetch": fetch, "preprocess": preprocess, "train": train, "evaluate": evaluate}

# Modules that a stage imports and need not declare.
EXEMPT = {
    "pipeline.config": "values arrive through params",
    "pipeline.workspace": "names places, and writes bytes as they are given",
    "pipeline.errors": "what people see of a failure",
    "pipeline.console": "what people see of progress",
}
DOCSTRING_ONLY = {f"pipeline{package}" for package in ("", ".stages", ".data", ".training", ".evaluation")}

# Together they take every branch that reads a value.
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
        # The first two can't serve; their settings are read before that shows.
        "data.sources=[{kind: keras, dataset: mnist, url: 'http://127.0.0.1:9'}, {kind: idx, path: idx}, "
        "{kind: sklearn, dataset: digits}]",
        "data.retries=0",
    ],
]
# What a stage imports depends on the model; what it reads of it is the whole section.
MODELS = [path.stem for path in (REPOSITORY / "conf" / "model").glob("*.yaml")]
SMALL = ["data=digits", "train.epochs=1", "train.xla=false", "train.threads=1"]
IDX_FILES = [
    f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
]


# --- what the stages read and import -----------------------------------------------------------


def recorder(config, read: set[str]):
    """A `__getattribute__` for sections that notes in `read` which leaves of `config` are read."""
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
            # A digest of all values, by model_dump_json, is no use of any.
            elif name in ("model_dump", "__iter__", "copy", "model_copy"):
                read.update(f"{prefix}{key}" for key, _ in leaves(plain(self, "__dict__")))
        return value

    return watched


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A workspace in which every stage ran, and the leaves that each has read over all variants."""
    read = {stage: set() for stage in MODULES}
    for number, overrides in enumerate(VARIANTS):
        workspace = Workspace(tmp_path_factory.mktemp(f"variant{number}"))
        config = compose(REPOSITORY / "conf", overrides)
        workspace.params.write_text(dump(config))
        (workspace.root / "idx").mkdir()
        for name in IDX_FILES:
            (workspace.root / "idx" / name).write_bytes(b"no images")
        for stage, module in MODULES.items():
            with pytest.MonkeyPatch.context() as patch:
                # No file of Keras's own cache may serve.
                patch.setenv("KERAS_HOME", str(workspace.root / "keras"))
                patch.setattr(Section, "__getattribute__", recorder(config, read[stage]))
                module.run(config, workspace)
    (workspace.root / "models.d").mkdir()
    for model in MODELS:
        text = dump(compose(REPOSITORY / "conf", [*SMALL, f"model={model}"]))
        (workspace.root / "models.d" / f"{model}.yaml").write_text(text)
    shutil.copytree(REPOSITORY / "conf", workspace.root / "conf", ignore=shutil.ignore_patterns("local"))
    return workspace, read


DRIVER = """
import importlib, json, sys
from pathlib import Path
from pipeline.config import read_params
from pipeline.workspace import Workspace
stage, workspace = sys.argv[1], Workspace(Path(sys.argv[2]))
module = importlib.import_module(f"pipeline.stages.{stage}")
for params in (workspace.root / "models.d").iterdir():
    module.run(workspace) if stage == "compose" else module.run(read_params(params), workspace)
print()
print(json.dumps([name for name in sys.modules if name.partition(".")[0] == "pipeline"]))
"""


@pytest.fixture(scope="module")
def imported(ran, tmp_path_factory):
    """The modules of this package that each stage has imported when it ends, run in a process of its own."""
    processes = {}
    for stage in STAGES:
        root = tmp_path_factory.mktemp(stage) / "workspace"
        shutil.copytree(ran[0].root, root)
        processes[stage] = subprocess.Popen(
            [sys.executable, "-c", DRIVER, stage, root],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    found = {}
    for stage, process in processes.items():
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        found[stage] = set(json.loads(out.splitlines()[-1]))
    return found


# --- held against what dvc.yaml declares -------------------------------------------------------


def file_of(module):
    path = "src/" + module.replace(".", "/")
    return f"{path}/__init__.py" if (REPOSITORY / path).is_dir() else f"{path}.py"


def files_of(dep):
    """The modules that a declared path stands for; of a folder all but an empty __init__.py."""
    path = REPOSITORY / dep
    if path.is_file():
        return {dep}
    files = {str(file.relative_to(REPOSITORY)) for file in path.glob("*.py")}
    return files - {file_of(package) for package in DOCSTRING_ONLY}


@functools.cache
def all_leaves():
    return {key for key, _ in leaves(compose(REPOSITORY / "conf", VARIANTS[0]).model_dump())}


def mismatches(stage, definition, read, modules):
    """What `definition`, a stage of dvc.yaml, declares in vain, and what it fails to declare."""
    every = all_leaves()
    keys = definition.get("params", [])
    declared = {leaf for key in keys for leaf in every if leaf == key or leaf.startswith(f"{key}.")}
    found = [
        f"params: {key} is no key"
        for key in keys
        if not any(f"{leaf}.".startswith(f"{key}.") for leaf in every)
    ]
    found += [f"params: {leaf} is never read" for leaf in declared - read]
    found += [f"params: {leaf} is read" for leaf in read - declared]

    files = {file for dep in definition["deps"] if dep.startswith("src/") for file in files_of(dep)}
    # What compose writes depends on the schema; the others only receive its values.
    exempt = DOCSTRING_ONLY | (set(EXEMPT) - ({"pipeline.config"} if stage == "compose" else set()))
    found += [f"deps: {file} is never imported" for file in files - {file_of(module) for module in modules}]
    found += [
        f"deps: {file} is imported" for file in {file_of(module) for module in modules - exempt} - files
    ]
    return sorted(found)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_what_it_reads_and_imports_and_nothing_else(ran, imported, stage):
    assert mismatches(stage, STAGES[stage], ran[1].get(stage, set()), imported[stage]) == []


CHANGES = [
    (stage, part, value)
    for stage, definition in STAGES.items()
    for part in ("deps", "params")
    for value in definition.get(part, [])
    if part == "params" or value.startswith("src/")
]


@pytest.mark.parametrize(("stage", "part", "value"), CHANGES)
def test_a_declaration_that_is_taken_away_is_missed(ran, imported, stage, part, value):
    definition = copy.deepcopy(STAGES[stage])
    definition[part].remove(value)
    found = mismatches(stage, definition, ran[1].get(stage, set()), imported[stage])
    assert found
    assert all(value in line for line in found)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("deps", "src/pipeline/sweeps/trial.py"),
        ("params", "tracking.timeout"),
        ("params", "tracking"),
        ("params", "train.lr"),
    ],
)
@pytest.mark.parametrize("stage", STAGES)
def test_a_declaration_in_vain_is_noticed(ran, imported, stage, part, value):
    definition = copy.deepcopy(STAGES[stage])
    definition.setdefault(part, []).append(value)
    found = mismatches(stage, definition, ran[1].get(stage, set()), imported[stage])
    assert found
    assert all(value in line for line in found)


@pytest.mark.parametrize("stage", MODULES)
def test_reading_one_more_value_would_be_noticed(ran, imported, stage):
    more = ran[1][stage] | {"tracking.timeout"}
    found = mismatches(stage, STAGES[stage], more, imported[stage])
    assert found == ["params: tracking.timeout is read"]


def test_what_is_exempt_exists_and_is_used(imported):
    used = set().union(*imported.values())
    assert set(EXEMPT) <= used
    assert used >= DOCSTRING_ONLY


@pytest.mark.parametrize("package", sorted(DOCSTRING_ONLY))
def test_packages_that_are_exempt_hold_nothing_but_their_docstring(package):
    body = ast.parse((REPOSITORY / file_of(package)).read_text()).body
    assert len(body) == 1
    assert isinstance(body[0].value, ast.Constant)


def test_the_file_of_each_stage_is_named_after_it():
    for stage, definition in STAGES.items():
        assert definition["cmd"] == f"PYTHONPATH=src python -m pipeline.stages {stage}"
        assert f"src/pipeline/stages/{stage}.py" in definition["deps"]
