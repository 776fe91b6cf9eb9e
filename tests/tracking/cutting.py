"""Break connections and kill processes at a chosen moment, and list what a store contains afterwards."""

import http.client
import os
import re
import signal
import sqlite3
import tempfile
import threading
import time
import traceback
from contextlib import closing, contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from servers import PATIENCE

# What a proxy does to the chosen request: whether the server gets it, and whether the client gets a 500.
BREAKS = {
    "not sent": (False, False),
    "no answer": (True, False),
    "500 instead": (False, True),
    "500 after it": (True, True),
}


class Proxy:
    """An HTTP proxy that counts requests and breaks one.

    It breaks the `cut`-th request from now, counted from 1, or the first one that starts with `cut`, such as
    "POST /path". With `victim`, it also kills that process, or a process group if the number is negative.
    With `meet`, the first two requests that start with it wait for each other.
    """

    def __init__(self, target):
        self.requests, self.cut, self.how, self.victim = [], 0, "not sent", None
        self.delay = 0.0  # seconds before each request
        self.meet, self._both = None, threading.Barrier(2)
        self._lock = threading.Lock()
        address = urlsplit(target)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self):
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                time.sleep(proxy.delay)
                with proxy._lock:
                    request = f"{self.command} {self.path}"
                    proxy.requests.append(request)
                    breaks = proxy._breaks(request)
                    meets = proxy.meet and sum(one.startswith(proxy.meet) for one in proxy.requests) <= 2
                if meets and request.startswith(proxy.meet):
                    proxy._both.wait(PATIENCE)
                forwarded, answers = BREAKS[proxy.how] if breaks else (True, False)
                if forwarded:
                    server = http.client.HTTPConnection(address.hostname, address.port, timeout=PATIENCE)
                    server.request(self.command, self.path, body, dict(self.headers))
                    answer = server.getresponse()
                    status, content = answer.status, answer.read()
                    kind = answer.getheader("Content-Type", "application/json")
                    server.close()
                if breaks and proxy.victim:
                    os.kill(proxy.victim, signal.SIGKILL)
                if breaks and not answers:
                    self.close_connection = True
                    return
                if breaks:
                    status, content, kind = 500, b'{"error_code": "INTERNAL_ERROR"}', "application/json"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _breaks(self, request):
        if isinstance(self.cut, int):
            return len(self.requests) == self.cut
        return request.startswith(self.cut) and sum(one.startswith(self.cut) for one in self.requests) == 1

    @contextmanager
    def breaking(self, cut, how="not sent"):
        """Inside the `with`, break the `cut`-th request, or the first that starts with it; 0 for none."""
        self.requests, self.cut, self.how = [], cut, how
        try:
            yield self
        finally:
            self.cut, self.victim = 0, None

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


# The rows of an experiment in a database, without times, random ids and digests of files that contain these.
_QUERIES = {
    "runs": "SELECT name, status, lifecycle_stage, end_time IS NOT NULL FROM runs r WHERE {of}",
    "params": "SELECT r.name, key, value FROM params JOIN runs r USING (run_uuid) WHERE {of}",
    "metrics": "SELECT r.name, key, step, value, is_nan FROM metrics JOIN runs r USING (run_uuid) WHERE {of}",
    "latest": "SELECT r.name, key, step, value FROM latest_metrics JOIN runs r USING (run_uuid) WHERE {of}",
    "tags": """SELECT r.name, key, CASE WHEN key = 'mlflow.runColor' OR key LIKE 'pipeline.files.%'
        THEN '' ELSE value END FROM tags JOIN runs r USING (run_uuid) WHERE {of}""",
    "inputs": """SELECT r.name, d.name, d.digest, t.name, t.value FROM inputs i
        JOIN runs r ON r.run_uuid = i.destination_id JOIN datasets d ON d.dataset_uuid = i.source_id
        LEFT JOIN input_tags t USING (input_uuid) WHERE {of}""",
    "outputs": "SELECT r.name, i.step FROM inputs i JOIN runs r ON r.run_uuid = i.source_id WHERE {of}",
    "models": "SELECT name, status, lifecycle_stage FROM logged_models r WHERE {of}",
    "model params": "SELECT param_key, param_value FROM logged_model_params r WHERE {of}",
    "model tags": """SELECT tag_key, CASE WHEN tag_key LIKE 'pipeline.files.%' THEN '' ELSE tag_value END
        FROM logged_model_tags r WHERE {of}""",
    "model metrics": """SELECT metric_name, metric_step, metric_value, dataset_name, dataset_digest
        FROM logged_model_metrics r WHERE {of}""",
}


def holds(database, artifacts, experiment, others):
    """Return all rows and files of an experiment, as sorted lines.

    Args:
        database: The SQLite file.
        artifacts: The folder of the experiment's artifacts.
        experiment: The name of the experiment.
        others: Replacements for names that are different each time.
    """
    with closing(sqlite3.connect(database)) as connection:
        [[number]] = connection.execute(
            "SELECT experiment_id FROM experiments WHERE name = ?", (experiment,)
        ).fetchall()
        ids = {experiment: "experiment", **others}
        for table, key in (("runs", "run_uuid"), ("logged_models", "model_id")):
            query = f"SELECT {key} FROM {table} WHERE experiment_id = ? ORDER BY name, 1"
            found = connection.execute(query, (number,)).fetchall()
            ids |= {one: f"{table} {position}" for position, (one,) in enumerate(found)}

        def named(text):
            return re.sub("|".join(ids) or "$^", lambda match: ids[match[0]], str(text))

        lines = [
            named((table, *row))
            for table, query in _QUERIES.items()
            for row in connection.execute(query.format(of=f"r.experiment_id = {number}"))
        ]
    return sorted([*lines, *_files(Path(artifacts), named)])


def _files(folder, named):
    found = []
    for path in folder.rglob("*"):
        # MLflow writes the time and random ids into the description of a model.
        if path.is_file():
            content = (
                ""
                if path.name == "MLmodel"
                else sha256(named(path.read_bytes().decode("latin-1")).encode()).hexdigest()
            )
            found.append(f"{named(path.relative_to(folder))} {content}")
    return found


def forked(action, before=lambda process: None):
    """Run `action` in a fork of this process, after `before(pid)`, and return the exit code.

    The temporary files of a killed fork are removed, as the next command would do.
    """
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory() as folder:

        def act():
            os.close(writer)
            os.read(reader, 1)
            tempfile.tempdir = folder
            action()

        process = _fork(act)
        before(process)
        os.close(reader)
        os.close(writer)
        return _exit_code(process)


def together(*actions):
    """Run each action in a fork of this process, in parallel, and return the exit codes."""
    return [_exit_code(process) for process in [_fork(action) for action in actions]]


def _fork(action):
    process = os.fork()
    if not process:
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return process


def _exit_code(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def die_at_commit(number):
    """Kill this process instead of its `number`-th commit to a database; with 0, only count commits."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    seen = []

    @event.listens_for(Engine, "commit")
    def count(_):
        seen.append(1)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return seen
