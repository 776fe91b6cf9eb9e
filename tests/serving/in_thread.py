"""A server in a thread of the tests, and what it needs to answer."""

import http.client
import json
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import uvicorn

from pipeline.serving.application import create_application
from pipeline.serving.metrics import Metrics
from pipeline.serving.server import Settings, configure
from pipeline.serving.service import Service
from servers import PATIENCE

READER = {
    "image_size": [28, 28],
    "colour": "grey",
    "resize": "pad",
    "background": "black",
    "prepare": "digit",
    "max_pixels": 1_000_000,
}
DESCRIPTION = {
    "run": {"id": "0" * 32, "name": "digits-mlp"},
    "data": "digits",
    "classes": list("0123456789"),
    "image_shape": [28, 28],
    "reader": READER,
    "weights_sha256": "0" * 64,
}


def write_onnx(path, first, second, description=DESCRIPTION):
    """A network of one hidden layer, as a file for use: weights and biases of its two layers."""
    from onnx import TensorProto, helper, numpy_helper, save

    height, width = description["image_shape"]
    weights = {"w1": first[0], "b1": first[1], "w2": second[0], "b2": second[1]}
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["pixels"]),
        helper.make_node("Gemm", ["pixels", "w1", "b1"], ["inner"]),
        helper.make_node("Relu", ["inner"], ["active"]),
        helper.make_node("Gemm", ["active", "w2", "b2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", height, width])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(second[1])])],
        [
            numpy_helper.from_array(np.float32(1 / 255), "scale"),
            numpy_helper.from_array(np.array([-1, height * width]), "flat"),
            *(numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"pipeline": json.dumps(description)})
    save(model, str(path))


def settings(**given):
    defaults = {"model": None, "host": "127.0.0.1", "port": 8000, "workers": 1, "hosts": (), "origins": ()}
    return Settings(**(defaults | {"token": None, "body_mib": 1, "batch_ms": 5} | given))


class Client:
    """A server that runs in a thread of this process, and methods that send requests to it."""

    def __init__(self, port: int, server: uvicorn.Server):
        self.port, self.server = port, server

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, method: str, path: str, body=None, headers=None):
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
            kind = response.headers.get("content-type", "")
            return SimpleNamespace(
                status=response.status,
                headers=response.headers,
                content=content,
                json=json.loads(content) if kind.startswith("application/json") else None,
            )
        finally:
            connection.close()

    def post(self, path: str, body, **headers):
        return self.ask("POST", path, body, {name.replace("_", "-"): text for name, text in headers.items()})

    def get(self, path: str, **headers):
        return self.ask("GET", path, None, headers)


@contextmanager
def running(served, background=None, **given):
    """A server of `served`, as `pipeline serve` configures it."""
    chosen = settings(**given)
    metrics = Metrics(served.classes)
    service = Service(served, metrics, chosen.batch_ms / 1000)
    config = configure(lambda: create_application(service, chosen.access(), background))
    config.port, config.timeout_keep_alive = 0, 1
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    [listener] = server.servers[0].sockets
    try:
        yield Client(listener.getsockname()[1], server)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


def until(condition) -> None:
    """Wait until `condition()` is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.05)
