"""Time `pipeline serve` against `mlflow models serve` on the same model, and load it.

    python -m benchmarks.serving [--repeats 3] [--minutes 5]

The model is one of experiment=cnn_fast, trained for one epoch. Under mixed load, clients send pictures,
tensors and what is neither, while another version of the model is promoted each quarter of the time. Writes
serving.json and serving.md beside this file, and takes a quarter of an hour.
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
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.__main__ import HERE, REPOSITORY, Ratio, Run, prepare_repository, render, run, summarise

EXPERIMENT = "cnn_fast"
NAME = "benchmark"
CLIENTS = 16
SECONDS = 10  # of the load
ASKED = 30  # requests whose median counts
PATIENCE = 300
READY, PEER_READY = "pipeline serve, until it is ready", "mlflow models serve, until it is ready"
ONE, PEER_ONE = "pipeline serve, a request with a PNG, p50", "mlflow models serve, a request with JSON, p50"
RATIOS = (
    Ratio("ready to answer, against `mlflow models serve`", READY, PEER_READY),
    Ratio("one request, p50, against `mlflow models serve`", ONE, PEER_ONE),
)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = "src"
    with tempfile.TemporaryDirectory() as folder:
        place = prepare_model(Path(folder) / "repository")
        files = requests(Path(folder), place)
        runs: dict[str, list[Run]] = {}
        for _ in range(options.repeats):
            compare(place, files, runs)
        loads = [loaded(place, files[:1], SECONDS) for _ in range(options.repeats)]
        mixed = mixed_load(place, files, 60 * options.minutes)
    results = summarise(runs, options.repeats, RATIOS) | {"load": loads, "mixed": mixed}
    table = "\n".join([render(results), *load_lines(loads), "", *mixed_lines(mixed), ""])
    (HERE / "serving.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (HERE / "serving.md").write_text(table, encoding="utf-8")
    print(table)


def prepare_model(place: Path) -> Path:
    """A copy of the repository with a trained model, of which MLflow's registry has two versions."""
    prepare_repository(place)
    config = place / "conf" / "config.yaml"
    config.write_text(config.read_text().replace("experiment: null", f"experiment: {EXPERIMENT}"))
    local = place / "conf" / "local" / "default.yaml"
    local.parent.mkdir(exist_ok=True)
    local.write_text("# @package _global_\ntrain:\n  epochs: 1\n")
    run(["dvc", "repro"], place)
    client = registry(place)
    client.create_registered_model(NAME)
    model = logged_model(place)
    for _ in range(2):
        client.create_model_version(
            NAME, f"models:/{model.model_id}", model.source_run_id, model_id=model.model_id
        )
    client.set_registered_model_alias(NAME, "champion", "1")
    return place


def registry(place: Path):  # type: ignore[no-untyped-def]
    """MLflow's client of the store of `place`."""
    import mlflow

    # Not only the client's: MLflow looks the files of a model up in the store that is set.
    mlflow.set_tracking_uri(f"sqlite:///{place / 'mlflow.db'}")
    return mlflow.MlflowClient()


def logged_model(place: Path):  # type: ignore[no-untyped-def]
    """The model that was trained in `place`."""
    client = registry(place)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    [model] = client.search_logged_models(experiments)
    return model


def requests(folder: Path, place: Path) -> list[Path]:
    """Bodies of requests: first a picture, then a tensor, then what is refused."""
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
    """Start both servers by turns, and ask each."""
    image = np.load(place / "data" / "raw" / "test_images.npy", mmap_mode="r")[0]
    peer = ["mlflow", "models", "serve", "-m", f"models:/{logged_model(place).model_id}"]
    peer += ["--env-manager", "local"]
    body = json.dumps({"inputs": [image.tolist()]})
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}"}
    for command, ping, path, content, kind, ready, one in (
        (["pipeline", "serve"], "/health", "/predict", files[0].read_bytes(), "image/png", READY, ONE),
        (peer, "/ping", "/invocations", body, "application/json", PEER_READY, PEER_ONE),
    ):
        with served(command, place, ping, store) as (port, seconds, _):
            runs.setdefault(ready, []).append(Run(seconds))
            asked = [ask(port, path, content, kind) for _ in range(ASKED)]
            runs.setdefault(one, []).append(Run(median(asked)))
            print(f"{command[0]}: ready in {seconds:.2f} s, {1000 * median(asked):.2f} ms", flush=True)


@contextmanager
def served(
    command: list[str], place: Path, ping: str, environment: dict[str, str]
) -> Iterator[tuple[int, float, int]]:
    """A server: its port, the seconds until it was ready, and its process."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    began = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=place,
            env=os.environ | environment | {"PATH": paths},
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
    """Whether the server says that it is well."""
    with suppress(OSError, http.client.HTTPException), closing(connect(port)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False


def ask(port: int, path: str, content: bytes | str, kind: str) -> float:
    """The seconds that one request takes, with a connection of its own."""
    began = time.perf_counter()
    with closing(connect(port)) as connection:
        connection.request("POST", path, content, {"Content-Type": kind})
        response = connection.getresponse()
        text = response.read()
    if response.status != 200:
        sys.exit(f"{path} answers with {response.status}: {text.decode()}")
    return time.perf_counter() - began


def connect(port: int) -> http.client.HTTPConnection:
    """A connection to this machine."""
    return http.client.HTTPConnection("127.0.0.1", port, timeout=60)


def loaded(place: Path, files: list[Path], seconds: float) -> dict[str, object]:
    """What clients meet that ask all the time."""
    with served(["pipeline", "serve"], place, "/health", {}) as (port, _, _):
        found = load(port, files, seconds)
    print(json.dumps(found), flush=True)
    return found


def load(port: int, files: list[Path], seconds: float) -> dict[str, object]:
    """Load a server from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(CLIENTS), str(seconds)]
    return json.loads(run([*command, *map(str, files)], REPOSITORY))


def mixed_load(place: Path, files: list[Path], seconds: float) -> dict[str, object]:
    """Mixed load in four quarters, with a promotion after each; the server's memory after each, in MB."""
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
    statuses: dict[str, int] = {}
    for part in parts:
        for status, number in part["statuses"].items():
            statuses[status] = statuses.get(status, 0) + number
    return {"seconds": seconds, "memory": memory, "statuses": statuses, "switches": int(switches)}


def load_lines(loads: list[dict[str, object]]) -> list[str]:
    """The median of the loads in words."""
    rate, p50, p99 = (median(found[name] for found in loads) for name in ("per_second", "p50", "p99"))
    return [
        f"{CLIENTS} clients that send a PNG over and over, one process, `{EXPERIMENT}`: {rate:,.0f} requests "
        f"a second, p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms (the clients share the processors)."
    ]


def mixed_lines(mixed: dict[str, object]) -> list[str]:
    """The mixed load in words."""
    memory = ", ".join(f"{megabytes:.0f}" for megabytes in mixed["memory"])
    statuses = mixed["statuses"]
    lost = sum(number for status, number in statuses.items() if not status.startswith(("2", "4")))
    return [
        f"Mixed load for {mixed['seconds'] / 60:g} minutes (pictures, photos, tensors, and what is neither): "
        f"{sum(statuses.values()):,} requests, {lost} lost over {mixed['switches']} promotions; memory after "
        f"each quarter {memory} MB."
    ]


if __name__ == "__main__":
    main()
