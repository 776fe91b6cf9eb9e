"""A training that is interrupted and resumed ends as if it had not been interrupted."""

import functools
import io
import json
import shutil
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.artifacts.history import Epoch
from pipeline.artifacts.model_file import weights_digest
from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.environment import use_threads
from pipeline.models import build
from pipeline.training import checkpoint
from pipeline.training.checkpoint import Checkpoints, TrainState
from pipeline.training.loop import fit

use_threads(1)

CONF = Path(__file__).parents[2] / "conf"
SHAPE, CLASSES = (6, 6), 4
AUGMENT = {"shift": 1.0, "rotation": 10.0, "scale": 0.1, "shear": 0.1, "elastic": 0.5, "flip": 0.1}


class CutOffError(Exception):
    """Stands for the end of the process after an epoch."""


def images(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    pictures = np.random.default_rng(9).integers(0, 200, (CLASSES, 36))
    return np.clip(pictures[labels] + rng.normal(0, 60, (count, 36)), 0, 255).astype(np.uint8), labels


@functools.cache
def composed(model):
    return compose(CONF, ["data=digits", f"model={model}"])


@functools.cache
def uninterrupted(**options):
    """The weights and the history of an uninterrupted training."""
    with tempfile.TemporaryDirectory() as folder:
        return train(Path(folder) / "uninterrupted.npz", **options)


@functools.cache
def checkpoint_of_two_epochs():
    """The bytes of the file that a training leaves if it is interrupted in its third epoch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cut.npz"
        assert train(path, cut_after=3) is None
        return path.read_bytes()


def train(path, cut_after=None, patience=None, model="mlp", seed=0, ema_decay=0.0):
    """Everything random is on: order, distortion, dropout; for cnn normalisation too."""
    config = composed(model)
    section = config.train.model_dump() | {
        "optimizer": "adamw",
        "learning_rate": 0.05 if patience else 0.01,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup": 0.2,
        "ema_decay": ema_decay,
        "epochs": 12 if patience else 5,
        "shuffle": "every_epoch",
        "augment": AUGMENT,
        "xla": False,
        "early_stopping": {"patience": patience, "monitor": "val_loss", "min_delta": 0.0},
    }
    small = {"dropout": 0.3} | ({"hidden_units": (16,)} if model == "mlp" else {})
    keras.utils.set_random_seed(seed)
    network = build(config.model.model_copy(update=small), SHAPE, CLASSES)
    seen = []

    def on_epoch(epoch):
        seen.append(epoch)
        if epoch.epoch == cut_after:
            raise CutOffError

    try:
        history = fit(
            network,
            images(150, 1),
            images(50, 2),
            type(config.train).model_validate(section),
            image_shape=SHAPE,
            seed=seed,
            on_epoch=on_epoch,
            checkpoints=Checkpoints(path, 0.0),
        )
    except CutOffError:
        return None
    assert seen == list(history.epochs), "on_epoch gets every epoch once, including those before the cut"
    return weights_digest(network), history


@pytest.mark.parametrize(
    ("model", "cuts"),
    [
        ("mlp", [1]),
        ("mlp", [3]),
        ("mlp", [3, 3, 5]),
        ("cnn", [3]),
        pytest.param("cnn", [2, 4], marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_training_ends_with_the_same_weights_and_history(tmp_path, model, cuts):
    for cut in cuts:
        assert train(tmp_path / "cut.npz", cut_after=cut, model=model) is None
    assert train(tmp_path / "cut.npz", model=model) == uninterrupted(model=model)


@pytest.mark.parametrize("patience", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupted_training_continues_averaging_its_weights(tmp_path, patience):
    averaged = uninterrupted(patience=patience, ema_decay=0.9)
    assert averaged[0] != uninterrupted(patience=patience)[0]
    for cut in (2, 4):
        assert train(tmp_path / "cut.npz", cut_after=cut, patience=patience, ema_decay=0.9) is None
    assert train(tmp_path / "cut.npz", patience=patience, ema_decay=0.9) == averaged


def test_the_cpu_seconds_before_an_interruption_count(tmp_path):
    checkpoints = Checkpoints(tmp_path / "state.npz", 0.0)
    checkpoints._cpu_start -= 100
    state = TrainState([Epoch(1, 0.5, 0.5, None, None, 1e-5)], [], [], np.inf, 0, [])
    assert 100 <= checkpoints.cpu_seconds < 150
    checkpoints.save(state)
    again = Checkpoints(tmp_path / "state.npz", 0.0)
    assert 0 <= again.cpu_seconds < 50
    again.load(like=state)
    assert 100 <= again.cpu_seconds < 150


def test_a_training_continues_instead_of_starting_again(tmp_path):
    train(tmp_path / "cut.npz", cut_after=4)
    with np.load(tmp_path / "cut.npz") as file:
        meta = json.loads(file["meta"].tobytes())
    assert [epoch["epoch"] for epoch in meta["epochs"]] == [1, 2, 3]


def test_early_stopping_remembers_the_best_epoch_after_an_interruption(tmp_path):
    digest, history = uninterrupted(patience=2, seed=2)
    stopped = len(history.epochs)
    assert history.best_epoch < stopped < 12
    for cut in (2, history.best_epoch, stopped):
        assert train(tmp_path / f"{cut}.npz", cut_after=cut, patience=2, seed=2) is None
        assert train(tmp_path / f"{cut}.npz", patience=2, seed=2) == (digest, history)


def huge_header():
    """The start of a .npy file that claims 800 terabytes."""
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, {"descr": "<f8", "fortran_order": False, "shape": (10**14,)})
    return text.getvalue()


def changed(path, damage):
    """Replace a checkpoint by a valid .npz file with other contents."""
    with np.load(path) as file:
        content = dict(file)
    first = next(name for name, array in content.items() if array.ndim == 2 and name.startswith("network"))
    if damage == "other shapes":
        content[first] = np.zeros((3, 3), np.float32)
    elif damage == "NaN":
        content[first].flat[-1] = np.nan
    elif damage == "an array missing":
        del content[first]
    elif damage == "an epoch missing":
        meta = json.loads(content["meta"].tobytes())
        del meta["epochs"][0]
        content["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(path, **content)
    if damage == "terabytes":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, huge_header() if name == f"{first}.npy" else part)


@pytest.mark.parametrize(
    "damage", ["other shapes", "NaN", "an array missing", "an epoch missing", "terabytes"]
)
def test_an_undamaged_checkpoint_of_another_training_is_ignored(tmp_path, capsys, damage):
    path = tmp_path / "cut.npz"
    path.write_bytes(checkpoint_of_two_epochs())
    changed(path, damage)
    assert train(path) == uninterrupted()
    assert f"warning: the checkpoint {path} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["truncated", "empty", "no zip", "other content"])
def test_a_damaged_checkpoint_is_ignored_with_a_warning(tmp_path, capsys, damage):
    path = tmp_path / "cut.npz"
    path.write_bytes(checkpoint_of_two_epochs())
    if damage == "other content":
        np.savez(path, other=np.zeros(3))
    else:
        content = {"truncated": path.read_bytes()[:-500], "empty": b"", "no zip": b"x" * 9000}[damage]
        path.write_bytes(content)
    assert train(path) == uninterrupted()
    assert "damaged" in capsys.readouterr().err


def test_a_state_is_read_as_it_was_written(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(3, 2)).astype(np.float32), np.array(7, np.int64), np.array([1, 2], np.uint32)]
    state = TrainState([Epoch(1, 0.1 + 0.2, 0.5, None, None, 1e-5)], arrays, arrays[:2], np.inf, 0, [])
    checkpoints = Checkpoints(tmp_path / "state.npz", 0.0)
    checkpoints.save(state)
    loaded = checkpoints.load(like=state)
    assert (loaded.epochs, loaded.best_value, loaded.best_epoch) == (state.epochs, np.inf, 0)
    for one, other in zip(loaded.network + loaded.optimizer, arrays + arrays[:2], strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    assert checkpoints.epochs == 1
    for _ in range(2):
        checkpoints.discard()
        assert (checkpoints.load(like=state), checkpoints.epochs) == (None, 0)


def test_the_next_save_is_due_after_as_long_as_the_first(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    checkpoints = Checkpoints(tmp_path / "state.npz", 10.0)
    for start in (0.0, 15.0):
        now = start + 9
        assert not checkpoints.due
        now = start + 15
        assert checkpoints.due
        checkpoints.save(TrainState([Epoch(1, 0.5, 0.5, None, None, 1e-5)], [], [], np.inf, 0, []))


@pytest.mark.parametrize(
    ("group", "arrays"),
    [
        ("optimizer", [np.zeros((2, 3), np.float32)]),
        ("best_weights", [np.zeros((2, 3), np.float32)]),
        ("best_weights", []),
    ],
)
def test_the_optimizer_and_the_best_weights_are_checked_against_the_network_too(
    tmp_path, capsys, group, arrays
):
    weights = [np.zeros((3, 2), np.float32)]
    state = TrainState([Epoch(1, 0.5, 0.5, None, None, 1e-5)], weights, weights, 0.5, 1, weights)
    checkpoints = Checkpoints(tmp_path / "state.npz", 0.0)
    checkpoints.save(state)
    assert checkpoints.load(like=state) is not None
    checkpoints.save(replace(state, **{group: arrays}))
    assert checkpoints.load(like=state) is None
    assert f"its {group.replace('_', ' ')} have other shapes" in capsys.readouterr().err


def test_a_training_without_checkpoints_ignores_an_existing_one(tmp_path):
    state = TrainState([Epoch(1, 0.5, 0.5, None, None, 1e-5)], [], [], np.inf, 0, [])
    Checkpoints(tmp_path / "state.npz", 0.0).save(state)
    assert Checkpoints(tmp_path / "state.npz", None).load(like=state) is None


@pytest.mark.parametrize(("seconds", "due"), [(0.0, True), (3600.0, False), (None, False)])
def test_short_trainings_write_no_checkpoint(tmp_path, seconds, due):
    assert Checkpoints(tmp_path / "state.npz", seconds).due is due


@pytest.mark.parametrize(
    "change", [["seed=1"], ["train.learning_rate=0.5"], ["model.dropout=0.5"], "data", "package", "scale"]
)
def test_a_checkpoint_is_identified_by_all_that_affects_the_weights(tmp_path, monkeypatch, change):
    workspace = Workspace(tmp_path)
    workspace.processed.mkdir(parents=True)
    workspace.training_dataset.write_text("{}")
    package = shutil.copytree(Path(checkpoint.__file__).parents[1], tmp_path / "pipeline")
    monkeypatch.setattr(checkpoint, "__file__", str(package / "training" / "checkpoint.py"))
    config = compose(CONF, ["data=digits"])
    path = Checkpoints.of(config, workspace)._path
    assert Checkpoints.of(compose(CONF, ["data=digits"]), workspace)._path == path
    if change == "data":
        workspace.training_dataset.write_text("{ }")
    elif change == "package":
        monkeypatch.setattr(checkpoint, "version", lambda name: "99.0")
    elif change == "scale":
        code = package / "artifacts" / "processed.py"
        code.write_text(code.read_text().replace("SCALE = 1 / 255", "SCALE = 1 / 256"))
    else:
        config = compose(CONF, ["data=digits", *change])
    assert Checkpoints.of(config, workspace)._path != path
