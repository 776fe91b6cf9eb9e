"""The logged model as MLflow's own commands use it: without TensorFlow, and not by floats."""

import json
import subprocess
import sys
import warnings

import mlflow
import numpy as np
import pytest
from harness import client, config, lay_out, one_run, train
from mlflow.pyfunc import scoring_server

from pipeline.artifacts.onnx_file import load
from pipeline.artifacts.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(memory, model):
    workspace = lay_out(Workspace(memory / "logged"), model)
    train(config(), workspace)
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
        return mlflow.pyfunc.load_model(folder)


def test_it_gives_what_the_evaluated_file_gives(workspace, function, images):
    np.testing.assert_array_equal(function.predict(images), load(workspace.onnx).probabilities(images))


def test_it_warns_of_nothing_and_needs_no_tensorflow(folder):
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
    """What `mlflow models serve` answers."""
    text = json.dumps({"instances": instances})
    schema = function.metadata.get_input_schema()
    return scoring_server.invocations(text, "application/json", function, schema)


def test_the_server_of_mlflow_takes_levels(function, images):
    answer = served(function, images.tolist())
    assert answer.status == 200
    found = json.loads(answer.response)["predictions"]
    np.testing.assert_allclose(found, function.predict(images), atol=1e-6)


def test_the_server_of_mlflow_refuses_levels_that_were_divided(function, images):
    with pytest.raises(mlflow.MlflowException, match="seem to be divided by 255"):
        served(function, (images / 255).tolist())


@pytest.mark.parametrize("wrong", [[[1] * 64], [[[300] * 8] * 8], [[[-1] * 8] * 8], [[["9e9"] * 8] * 8]])
def test_the_server_of_mlflow_refuses_what_is_no_image(function, wrong):
    with pytest.raises(mlflow.MlflowException):
        served(function, wrong)
