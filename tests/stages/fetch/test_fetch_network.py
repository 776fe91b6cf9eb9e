"""Servers and programs that fail, stall or send too much, and a fetch that is killed."""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from made_sources import (
    NPM,
    assert_fetched,
    assert_nothing_written,
    config,
    idx,
    idx_files,
    keras,
    npz,
    send,
    write,
)

from pipeline.data.download import download
from pipeline.errors import PipelineError
from pipeline.stages import fetch
from proc import is_running


def test_a_temporary_server_error_is_retried(serve, workspace, pauses):
    url, handler = serve(lambda h, n: h.send_error(500) if n < 3 else send(h, npz()))
    fetch.run(config(keras(url), retries=3), workspace)
    assert_fetched(workspace)
    assert handler.requests == 3
    assert pauses == [1, 2]


def test_a_lasting_server_error_is_given_up(serve, workspace, pauses):
    url, handler = serve(lambda h, _: h.send_error(503))
    with pytest.raises(PipelineError, match="HTTP 503"):
        fetch.run(config(keras(url), retries=3), workspace)
    assert handler.requests == 4
    assert pauses == [1, 2, 4]


def test_a_missing_page_is_not_requested_twice(serve, workspace, pauses):
    url, handler = serve(lambda h, _: h.send_error(404))
    with pytest.raises(PipelineError, match=r"mnist\.npz: HTTP 404"):
        fetch.run(config(keras(url), retries=3), workspace)
    assert handler.requests == 1
    assert not pauses


def test_letters_and_spaces_in_an_address_are_sent_as_a_browser_does(serve):
    asked = []
    url, _ = serve(lambda h, _: (asked.append(h.path), send(h, b"found")))
    with download(f"{url}/größe 1/a%20b.zip?x=1&y=ü", config(NPM).data) as file:
        assert file.read() == b"found"
    assert asked == ["/gr%C3%B6%C3%9Fe%201/a%20b.zip?x=1&y=%C3%BC"]


@pytest.mark.parametrize("url", ["http://[::1", "http://a..b"])
def test_an_address_that_is_none_is_refused_at_once(url, workspace, pauses):
    with pytest.raises(PipelineError, match=r"mnist\.npz: .*[Ii]nvalid|codec failed"):
        fetch.run(config(keras(url)), workspace)
    assert not pauses


def test_a_length_that_is_no_number_is_ignored(serve, workspace):
    url, _ = serve(lambda h, _: send(h, npz(), claimed="unknown"))
    fetch.run(config(keras(url)), workspace)
    assert_fetched(workspace)


@pytest.mark.parametrize("sent", [0, 100])
def test_a_stalled_download_times_out_and_is_retried(sent, serve, workspace, pauses):
    over = threading.Event()

    def answer(handler, n):
        if n == 1:
            if sent:
                send(handler, npz()[:sent], claimed=len(npz()))
            over.wait(10)
        else:
            send(handler, npz())

    url, _ = serve(answer)
    started = time.monotonic()
    fetch.run(config(keras(url), timeout=0.3, retries=1), workspace)
    assert time.monotonic() - started < 3
    over.set()
    assert_fetched(workspace)
    assert pauses == [1]


def test_a_truncated_download_is_retried_then_the_next_source_is_used(
    serve, tmp_path, workspace, pauses, capsys
):
    url, handler = serve(lambda h, _: send(h, npz()[:-50], claimed=len(npz())))
    fetch.run(config(keras(url), idx(write(tmp_path / "mine", idx_files())), retries=1), workspace)
    assert_fetched(workspace)
    assert handler.requests == 2
    assert f"lost after {len(npz()) - 50} of {len(npz())} bytes" in capsys.readouterr().out


@pytest.mark.parametrize("claims", [True, False])
def test_a_body_over_the_limit_is_refused(claims, serve, workspace, pauses):
    def answer(handler, _):
        handler.send_response(200)
        if claims:
            handler.send_header("Content-Length", "1000000000000")
        handler.end_headers()
        handler.wfile.write(bytes(20_000))

    url, handler = serve(answer)
    with pytest.raises(PipelineError, match=r"more than data\.max_bytes"):
        fetch.run(config(keras(url), max_bytes=10_000, retries=3), workspace)
    assert handler.requests == 1
    assert_nothing_written(workspace)


def test_an_unknown_host_is_given_up_at_once(workspace, pauses):
    with pytest.raises(PipelineError, match=r"made\.invalid"):
        fetch.run(config(keras("http://made.invalid"), retries=10), workspace)
    assert not pauses


@pytest.mark.parametrize("part", ["header", "body"])
def test_a_server_that_sends_single_bytes_is_given_up_at_the_deadline(part, serve, workspace, pauses):
    over = threading.Event()

    def answer(handler, _):
        if part == "body":
            send(handler, b"", claimed=1000)
        while not over.wait(0.1):
            handler.wfile.write(b"H" if part == "header" else b"x")
            handler.wfile.flush()

    url, handler = serve(answer)
    started = time.monotonic()
    with pytest.raises(PipelineError, match=r"not complete after 0\.7 s \(data\.deadline\)"):
        fetch.run(config(keras(url), timeout=1.0, deadline=0.7, retries=3), workspace)
    over.set()
    assert time.monotonic() - started < 5
    assert (handler.requests, pauses) == (1, [])


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path, programs, workspace):
    programs("npm", f"sleep 60 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(PipelineError, match=r"npm did not finish within 0\.5 s"):
        fetch.run(config(NPM, deadline=0.5), workspace)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 30  # The kernel may take a while; the child alone would sleep for longer.
    while is_running(child):
        assert time.monotonic() < deadline, "the child is still running"
        time.sleep(0.05)


def test_a_program_that_fails_is_quoted_and_leaves_nothing(tmp_path, programs, workspace, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    programs("npm", "echo 'npm error code ETARGET' >&2; exit 1")
    with pytest.raises(PipelineError, match="npm failed: npm error code ETARGET"):
        fetch.run(config(NPM), workspace)
    assert not list((tmp_path / "temporary").iterdir())


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from made_sources import config, keras
from pipeline.artifacts.workspace import Workspace
from pipeline.stages import fetch
fetch.run(config(keras(sys.argv[2])), Workspace(Path(sys.argv[3])))
"""


def test_a_fetch_killed_during_a_download_leaves_nothing_and_its_rerun_succeeds(serve, workspace):
    half_sent, over = threading.Event(), threading.Event()

    def answer(handler, n):
        if n > 1:
            return send(handler, npz())
        send(handler, npz()[:1000], claimed=len(npz()))
        half_sent.set()
        return over.wait(20)

    url, _ = serve(answer)
    workspace.root.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent), url, str(workspace.root)]
    )
    assert half_sent.wait(20)
    child.send_signal(signal.SIGKILL)
    child.wait()
    over.set()
    assert_nothing_written(workspace)
    fetch.run(config(keras(url)), workspace)
    assert_fetched(workspace)


def test_incomplete_files_of_a_killed_fetch_are_removed(tmp_path, workspace):
    dead = subprocess.Popen(["true"])
    dead.wait()
    write(workspace.raw.parent / f".raw.{dead.pid}.tmp", {"train_images.npy": b"half"})
    fetch.run(config(idx(write(tmp_path / "mine", idx_files()))), workspace)
    assert_fetched(workspace)
