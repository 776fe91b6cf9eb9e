"""Servers that answer, but not as MLflow does: the message says what is wrong and what to do."""

import datetime
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from harness import config, free_port, kept, train

from pipeline.cli import training as cli
from pipeline.errors import PipelineError
from pipeline.tracking import session as tracking

PAGE = b"<!doctype html><html><body><h1>Sign in</h1></body></html>"


@contextmanager
def answering(status, body, certificate=None):
    """Run a server that gives the same answer to all requests; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate that nobody trusts, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "example.org")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    return path


def refused(uri, workspace):
    with pytest.raises(PipelineError) as found:
        list(tracking.sync(config(tracking={"uri": uri}).tracking, workspace))
    return str(found.value)


@pytest.fixture
def unsent(workspace):
    """A workspace with two kept runs."""
    for seed in range(2):
        train(config(seed=seed, tracking={"uri": f"http://127.0.0.1:{free_port()}"}), workspace)
    return workspace


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, b"Sign in first.", "HTTP status 401 Unauthorized. Sign in first. Set MLFLOW_TRACKING_USERNAME"),
        (403, PAGE, "HTTP status 403 Forbidden. The run is kept"),
        (404, PAGE, "HTTP status 404 Not Found. Is this the address of MLflow, with its path?"),
        (413, PAGE, "HTTP status 413 Request Entity Too Large. The server, or a proxy"),
        (502, PAGE, "HTTP status 502 Bad Gateway. The run is kept"),
        (200, PAGE, "a page instead of data. Is this the address of MLflow, or of a login page?"),
        (200, b'{"status": "ok"}', "does not answer as MLflow does. Is the address right?"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_answer_as_mlflow_is_reported_once_with_the_remedy(
    unsent, status, body, reason
):
    with answering(status, body) as uri:
        message = refused(uri, unsent)
    assert f"MLflow at {uri} could not be brought up to date: " in message
    assert reason in message
    assert "<" not in message
    assert len(kept(unsent)) == 2


def test_a_certificate_that_is_not_trusted_is_named_as_the_reason(unsent, certificate):
    with answering(200, b"{}", certificate) as uri:
        message = refused(uri, unsent)
    assert "Its certificate is not trusted (self-signed certificate)." in message
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in message


def test_a_connection_that_is_closed_without_an_answer_is_reported_without_names_of_classes(unsent):
    with answering(200, b"", None) as uri:
        message = refused(uri.replace("http:", "https:"), unsent)
    assert "wrong version number" in message.lower().replace("_", " ")
    assert "Pool" not in message


def test_the_command_sync_fails_if_a_run_stays(unsent, monkeypatch, capsys):
    monkeypatch.setattr(cli, "repository", lambda: unsent)
    monkeypatch.setattr(cli, "tracking_of", lambda workspace: config().tracking)
    (kept(unsent)[0] / "models" / "model.keras").unlink()
    with pytest.raises(PipelineError, match="1 run could not be sent"):
        cli.sync()
    assert "stays in .pipeline/runs" in capsys.readouterr().out
    assert len(kept(unsent)) == 1


def test_a_deleted_run_on_a_server_of_conf_is_restored_by_the_command_that_the_message_names(
    workspace, server
):
    from mlflow import MlflowClient

    settings = config(seed=7, tracking={"uri": server.uri})
    train(settings, workspace)
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name(settings.tracking.experiment)
    [run] = client.search_runs([experiment.experiment_id], "params.seed = '7'")
    client.delete_run(run.info.run_id)
    [line] = list(tracking.sync(settings.tracking, workspace))
    assert f"`MLFLOW_TRACKING_URI={server.uri} mlflow runs restore --run-id {run.info.run_id}`" in line
    assert f"The run {run.info.run_name} was deleted" in line
