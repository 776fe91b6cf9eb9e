"""A reused worker runs stages with real data: what it writes, and how it ends."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.config.compose import compose
from pipeline.config.params import dump
from pipeline.environment import Target
from pipeline.processes.context import TrialContext
from pipeline.processes.fork_server import Fork
from pipeline.sweeps import job
from pipeline.trials import trial
from pipeline.trials.preload import DVC, start_fork_server
from pipeline.trials.worker import Worker
from proc import is_running
from servers import PATIENCE

REPOSITORY = Path(__file__).parents[2]
UNENDING = "train.epochs=100000"


def laid_out(root, *overrides):
    """A workspace with a pipeline and its values but without code, which the worker or PYTHONPATH has."""
    root.mkdir()
    shutil.copy(REPOSITORY / "dvc.yaml", root)
    workspace = Workspace(root)
    workspace.params.write_text(dump(compose(REPOSITORY / "conf", ["data=digits", *overrides])))
    return workspace


def begin(workspace, stage, worker=None):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    if worker:
        environment |= TrialContext(worker=worker.address).as_environment()
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.stages", stage],
        cwd=workspace.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ran(workspace, stage, worker=None):
    process = begin(workspace, stage, worker)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


def artifacts(workspace):
    """Return the digests of everything that the stages wrote."""
    places = ("data/raw", "data/processed", "models", "reports")
    files = [path for place in places for path in (workspace.root / place).rglob("*") if path.is_file()]
    return {str(p.relative_to(workspace.root)): sha256(p) for p in files}


@pytest.fixture(scope="module")
def temporary():
    """The folder in which the server and its forks would put temporary files."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def server(temporary):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TMPDIR", str(temporary))
        started = start_fork_server(Workspace(REPOSITORY))
    with started:
        yield started


@pytest.fixture
def worker(server):
    started = Worker(server.address)
    yield started
    started.stop()


@pytest.mark.slow
def test_a_stage_in_a_worker_writes_what_it_writes_in_a_process_of_its_own(worker, tmp_path):
    variants = {
        "mlp": ["train.epochs=2", "model.dropout=0.2", "train.augment.shift=1"],
        "cnn": ["model=cnn", "train.epochs=1"],
    }
    expected = {}
    for name, overrides in variants.items():
        alone = laid_out(tmp_path / name, *overrides)
        for stage in ("fetch", "preprocess"):
            ran(alone, stage, worker)
        for stage in ("train", "evaluate"):
            ran(alone, stage)
        expected[name] = artifacts(alone)
        assert len(expected[name]) > 15
    # Run one stage again: its output would show if other stages left something in the worker.
    for number, name in enumerate(("mlp", "cnn", "mlp")):
        handed = laid_out(tmp_path / f"{number}", *variants[name])
        shutil.copytree(tmp_path / name / "data", handed.root / "data")
        for stage in ("train", "evaluate"):
            ran(handed, stage, worker)
        assert artifacts(handed) == expected[name]


def test_a_refusal_comes_from_the_stage_and_the_worker_continues(worker, tmp_path):
    workspace = laid_out(tmp_path / "workspace", "preprocess.validation_fraction=0.999")
    ran(workspace, "fetch", worker)
    process = begin(workspace, "preprocess", worker)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert output.startswith("error: digits has no training image")
    assert "Fetched digits" in ran(workspace, "fetch", worker)


def test_a_stage_ends_with_the_process_that_waits_for_it_and_the_worker_continues(worker, tmp_path):
    workspace = laid_out(tmp_path / "workspace", UNENDING)
    for stage in ("fetch", "preprocess"):
        ran(workspace, stage, worker)
    waiting = begin(workspace, "train", worker)
    wait_for_output(waiting, "Epoch 2 of")
    waiting.kill()
    waiting.wait()
    # It takes one stage at a time, so this one waits for the end of the other.
    assert "Fetched digits" in ran(workspace, "fetch", worker)
    assert not workspace.model.exists()
    assert worker.alive


