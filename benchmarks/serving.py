"""Compare `pipeline serve` with `mlflow models serve` on the same network, and measure it under load.

    python -m benchmarks.serving [--repeats 3] [--minutes 5]

The network is that of experiment=cnn_fast, trained for one epoch. MLflow serves it in two forms: as logged by
`mlflow.keras.log_model`, and as logged by the pipeline, with ONNX Runtime. For the mixed load, clients send
pictures, tensors and invalid data, while another version of the model is promoted after each quarter of the
time. Writes serving.json and serving.md next to this file. Takes a quarter of an hour.
"""

import argparse
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.common import (
    REPOSITORY,
    Ratio,
    Run,
    environment,
    note,
    prepare_repository,
    run,
    save,
    summarise,
)
from benchmarks.page import drawing_line, drawn

EXPERIMENT = "cnn_fast"
NAME = "benchmark"
CLIENTS = 16
SECONDS = 10  # duration of the load
ASKED = 100  # number of requests of which the median is taken
PATIENCE = 300
OURS = "pipeline serve"
PEERS = ("mlflow models serve, Keras", "mlflow models serve, as logged by the pipeline")
READY, ONE = "ready to answer", "one request, p50"
RATIOS = tuple(
    Ratio(f"{what}, against {peer}", f"{OURS}: {what}", f"{peer}: {what}")
    for what in (READY, ONE)
    for peer in PEERS
)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = prepare_model(Path(folder) / "repository")
        files = requests(Path(folder), place)
        runs: dict[str, list[Run]] = {}
        for _ in range(options.repeats):
            compare(place, files, runs)
        loads = [loaded(place, files[:1], SECONDS) for _ in range(options.repeats)]
        with served(["pipeline", "serve"], place, "/health", {}) as (port, _, _):
            drawing = [drawn(port) for _ in range(options.repeats)]
        mixed = mixed_load(place, files, 60 * options.minutes)
    results = summarise(runs, options.repeats, RATIOS)
    results |= {"load": loads, "drawing": drawing, "mixed": mixed}
    lines = [*page(results), *load_lines(loads), "", drawing_line(drawing), "", *mixed_lines(mixed), ""]
    save("serving", results, "\n".join(lines))


def prepare_model(place: Path) -> Path:
    """Copy the repository, train a model, and register two versions of it in MLflow."""
    prepare_repository(place, f"defaults:\n  - override /experiment: {EXPERIMENT}\ntrain:\n  epochs: 1\n")
    run(["dvc", "repro"], place)
    client = registry(place)
    client.create_registered_model(NAME)
    [model] = logged_models(place)
    for _ in range(2):
        client.create_model_version(
            NAME, f"models:/{model.model_id}", model.source_run_id, model_id=model.model_id
        )
    client.set_registered_model_alias(NAME, "champion", "1")
    store = {"MLFLOW_TRACKING_URI": store_of(place), "KERAS_BACKEND": "tensorflow"}
    subprocess.run([sys.executable, "-c", LOG_AS_KERAS], cwd=place, env=os.environ | store, check=True)
    return place


def store_of(place: Path) -> str:
    """Return the URI of MLflow's store in `place`."""
    return f"sqlite:///{place / 'mlflow.db'}"


def registry(place: Path):  # type: ignore[no-untyped-def]
    """Return an MLflow client for the store of `place`."""
    import mlflow

    # Set globally, too: MLflow looks up the files of a model in the global store.
    mlflow.set_tracking_uri(store_of(place))
    return mlflow.MlflowClient()


def logged_models(place: Path):  # type: ignore[no-untyped-def]
    """Return the models that were logged in `place`, oldest first."""
    client = registry(place)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return sorted(client.search_logged_models(experiments), key=lambda model: model.creation_timestamp)


LOG_AS_KERAS = """
import keras, mlflow
mlflow.set_experiment("peer")
with mlflow.start_run():
    mlflow.keras.log_model(keras.saving.load_model("models/model.keras"), name="model")
"""


