"""Start servers for tests on this machine: an S3 server and PostgreSQL."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

# Far longer than anything takes, even on a busy machine: a wait that reaches this has failed.
PATIENCE = 1200  # seconds
# The environment variables for clients of the S3 server, as in docs/scale.md.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return free.getsockname()[1]


def answers(port: int) -> bool:
    """Return whether something listens at a port of this machine."""
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    return False


@contextmanager
def s3():
    """Run an S3 server with the buckets `pipeline-cache` and `pipeline-runs`; yield a client and its URL."""
    import boto3

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)])
    deadline = time.monotonic() + PATIENCE
    while not answers(port):
        assert time.monotonic() < deadline, "the S3 server did not start"
        time.sleep(0.05)
    client = boto3.client(
        "s3",
        endpoint_url=address,
        region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    for bucket in ("pipeline-cache", "pipeline-runs"):
        client.create_bucket(Bucket=bucket)
    yield client, address
    server.terminate()
    server.wait()


@contextmanager
def postgresql():
    """Run a PostgreSQL server with the user and the database `mlflow`; yield its port."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(shutil.which("pg_ctl") or "").parent]
    if not (found[-1] / "pg_ctl").exists():
        pytest.fail("needs PostgreSQL: apt-get install postgresql")
    port = free_port()
    # It refuses to run as root, and the user that it runs as instead may not enter the TMPDIR of the tests.
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = subprocess.run(
        ["mktemp", "-d", "-p", "/tmp"], capture_output=True, text=True, check=True, user=user
    ).stdout.strip()

    def run(program, *arguments):
        subprocess.run(
            [found[-1] / program, *arguments], cwd=folder, user=user, check=True, stdout=subprocess.DEVNULL
        )

    run("initdb", "-D", f"{folder}/data", "-U", "postgres", "--auth=trust")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run("pg_ctl", "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w", "start")
    here = ("-h", "127.0.0.1", "-p", str(port), "-U", "postgres")
    run("createuser", *here, "mlflow")
    run("createdb", *here, "-O", "mlflow", "mlflow")
    yield port
    run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")
    shutil.rmtree(folder)
