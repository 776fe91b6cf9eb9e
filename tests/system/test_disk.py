"""Disks that are full or read-only, in a mount namespace that ends with the command."""

import os
import subprocess

import pytest

NAMESPACE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]


@pytest.fixture(autouse=True)
def _namespaces():
    try:
        subprocess.run([*NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        if os.environ.get("CI") == "true":
            pytest.fail("mount namespaces are not available")
        pytest.skip("needs mount namespaces: run as root, or allow unprivileged user namespaces")


def train_with(clone, mount: str) -> tuple[str, set[str]]:
    """Fail to train with a folder mounted differently; return the output and the files in models/."""
    train = "dvc repro --no-run-cache --force --single-item train"
    script = f"{mount} && {train}; code=$?; echo in models:; ls -A models; exit $code"
    output, _, files = clone.run(*NAMESPACE, "sh", "-c", script, code=None).rpartition("in models:\n")
    return output, set(files.splitlines())


def test_a_full_disk_is_reported_in_a_sentence_and_leaves_no_incomplete_file(reproduced, smoke):
    output, files = train_with(smoke, "mount -t tmpfs -o size=8k tmpfs models")
    assert "Epoch 1" in output
    assert "error: The disk is full" in output
    assert "Traceback" not in output
    assert files == set()
    smoke.repro()
    assert smoke.digests() == reproduced.digests()


@pytest.mark.slow
def test_a_read_only_output_folder_is_refused_before_training(reproduced, smoke):
    read_only = "mount --bind models models && mount -o remount,ro,bind models"
    # DVC reports it if it can't remove old outputs, and the stage if there are none.
    assert "Read-only file system" in train_with(smoke, read_only)[0]
    for path in smoke.workspace.model.parent.iterdir():
        path.unlink()
    output, _ = train_with(smoke, read_only)
    assert "error: The file system is read-only at " in output
    assert "Epoch 1" not in output
    assert "Traceback" not in output
    smoke.repro()
    assert smoke.digests() == reproduced.digests()


def test_a_read_only_folder_of_a_later_stage_is_refused_before_training(smoke):
    output, _ = train_with(smoke, "mount --bind reports reports && mount -o remount,ro,bind reports")
    assert "error: The file system is read-only at " in output
    assert "Training" not in output