def requests(folder: Path, place: Path) -> list[Path]:
    """Write bodies of requests: two pictures, a tensor, and invalid data."""
    image = np.load(place / "data" / "raw" / "test_images.npy", mmap_mode="r")[0]
    buffer = io.BytesIO()
    Image.fromarray(np.array(image)).save(buffer, "PNG")
    photo = io.BytesIO()
    Image.fromarray(255 - np.array(image)).resize((1400, 1400)).save(photo, "JPEG")
    tensor = {"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": image.ravel().tolist()}
    contents = {
        "picture.png": buffer.getvalue(),
        "photo.jpg": photo.getvalue(),
        f"{NAME}.json": json.dumps({"inputs": [tensor]}).encode(),
        "text.png": b"this is no picture",
        "truncated.png": buffer.getvalue()[:100],
        "empty.png": b"",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def compare(place: Path, files: list[Path], runs: dict[str, list[Run]]) -> None:
    """Start the servers in turn, and send requests to each."""
    image = np.load(place / "data" / "raw" / "test_images.npy", mmap_mode="r")[0]
    ours, keras = logged_models(place)
    body = json.dumps({"inputs": [image.tolist()]}).encode()
    mlflow = ["mlflow", "models", "serve", "--env-manager", "local", "-m"]
    store = {"MLFLOW_TRACKING_URI": store_of(place)}
    for name, command, ping, path, content, kind in (
        (OURS, ["pipeline", "serve"], "/health", "/predict", files[0].read_bytes(), "image/png"),
        *(
            (peer, [*mlflow, f"models:/{model.model_id}"], "/ping", "/invocations", body, "application/json")
            for peer, model in zip(PEERS, (keras, ours), strict=True)
        ),
    ):
        with served(command, place, ping, store) as (port, seconds, _):
            one = median(ask(port, path, content, kind))
        for what, measured in ((READY, seconds), (ONE, one)):
            note(runs, f"{name}: {what}", Run(measured))


@contextmanager
def served(
    command: list[str], place: Path, ping: str, settings: dict[str, str]
) -> Iterator[tuple[int, float, int]]:
    """Run a server; yield its port, the seconds until it was ready, and its process id."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    began = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=place,
            env=environment() | settings,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while not answers(port, ping):
                log.seek(0)
                if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                    sys.exit(f"{' '.join(command)} does not answer:\n{log.read().decode()}")
                time.sleep(0.01)
            yield port, time.perf_counter() - began, process.pid
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def answers(port: int, path: str) -> bool:
    """Return whether the server answers `path` with 200."""
    with suppress(OSError, http.client.HTTPException), closing(connect(port)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False


def ask(port: int, path: str, content: bytes, kind: str) -> list[float]:
    """Send requests one after the other over one connection; return the seconds that each took."""
    seconds = []
    with closing(connect(port)) as connection:
        for _ in range(ASKED):
            began = time.perf_counter()
            connection.request("POST", path, content, {"Content-Type": kind})
            response = connection.getresponse()
            text = response.read()
            seconds.append(time.perf_counter() - began)
            if response.status != 200:
                sys.exit(f"{path} answers with {response.status}: {text.decode()}")
    return seconds


def connect(port: int) -> http.client.HTTPConnection:
    """Return a connection to the server on this machine."""
    return http.client.HTTPConnection("127.0.0.1", port, timeout=60)


def loaded(place: Path, files: list[Path], seconds: float) -> dict[str, object]:
    """Start a server, send requests without pause, and return the statistics."""
    with served(["pipeline", "serve"], place, "/health", {}) as (port, _, _):
        found = load(port, files, seconds)
    print(json.dumps(found), flush=True)
    return found


def load(port: int, files: list[Path], seconds: float) -> dict[str, object]:
    """Send requests to a server from a separate process, and return the statistics."""
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(CLIENTS), str(seconds)]
    return json.loads(run([*command, *map(str, files)], REPOSITORY))


def mixed_load(place: Path, files: list[Path], seconds: float) -> dict[str, object]:
    """Measure a mixed load in four quarters, each after a promotion, with the server's memory in MB."""
    client, memory, parts = registry(place), [], []
    with served(["pipeline", "serve", "--model", f"{NAME}@champion"], place, "/health", {}) as (port, _, pid):
        for number in range(4):
            client.set_registered_model_alias(NAME, "champion", str(1 + (number + 1) % 2))
            parts.append(load(port, files, seconds / 4))
            status = Path(f"/proc/{pid}/status").read_text().splitlines()
            [resident] = [line.split()[1] for line in status if line.startswith("VmRSS")]
            memory.append(int(resident) / 1024)
            print(json.dumps(parts[-1]), f"{memory[-1]:.0f} MB", flush=True)
        with closing(connect(port)) as connection:
            connection.request("GET", "/metrics")
            metrics = connection.getresponse().read().decode().splitlines()
    [switches] = [line.split()[1] for line in metrics if line.startswith("pipeline_model_switches_total ")]
    statuses = sum((Counter(part["statuses"]) for part in parts), Counter())
    return {"seconds": seconds, "memory": memory, "statuses": statuses, "switches": int(switches)}


def page(results: dict) -> list[str]:
    """Render the times of the servers, in milliseconds."""
    lines = [
        f"Medians of {results['repeats']} runs in turn on {results['machine']['processors']} processors;"
    ]
    lines += ["written by `python -m benchmarks.serving`."]
    lines += ["", "| what | ms |", "| --- | --- |"]
    lines += [f"| {name} | {1000 * found['wall']:,.2f} |" for name, found in results["measured"].items()]
    lines += ["", "| ratio | |", "| --- | --- |"]
    return [*lines, *(f"| {name} | {found['wall']:.3g} |" for name, found in results["ratios"].items()), ""]


def load_lines(loads: list[dict[str, object]]) -> list[str]:
    """Describe the median of the loads in a sentence."""
    rate, p50, p99 = (median(found[name] for found in loads) for name in ("per_second", "p50", "p99"))
    return [
        f"{CLIENTS} clients that send a PNG repeatedly, one process, `{EXPERIMENT}`: {rate:,.0f} requests "
        f"a second, p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms (the clients share the processors)."
    ]


def mixed_lines(mixed: dict[str, object]) -> list[str]:
    """Describe the mixed load in a sentence."""
    memory = ", ".join(f"{megabytes:.0f}" for megabytes in mixed["memory"])
    statuses = mixed["statuses"]
    lost = sum(number for status, number in statuses.items() if not status.startswith(("2", "4")))
    return [
        f"Mixed load for {mixed['seconds'] / 60:g} minutes (pictures, photos, tensors and invalid data): "
        f"{sum(statuses.values()):,} requests, {lost} lost over {mixed['switches']} promotions; memory after "
        f"each quarter {memory} MB."
    ]


if __name__ == "__main__":
    main()
