import functools
import hashlib
import json
import re
import resource
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.artifacts.model_file import load, save, weights_digest
from pipeline.config.compose import compose
from pipeline.environment import use_threads
from pipeline.errors import PipelineError
from pipeline.models import build, inference_model

use_threads(1)

CONF = Path(__file__).parents[2] / "conf"


@functools.cache
def composed():
    return compose(CONF, ["data=digits"])


def a_model(seed=0, dropout=0.0, units=16):
    keras.utils.set_random_seed(seed)
    section = composed().model.model_copy(update={"hidden_units": (units,), "dropout": dropout})
    return inference_model(build(section, (8, 8), 10), (8, 8))


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "model.keras"
    save(a_model(), path)
    return path


# --- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_saving_twice_gives_the_same_bytes_whatever_was_built_in_between(tmp_path, dropout):
    model = a_model(dropout=dropout)
    save(model, tmp_path / "first.keras")
    for units in (3, 5):
        a_model(seed=9, dropout=0.3, units=units)
    save(model, tmp_path / "second.keras")
    save(a_model(dropout=dropout), tmp_path / "third.keras")
    assert len({sha(path) for path in tmp_path.iterdir()}) == 1
    assert len(list(tmp_path.iterdir())) == 3


def test_models_built_earlier_do_not_change_the_bytes(tmp_path, saved):
    a_model(units=3)
    save(a_model(), tmp_path / "other.keras")
    assert sha(tmp_path / "other.keras") == sha(saved)


def test_an_archive_contains_no_dates_and_no_memory_addresses(saved):
    with zipfile.ZipFile(saved) as archive:
        assert {part.date_time for part in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert json.loads(archive.read("metadata.json")) == {"keras_version": keras.__version__}
        numbers = re.findall(r'"shared_object_id": (\d+)', archive.read("config.json").decode())
    assert set(numbers) == {"1"}


def test_different_weights_give_different_bytes(tmp_path, saved):
    save(a_model(seed=1), tmp_path / "other.keras")
    assert sha(tmp_path / "other.keras") != sha(saved)


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_loaded_model_equals_the_saved_one(tmp_path, dropout):
    model = a_model(dropout=dropout)
    save(model, tmp_path / "model.keras")
    loaded = load(tmp_path / "model.keras")
    assert weights_digest(loaded) == weights_digest(model)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    np.testing.assert_array_equal(loaded.predict_on_batch(images), model.predict_on_batch(images))


def test_models_that_keras_wrote_with_other_layers_are_loaded(tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.1),
            layers.Dense(3),
        ]
    )
    model.save(tmp_path / "model.keras")
    assert weights_digest(load(tmp_path / "model.keras")) == weights_digest(model)


def refused(path):
    with pytest.raises(PipelineError) as error:
        load(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    assert "There is no model" in refused(tmp_path / "model.keras")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_not_an_archive_is_refused(tmp_path, content):
    (tmp_path / "model.keras").write_bytes(content)
    assert "is not a whole .keras file" in refused(tmp_path / "model.keras")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_as_truncated(tmp_path, saved, share):
    content = saved.read_bytes()
    (tmp_path / "model.keras").write_bytes(content[: int(len(content) * share)])
    assert "is not a whole .keras file" in refused(tmp_path / "model.keras")


def test_one_flipped_bit_in_the_weights_is_refused(tmp_path, saved):
    content = bytearray(saved.read_bytes())
    content[content.index(b"\x89HDF") + 5000] ^= 1
    (tmp_path / "model.keras").write_bytes(content)
    assert "damaged in model.weights.h5" in refused(tmp_path / "model.keras")


def test_a_lambda_layer_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x + 1)])
    model.save(tmp_path / "model.keras")
    assert "Lambda" in refused(tmp_path / "model.keras")


def rewrite(source, target, change, **how):
    """Copy an archive with `change` applied to every mapping in its config.json."""

    def walk(node):
        for value in node.values() if isinstance(node, dict) else node:
            if isinstance(value, dict | list):
                walk(value)
        if isinstance(node, dict):
            change(node)

    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **how) as new:
        for part in old.namelist():
            content = old.read(part)
            if part == "config.json":
                config = json.loads(content)
                walk(config)
                content = json.dumps(config).encode()
            new.writestr(part, content)


def widened(build_config: bool):
    """Declare dense layers of two million by two million wherever a shape is given."""
    wide, image = [None, 2_000_000], [None, 2000, 1000]

    def change(node):
        settings = node.get("config", {})
        match node.get("class_name"):
            case "InputLayer":
                settings["batch_shape"] = wide if len(settings["batch_shape"]) == 2 else image
            case "__keras_tensor__":
                settings["shape"] = wide if len(settings["shape"]) == 2 else image
            case "Reshape":
                settings["target_shape"] = wide[1:]
            case "Dense":
                settings["units"] = wide[1]
        if "build_config" in node:
            node["build_config"]["input_shape"] = image if node["class_name"] == "Rescaling" else wide
            if not build_config:
                del node["build_config"]

    return change


@pytest.mark.parametrize("build_config", [True, False])
def test_a_huge_layer_is_refused_before_it_is_allocated(tmp_path, saved, build_config):
    path = tmp_path / "model.keras"
    rewrite(saved, path, widened(build_config))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    assert "declares 32,000,016,000,000 bytes of weights" in refused(path)
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB
    # Nor later, when Keras allocates what it has deferred.
    a_model()
    with keras.StatelessScope():
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_an_archive_that_unpacks_to_more_than_its_size_is_refused(tmp_path, saved):
    path = tmp_path / "model.keras"
    rewrite(saved, path, lambda node: None, compression=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path, "a", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(10_000_000))
    assert "unpacks to 10," in refused(path)


@pytest.mark.parametrize(
    "config", [b"", b"[]", b"{}", b"null", b"[" * 100_000, b"\xff", b'{"class_name": "X"}']
)
def test_a_config_that_describes_no_model_is_refused(tmp_path, saved, config):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for part in old.namelist():
            new.writestr(part, config if part == "config.json" else old.read(part))
    refused(path)


def test_an_archive_without_weights_is_refused(tmp_path, saved):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        new.writestr("config.json", old.read("config.json"))
    assert "is not a whole .keras file" in refused(path)


# --- the digest --------------------------------------------------------------------------------


def test_the_digest_changes_with_one_bit_and_with_a_shape():
    model = a_model()
    before = weights_digest(model)
    weights = model.get_weights()
    weights[0].view(np.uint32)[3, 5] ^= 1
    model.set_weights(weights)
    assert weights_digest(model) != before

    row, column = (keras.Sequential([keras.Input((n,)), keras.layers.Dense(m)]) for n, m in [(2, 3), (3, 2)])
    for dense in (row, column):
        dense.set_weights([np.zeros_like(weight) for weight in dense.get_weights()])
    assert weights_digest(row) != weights_digest(column)


def test_the_digest_does_not_depend_on_names():
    dense = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name=name)]) for name in "ab"]
    dense[1].set_weights(dense[0].get_weights())
    assert weights_digest(dense[0]) == weights_digest(dense[1])