def test_a_worker_that_dies_fails_its_stage_in_a_sentence(worker, tmp_path):
    workspace = laid_out(tmp_path / "workspace", UNENDING)
    for stage in ("fetch", "preprocess"):
        ran(workspace, stage, worker)
    waiting = begin(workspace, "train", worker)
    wait_for_output(waiting, "Epoch 2 of")
    os.kill(worker.pid, signal.SIGKILL)
    output, _ = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 1
    assert "the worker that ran the stage train died" in output
    assert "Traceback" not in output
    worker.wait()
    assert not worker.alive
    later = begin(workspace, "fetch", worker)
    output, _ = later.communicate(timeout=PATIENCE)
    assert (later.returncode, "died" in output) == (1, True)


def test_a_worker_leaves_no_temporary_files(server, temporary, tmp_path):
    worker = Worker(server.address)
    workspace = laid_out(tmp_path / "workspace", "train.epochs=1")
    for stage in ("fetch", "preprocess", "train"):
        ran(workspace, stage, worker)
    folder = Path(worker.address).parent
    # A library may leave such files in a process that ends without its exit handlers.
    (folder / "left_over.py").write_text("")
    worker.stop()
    assert not folder.exists()
    assert not list(temporary.iterdir())


def test_a_worker_is_replaced_before_it_has_grown_too_large(server, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_TRIALS_OF_A_WORKER", 2)
    own = job.Job(tmp_path, tmp_path, {}, os.getpid(), False, server.address)
    workers = [own._warm(Target())[1] for _ in range(3)]
    assert workers[0] is workers[1]
    assert workers[1] is not workers[2]
    assert not workers[1].alive
    assert workers[2].alive
    workers[2].stop()


def test_without_the_drivers_server_a_process_has_its_own(tmp_path, monkeypatch):
    """This is so on another machine, or if the server died."""
    for name in ("_own_server", "_worker"):
        monkeypatch.setattr(job.Job, name, None)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "src").symlink_to(REPOSITORY / "src")
    own = job.Job(tmp_path, tmp_path, {}, os.getpid(), False, str(tmp_path / "nowhere"))
    address, worker = own._warm(Target())
    assert worker.alive
    assert own._warm(Target()) == (address, worker)
    worker.stop()
    job.Job._own_server.stop()


def test_a_worker_that_is_asked_to_end_before_it_started_ends():
    with start_fork_server(Workspace(REPOSITORY)) as importing:
        worker = Worker(importing.address)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(timeout=0.1)
        worker.terminate()
        assert worker.wait(timeout=PATIENCE) == -signal.SIGKILL
        assert not worker.alive


def test_with_jax_tensorflow_is_imported_only_for_a_worker_that_needs_it():
    with start_fork_server(Workspace(REPOSITORY), "jax") as importing:
        forked = Worker(importing.address, Target("jax"))  # By the process without Keras, once it is ready.
        idle = children(int(parent_of(forked.pid))) - {str(forked.pid)}
        assert len(idle) == 1
        assert not has_tensorflow(*idle)
        worker = Worker(importing.address)
        assert parent_of(worker.pid) in idle
        assert has_tensorflow(*idle)
        worker.stop()
        forked.stop()


def parent_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().split()[3]


def children(pid):
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def has_tensorflow(pid):
    return "libtensorflow" in Path(f"/proc/{pid}/maps").read_text()


def test_after_a_fork_was_waited_for_none_of_its_processes_is_left(server, tmp_path):
    with (tmp_path / "log").open("w") as log:
        for _ in range(20):
            # Refused, since there is no pipeline.
            output = (log.fileno(), log.fileno())
            fork = Fork(server.address, DVC, trial.__name__, [str(tmp_path)], tmp_path, os.environ, output)
            pid = fork.pid
            assert fork.wait(timeout=PATIENCE) == 1
            assert not is_running(pid)


def test_if_the_process_with_keras_was_killed_a_worker_is_refused():
    with start_fork_server(Workspace(REPOSITORY)) as server:
        worker = Worker(server.address)
        os.kill(int(parent_of(worker.pid)), signal.SIGKILL)
        worker.wait()
        with pytest.raises(OSError):
            Worker(server.address)


def test_a_worker_ends_with_its_owner(server):
    script = (
        "import time\nfrom pipeline.trials.worker import Worker\n"
        f"worker = Worker({server.address!r})\nprint(worker.pid, flush=True)\ntime.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + PATIENCE
    while is_running(pid):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.1)


def wait_for_output(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"it ended without {text!r}")
