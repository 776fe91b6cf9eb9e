"""What rebuilding a run with JAX needs: it is installed, or the run is refused before any work."""

import re
import shutil
from pathlib import Path

import pytest

from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.reproduction import rebuild
from pipeline.reproduction.rebuild import packages_of, rebuilt
from pipeline.reproduction.recorded import Origin
from pipeline.tracking.lineage import Code

REPOSITORY = Path(__file__).parents[2]


def origin(**train):
    return Origin("letters-111111", {"train": train}, Code("a" * 40))


def refused(old, root, own_packages):
    with pytest.raises(PipelineError) as error, rebuilt(old, Workspace(root), own_packages):
        pass
    return str(error.value)


def test_only_the_environment_of_a_run_with_jax_has_jax_with_its_digests():
    locked = (REPOSITORY / "requirements.lock").read_text()
    assert packages_of(origin(backend="tensorflow", device="cpu"), REPOSITORY) == locked
    assert packages_of(origin(), REPOSITORY) == locked  # As written when there was only one backend.
    packages = packages_of(origin(backend="jax", device="cpu"), REPOSITORY)
    assert packages.startswith(locked)
    added = packages.removeprefix(locked)
    assert re.findall(r"^(\S+)==", added, re.MULTILINE) == ["jax", "jaxlib"]
    for block in re.split(r"^jaxlib", added, flags=re.MULTILINE):
        assert "--hash=sha256:" in block
    assert not added.rstrip().endswith("\\")


def test_a_commit_whose_lock_files_lack_a_package_is_refused(tmp_path):
    shutil.copy(REPOSITORY / "requirements.lock", tmp_path)
    with pytest.raises(PipelineError, match="trained with JAX, which the lock files of its commit"):
        packages_of(origin(backend="jax", device="cpu"), tmp_path)
    with pytest.raises(PipelineError, match=r"no requirements\.lock"):
        packages_of(origin(backend="jax", device="cpu"), tmp_path / "elsewhere")


def test_missing_packages_for_a_run_with_jax_are_reported_before_any_work(tmp_path, monkeypatch):
    said = refused(origin(backend="jax", device="gpu"), tmp_path, own_packages=True)
    assert said.startswith("letters-111111 was trained on a GPU, and no lock file has")
    monkeypatch.setattr(rebuild, "find_spec", lambda name: None)
    said = refused(origin(backend="jax", device="cpu"), tmp_path, own_packages=False)
    assert said.startswith(
        "letters-111111 was trained with JAX, which is not installed: `make setup EXTRAS=jax`"
    )
