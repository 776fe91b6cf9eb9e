"""The logged model, as MLflow's own commands use it: without TensorFlow, and not with floats."""

import json
import pickle
import subprocess
import sys
import warnings

import mlflow
import numpy as np
import pytest
from harness import client, config, evaluate, lay_out, one_run, train
from mlflow.pyfunc import scoring_server

from pipeline.artifacts.onnx_file import load
from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.serving.reference import resolve


@pytest.fixture(scope="module")
def workspace(memory, model):
    workspace = lay_out(Workspace(memory / "logged"), model)
    train(config(), workspace)
    evaluate(config(), workspace)
    return workspace


@pytest.fixture(scope="module")
def folder(workspace, memory):
    [output] = one_run(workspace).outputs.model_outputs
    uri = client(workspace).get_logged_model(output.model_id).artifact_location
    return mlflow.artifacts.download_artifacts(uri, dst_path=str(memory / "downloaded"))


@pytest.fixture(scope="module")
def function(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # Python 3.13 has one, for other tests' databases.
        return mlflow.pyfunc.load_model(folder)


def test_the_logged_model_predicts_as_the_evaluated_file_does(workspace, function, images):
    np.testing.assert_array_equal(function.predict(images), load(workspace.onnx).probabilities(images))


def test_the_logged_model_gives_no_warning_and_needs_no_tensorflow(folder):
    script = (
        "import mlflow, numpy, sys; "
        f"function = mlflow.pyfunc.load_model({folder!r}); "
        "function.predict(numpy.full((2, 8, 8), 9, numpy.uint8)); "
        "print([name for name in ('tensorflow', 'keras', 'pipeline') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_floats_are_refused(function, images):
    with pytest.raises(mlflow.MlflowException, match="float64 does not match expected dtype uint8"):
        function.predict(images / 255)


def served(function, instances):
    """Return the response of `mlflow models serve`."""
    text = json.dumps({"instances": instances})
    schema = function.metadata.get_input_schema()
    return scoring_server.invocations(text, "application/json", function, schema)


def test_the_server_of_mlflow_accepts_pixel_levels(function, images):
    answer = served(function, images.tolist())
    assert answer.status == 200
    found = json.loads(answer.response)["predictions"]
    np.testing.assert_allclose(found, function.predict(images), atol=1e-6)


def test_the_server_of_mlflow_refuses_scaled_pixel_levels(function, images):
    with pytest.raises(mlflow.MlflowException, match="seem to be divided by 255"):
        served(function, (images / 255).tolist())


@pytest.mark.parametrize("wrong", [[[1] * 64], [[[300] * 8] * 8], [[[-1] * 8] * 8], [[["9e9"] * 8] * 8]])
def test_the_server_of_mlflow_refuses_what_is_no_image(function, wrong):
    with pytest.raises(mlflow.MlflowException):
        served(function, wrong)


# --- found by what people call it --------------------------------------------------------------


def test_a_run_is_found_by_its_names_its_ids_and_their_beginnings(workspace):
    run = one_run(workspace)
    for name in (
        run.info.run_id,
        run.info.run_name,
        run.info.run_name[:-2],
        run.data.tags["pipeline.id"][:8],
    ):
        found = resolve(name, workspace)
        assert found.path.read_bytes() == workspace.onnx.read_bytes()
        assert (found.name, found.version) == (run.info.run_name, None)
        assert found.test_accuracy == (0.75, 0.5, 0.5)
    keras = resolve(run.info.run_id, workspace, part="model.keras").path
    assert keras.read_bytes() == workspace.model.read_bytes()


def test_a_version_is_found_by_its_number_and_by_an_alias(workspace):
    registry, run = client(workspace), one_run(workspace)
    [output] = run.outputs.model_outputs
    registry.create_registered_model("shop")
    source = f"models:/{output.model_id}"
    registry.create_model_version("shop", source, run.info.run_id, model_id=output.model_id)
    registry.set_registered_model_alias("shop", "champion", "1")
    for ref in ("shop/1", "shop@champion"):
        found = resolve(ref, workspace)
        assert found.path.read_bytes() == workspace.onnx.read_bytes()
        assert (found.name, found.version, found.test_accuracy) == ("shop", "1", (0.75, 0.5, 0.5))
    for ref, wrong in (
        ("shop/2", "shop/2"),
        ("shop@best", "shop@best"),
        ("shops@champion", "shops@champion"),
    ):
        with pytest.raises(PipelineError, match=f"no registered model {wrong}"):
            resolve(ref, workspace)


def test_the_card_of_the_evaluation_is_included_with_its_pictures(workspace, monkeypatch):
    run = one_run(workspace)
    card = resolve(run.info.run_id, workspace, with_card=True).card
    assert card.read_bytes() == workspace.model_card.read_bytes()
    pictures = {path.name for path in workspace.figures.iterdir()}
    assert {path.name for path in (card.parent / "figures").iterdir()} == pictures
    # A server asks every two seconds: a file that is already here is not fetched again.
    monkeypatch.setattr(mlflow.MlflowClient, "download_artifacts", None)
    assert resolve(run.info.run_id, workspace, with_card=True).card == card


def test_a_run_that_was_not_evaluated_has_no_card(model, memory):
    workspace = lay_out(Workspace(memory / "trained"), model)
    train(config(), workspace)
    assert resolve(one_run(workspace).info.run_id, workspace, with_card=True).card is None


def test_without_a_name_the_model_of_the_workspace_is_used(workspace):
    found = resolve(None, workspace)
    assert (found.path, found.test_accuracy) == (workspace.onnx, (0.75, 0.5, 0.5))


@pytest.mark.parametrize("ref", ["missing.onnx", "models/missing.onnx", "no-such-run"])
def test_a_name_of_no_model_is_refused(workspace, ref):
    with pytest.raises(PipelineError, match=ref):
        resolve(ref, workspace)


def test_only_the_onnx_file_of_a_logged_model_is_opened(workspace, tmp_path):
    """Anyone may have created a version in the registry, and its loader and its pickles are code."""
    registry, run = client(workspace), one_run(workspace)
    model = registry.create_logged_model(run.info.experiment_id, name="foreign")
    place, proof = tmp_path / "model", tmp_path / "was-run"
    (place / "data").mkdir(parents=True)
    (place / "code").mkdir()
    (place / "code" / "evil.py").write_text(f"open({str(proof)!r}, 'w')\n")
    (place / "MLmodel").write_text("flavors: {python_function: {loader_module: evil, code: code}}\n")
    (place / "data" / "model.onnx").write_bytes(pickle.dumps(proof))
    registry.log_model_artifacts(model.model_id, str(place))
    registry.finalize_logged_model(model.model_id, "READY")
    registry.create_registered_model("foreign")
    registry.create_model_version(
        "foreign", f"models:/{model.model_id}", run.info.run_id, model_id=model.model_id
    )
    found = resolve("foreign/1", workspace)
    with pytest.raises(PipelineError):
        load(found.path)
    assert not proof.exists()
