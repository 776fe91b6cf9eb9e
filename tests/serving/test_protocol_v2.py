"""Clients of the Open Inference Protocol get what they ask for."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def triton(client):
    """Triton's public HTTP client."""
    from tritonclient.http import InferenceServerClient

    with InferenceServerClient(f"127.0.0.1:{client.port}") as found:
        yield found


def test_the_triton_client_finds_the_server_and_its_model(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("digits")
    assert triton.is_model_ready("digits", "3")
    assert not triton.is_model_ready("letters")
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    described = triton.get_model_metadata("digits")
    assert described["versions"] == ["3"]
    assert described["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28]}]
    assert [output["shape"] for output in described["outputs"]] == [[-1, 10], [-1]]


@pytest.mark.parametrize("sent", ["bytes", "json"])
@pytest.mark.parametrize("got", ["bytes", "json"])
def test_the_triton_client_gets_the_probabilities_of_the_model(triton, digits, served, sent, got):
    from tritonclient.http import InferInput, InferRequestedOutput

    images, labels = digits
    tensor = InferInput("images", [5, 28, 28], "UINT8")
    tensor.set_data_from_numpy(images[:5], binary_data=sent == "bytes")
    outputs = [InferRequestedOutput(name, binary_data=got == "bytes") for name in ("label", "probabilities")]
    answer = triton.infer("digits", [tensor], request_id="seven", outputs=outputs)
    assert answer.get_response()["id"] == "seven"
    assert answer.get_response()["model_version"] == "3"
    # The client reads either form.
    binary = ["parameters" in output for output in answer.get_response()["outputs"]]
    assert binary == [got == "bytes"] * 2
    expected = served.classifier.probabilities(images[:5])
    assert np.allclose(answer.as_numpy("probabilities"), expected, atol=1e-6)
    found = [name.decode() if isinstance(name, bytes) else name for name in answer.as_numpy("label")]
    assert found == [str(label) for label in labels[:5]]


def test_without_a_list_of_outputs_all_are_returned(triton, digits):
    from tritonclient.http import InferInput

    tensor = InferInput("images", [1, 28, 28], "UINT8")
    tensor.set_data_from_numpy(digits[0][:1])
    answer = triton.infer("digits", [tensor])
    assert answer.as_numpy("probabilities").shape == (1, 10)
    assert answer.as_numpy("label").shape == (1,)


def test_the_triton_client_gets_the_reason_of_a_refusal(triton):
    from tritonclient.http import InferInput
    from tritonclient.utils import InferenceServerException

    tensor = InferInput("images", [1, 28, 28], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 28, 28), np.float32))
    with pytest.raises(InferenceServerException, match="must be 'images' of UINT8"):
        triton.infer("digits", [tensor])


def test_nested_lists_are_read_as_flat_ones_are(client, digits):
    message = {"inputs": [{"name": "images", "shape": [1, 28, 28], "datatype": "UINT8"}]}
    answers = []
    for image in (digits[0][:1], digits[0][0].ravel()):
        message["inputs"][0]["data"] = image.tolist()
        answer = client.post("/v2/models/digits/infer", json.dumps(message))
        assert answer.status == 200
        answers.append(answer.json["outputs"])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("body", "what"), [("{no", "Invalid JSON"), ('{"inputs": []}', "inputs: List should")]
)
def test_a_request_that_does_not_follow_the_protocol_is_refused_with_the_fault(client, body, what):
    answer = client.post("/v2/models/digits/infer", body)
    assert answer.status == 400
    assert answer.json["error"].startswith(f"The request does not follow the protocol: {what}")


def test_other_models_and_versions_are_not_found(client):
    for path in ("/v2/models/letters", "/v2/models/digits/versions/4", "/v2/models/digits/versions/4/infer"):
        answer = client.ask("POST" if path.endswith("infer") else "GET", path)
        assert answer.status == 404, path
        assert "There is no" in answer.json["error"]
