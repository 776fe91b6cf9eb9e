"""`pipeline serve` works in a clone, from its start to the last request."""

import csv
import http.client
import json
import os
import re
import signal
import socket
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from clones import until
from mlflow import MlflowClient

from photos import png
from pipeline.artifacts.onnx_file import load
from pipeline.data.reader import read_picture
from servers import PATIENCE, free_port
from servers import answers as listens

TWO_VERSIONS = """
import sys
from mlflow import MlflowClient

client, run = MlflowClient(), MlflowClient().get_run(sys.argv[1])
[model] = client.search_logged_models([run.info.experiment_id])
client.create_registered_model("digits")
for _ in range(2):
    source = f"models:/{model.model_id}"
    client.create_model_version("digits", source, run.info.run_id, model_id=model.model_id)
client.set_registered_model_alias("digits", "champion", "1")
"""


def serve(clone, start, *options, under=()):
    """Start a server, wait until it answers, and return it and its port; `under` precedes its command."""
    port = free_port()
    running = start(clone, *under, "pipeline", "serve", "--port", str(port), *options)

    def answers():
        assert running.process.poll() is None, running.output
        with suppress(ConnectionError):
            return asked(port, "GET", "/v2/health/ready")[0] == 200

    until(answers)
    return running, port


def asked(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def assert_last_request_is_answered(running, port, picture, end):
    """Call `end` when the head of a request has arrived, but not its body; it must still be answered."""
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(
            f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
        )
        time.sleep(0.2)
        end(running.process.pid)
        time.sleep(0.5)
        raw.sendall(picture)
        assert raw.recv(100).startswith(b"HTTP/1.1 200")
    assert running.end() == 0
    assert "Traceback" not in running.output


def test_a_clones_model_is_served_until_sigterm_and_the_last_request_is_answered(smoke, start):
    running, port = serve(smoke, start)
    ask = partial(asked, port)
    assert f" at http://127.0.0.1:{port} (" in running.output
    about = ask("GET", "/model")[1]
    metrics = json.loads(smoke.workspace.metrics.read_text())
    assert about["test_accuracy"][0] == metrics["test_accuracy"]

    # The served model is the evaluated one.
    with smoke.workspace.predictions.open() as file:
        predictions = list(csv.DictReader(file))
    images = np.load(smoke.workspace.processed / "test" / "images.npy").reshape(-1, *about["image_shape"])
    for image, expected in list(zip(images, predictions, strict=True))[:20]:
        tensor = {"name": "images", "shape": [1, *about["image_shape"]], "datatype": "UINT8"}
        message = {"inputs": [tensor | {"data": image.ravel().tolist()}]}
        status, answer = ask("POST", f"/v2/models/{about['name']}/infer", json.dumps(message))
        assert status == 200, answer
        probabilities, label = answer["outputs"]
        assert label["data"] == [expected["predicted"]]
        assert abs(max(probabilities["data"]) - float(expected["confidence"])) < 1e-6

    maps = Path(f"/proc/{running.process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "tensorflow" not in maps

    picture = png(images[0])
    assert_last_request_is_answered(running, port, picture, lambda process: os.kill(process, signal.SIGTERM))


PYFUNC = """
import sys
import mlflow, numpy
images = numpy.load("some.npy")
numpy.save("pyfunc.npy", mlflow.pyfunc.load_model(sys.argv[1]).predict(images))
"""


@pytest.mark.slow
def test_every_interface_gives_the_evaluated_probabilities(smoke, start):
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{smoke.root / 'mlflow.db'}"}
    with smoke.workspace.predictions.open() as file:
        predictions = list(csv.DictReader(file))
    probabilities = np.load(smoke.workspace.probabilities)
    description = load(smoke.workspace.onnx).description
    shape, classes = description.image_shape, description.classes
    images = np.load(smoke.workspace.processed / "test" / "images.npy").reshape(-1, *shape)
    # The reader changes pictures whose digits are not like those of the data set, so they are left out.
    same = [
        number
        for number, image in enumerate(images)
        if np.array_equal(read_picture(png(image), description.reader), image)
    ][:20]
    assert len(same) == 20
    expected = probabilities[same]
    for number, row in zip(same, expected, strict=True):
        assert predictions[number]["predicted"] == classes[row.argmax()]
        assert abs(float(predictions[number]["confidence"]) - row.max()) < 1e-6

    found = {}
    np.save(smoke.root / "some.npy", images[same])
    output = smoke.run("pipeline", "predict", "some.npy", "--format", "jsonl", "--top", "10")
    answers = [json.loads(line) for line in output.splitlines()]
    found["predict"] = [{one["label"]: one["probability"] for one in answer["top"]} for answer in answers]

    [model] = MlflowClient(store["MLFLOW_TRACKING_URI"]).search_logged_models(
        [run.info.experiment_id for run in smoke.mlflow_runs()]
    )
    smoke.run("python", "-c", PYFUNC, f"models:/{model.model_id}", **store)
    found["pyfunc"] = np.load(smoke.root / "pyfunc.npy")

    server, port = serve(smoke, start)
    pictures = [asked(port, "POST", "/predict", png(image)) for image in images[same]]
    found["/predict"] = [answer["probabilities"] for _, answer in pictures]
    tensor = {"name": "images", "shape": [len(same), *shape], "datatype": "UINT8"}
    message = {"inputs": [tensor | {"data": images[same].ravel().tolist()}]}
    name = asked(port, "GET", "/model")[1]["name"]
    _, answer = asked(port, "POST", f"/v2/models/{name}/infer", json.dumps(message))
    found["protocol V2"] = np.reshape(answer["outputs"][0]["data"], expected.shape)
    server.process.terminate()
    assert server.end() == 0

    port = free_port()
    command = ["mlflow", "models", "serve", "--env-manager", "local", "--port", str(port)]
    env = ["env", *(f"{name}={value}" for name, value in store.items())]
    start(smoke, *env, *command, "-m", f"models:/{model.model_id}")
    until(lambda: listens(port))
    body = json.dumps({"instances": images[same].tolist()})
    status, answer = asked(port, "POST", "/invocations", body, {"Content-Type": "application/json"})
    assert status == 200, answer
    found["mlflow models serve"] = answer["predictions"]

    for way, rows in found.items():
        values = [[row[name] for name in classes] if isinstance(row, dict) else row for row in rows]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6, err_msg=way)


def test_the_commands_of_the_page_about_serving_run(smoke, start):
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    commands = re.findall(r"^\$ (curl .+)$", page, re.MULTILINE)
    assert len(commands) == 2
    _, port = serve(smoke, start)
    images = np.load(smoke.workspace.raw / "test_images.npy")
    (smoke.root / "seven.png").write_bytes(png(images[0]))
    (smoke.root / "two.png").write_bytes(b"no picture")
    outputs = [
        smoke.run("bash", "-c", command.replace("curl", "curl --silent", 1).replace(":8000", f":{port}"))
        for command in commands
    ]
    one, several = map(json.loads, outputs)
    assert one["label"] in one["probabilities"]
    assert [item["file"] for item in several["items"]] == ["seven.png", "two.png"]
    assert several["items"][0]["label"] == one["label"]
    assert "is not a PNG" in several["items"][1]["error"]


def test_a_promotion_in_the_registry_is_noticed_by_every_process(smoke, start):
    store = f"sqlite:///{smoke.root / 'mlflow.db'}"
    [run] = smoke.mlflow_runs()
    # In another process, because MLflow looks up the files of a model in its global store.
    smoke.run("python", "-c", TWO_VERSIONS, run.info.run_id, MLFLOW_TRACKING_URI=store)
    running, port = serve(smoke, start, "--model", "digits@champion", "--workers", "2")
    about = asked(port, "GET", "/model")[1]
    assert (about["name"], about["version"]) == ("digits", "1")
    assert about["test_accuracy"][0] == run.data.metrics["test_accuracy"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/card")
    card = connection.getresponse().read().decode()
    assert "data:image/png;base64," in card

    MlflowClient(store).set_registered_model_alias("digits", "champion", "2")
    until(lambda: running.output.count("Version 2 of digits is now in use.") == 2)
    for _ in range(8):
        assert asked(port, "GET", "/v2/models/digits/versions/2")[0] == 200
    running.process.terminate()
    assert running.end() == 0
    until(lambda: smoke.processes() == [])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_closing_the_terminal_ends_the_server_after_the_requests_in_flight(smoke, start, workers):
    running, port = serve(smoke, start, "--workers", workers)
    picture = png(255 * np.eye(8, dtype=np.uint8))
    assert_last_request_is_answered(running, port, picture, lambda process: os.killpg(process, signal.SIGHUP))
    until(lambda: smoke.processes() == [])


def test_under_nohup_the_server_survives_its_terminal(smoke, start):
    running, port = serve(smoke, start, under=["nohup"])
    os.killpg(running.process.pid, signal.SIGHUP)
    time.sleep(1)
    assert asked(port, "GET", "/v2/health/ready")[0] == 200
    running.process.terminate()
    assert running.end() == 0


def children(process: int) -> list[int]:
    """Return the worker processes: all children except multiprocessing's own tracker."""
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(one) for one in listed if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def test_a_replaced_server_process_has_the_model_of_the_others(smoke, start):
    running, port = serve(smoke, start, "--workers", "2")
    name = asked(port, "GET", "/model")[1]["run"]
    # As a running training does.
    smoke.workspace.onnx.unlink()
    smoke.workspace.onnx.write_bytes(b"half a file")
    first = children(running.process.pid)
    os.kill(first[0], signal.SIGKILL)

    def whole():
        """Return whether there is a replacement for the killed process."""
        now = children(running.process.pid)
        return len(now) == 2 and first[0] not in now

    until(whole)
    os.kill(first[1], signal.SIGKILL)  # so that every answer from now on is from a new process

    def answered():
        with suppress(ConnectionError):
            return asked(port, "GET", "/model")[1]

    until(answered)
    until(lambda: len(children(running.process.pid)) == 2)
    assert answered()["run"] == name
    assert running.process.poll() is None, running.output
    # None may continue, and keep the port, without the supervising process.
    os.kill(running.process.pid, signal.SIGKILL)
    until(lambda: not listens(port))
    until(lambda: smoke.processes() == [])


def test_a_model_that_cannot_be_served_is_refused_in_a_sentence(smoke, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refusal = smoke.run("pipeline", "serve", "--port", str(port), code=1)
    assert f"error: 127.0.0.1, port {port}, can't be used (address already in use)" in refusal
    assert "PIPELINE_TOKEN" in smoke.run("pipeline", "serve", "--host", "0.0.0.0", code=1)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        refusal = smoke.run("pipeline", "serve", "--host", "[::1]", "--port", str(port), code=1)
    assert f"error: ::1, port {port}, can't be used (address already in use)" in refusal
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"text")
    refusal = smoke.run("pipeline", "serve", "--model", str(broken), "--port", str(free_port()), code=1)
    assert "is not a whole ONNX file" in refusal
    assert "Traceback" not in refusal
