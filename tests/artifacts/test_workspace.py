import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline.artifacts.workspace import (
    SPLITS,
    Workspace,
    atomic,
    copy_file,
    here,
    origin_of,
    remove,
    sha256,
    write_csv,
    write_text,
)
from pipeline.cli.app import tracking_of
from pipeline.errors import PipelineError

REPOSITORY = Path(__file__).parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- atomic ------------------------------------------------------------------------------------


def test_a_file_gets_its_final_name_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert names(path.parent) == ["file.txt"]


def test_a_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "file.txt"
    for text in ("old", "new"):
        write_text(path, text)
        assert path.read_text() == text
    assert names(tmp_path) == ["file.txt"]


def test_a_folder_replaces_the_old_one_and_all_its_contents(tmp_path):
    path = tmp_path / "folder"
    for name in ("old", "new"):
        with atomic(path) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert names(path) == ["new"]
    assert names(tmp_path) == ["folder"]


def test_a_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "kept.txt").touch()
    with pytest.raises(PipelineError, match="docs is a folder, and has to be a file"):
        write_text(tmp_path / "docs", "text")
    assert names(tmp_path) == ["docs"]
    assert names(tmp_path / "docs") == ["kept.txt"]


def test_a_file_of_another_program_with_a_date_in_its_name_is_kept(tmp_path):
    (tmp_path / ".file.txt.20261128110000.tmp").touch()
    write_text(tmp_path / "file.txt", "text")
    assert names(tmp_path) == [".file.txt.20261128110000.tmp", "file.txt"]


def test_a_link_to_a_folder_is_replaced_and_the_folder_is_unchanged(tmp_path):
    target, path = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    (target / "kept").touch()
    path.symlink_to(target)
    with atomic(path) as temporary:
        temporary.mkdir()
    assert names(target) == ["kept"]
    assert path.is_dir()
    assert not path.is_symlink()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_after_an_exception_only_the_old_content_is_left(tmp_path, kind, error):
    path = tmp_path / "artifact"

    def write(place, content):
        if kind == "folder":
            place.mkdir()
            place /= "inside"
        place.write_text(content)

    with atomic(path) as temporary:
        write(temporary, "old")

    def fail():
        with atomic(path) as temporary:
            write(temporary, "new")
            raise error

    with pytest.raises(error):
        fail()
    assert (path / "inside" if kind == "folder" else path).read_text() == "old"
    assert names(tmp_path) == ["artifact"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_files_of_a_killed_writer_are_removed_and_never_have_the_final_name(tmp_path, kind):
    path = tmp_path / "artifact"
    script = f"""
import sys, time
from pathlib import Path
from pipeline.artifacts.workspace import atomic
with atomic(Path({str(path)!r})) as temporary:
    if {kind!r} == "folder":
        temporary.mkdir()
        temporary /= "inside"
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "writing\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert len(names(tmp_path)) == 1
    assert not path.exists()
    (tmp_path / ".artifact2.1.tmp").touch()  # Another artifact's.
    write_text(path, "whole")
    assert names(tmp_path) == [".artifact2.1.tmp", "artifact"]
    assert path.read_text() == "whole"


def test_files_of_a_writer_that_is_alive_are_kept(tmp_path):
    path, alive = tmp_path / "artifact", f".artifact.{os.getppid()}.tmp"
    own, ended = f".artifact.{os.getpid()}.tmp.part", f".artifact.{2**22 + 1}.tmp"  # No process has that id.
    for name in (alive, own, ended):
        (tmp_path / name).touch()
    write_text(path, "whole")
    assert names(tmp_path) == [alive, "artifact"]


def test_a_table_and_a_copy_have_all_their_content(tmp_path):
    write_csv(tmp_path / "new" / "table.csv", ("name", "number"), [("ü,x", 1), ("y", None)])
    expected = 'name,number\n"ü,x",1\ny,\n'.encode()
    assert (tmp_path / "new" / "table.csv").read_bytes() == expected
    copy_file(tmp_path / "new" / "table.csv", tmp_path / "other" / "copy.csv")
    assert (tmp_path / "other" / "copy.csv").read_bytes() == expected
    assert names(tmp_path / "other") == ["copy.csv"]


def test_a_read_only_folder_keeps_its_contents(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(OSError):
        write_text(blocked / "artifact", "x")
    assert blocked.read_text() == "not a folder"


# --- remove and sha256 -------------------------------------------------------------------------


def test_remove_accepts_files_folders_links_and_missing_paths(tmp_path):
    kept = tmp_path / "kept"
    (kept / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "below").mkdir(parents=True)
    for name in ("link", "dangling", "file", "folder", "absent"):
        remove(tmp_path / name)
    assert names(tmp_path) == ["kept"]
    assert names(kept) == ["inside"]


def test_sha256_equals_the_output_of_sha256sum(tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(3_000_000))
    printed = subprocess.run(["sha256sum", tmp_path / "file"], capture_output=True, text=True, check=True)
    assert sha256(tmp_path / "file") == printed.stdout.split()[0]


# --- places ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "below",
    [
        "",
        ".pipeline/trials/0123",
        ".pipeline/runs/0123",
        ".dvc/tmp/exps/tmpabc",
        ".dvc/tmp/exps/x/.pipeline/trials/y",
    ],
)
def test_the_home_of_a_workspace_is_the_repository_that_owns_it(tmp_path, below):
    repository = tmp_path / "clone"
    workspace = Workspace(repository / below)
    assert workspace.home == repository
    assert workspace.scratch == repository / ".pipeline"


def test_a_relative_workspace_has_an_absolute_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Workspace(Path()).home == tmp_path


def test_every_output_in_dvc_yaml_is_a_path_of_the_workspace():
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    workspace = Workspace(Path())
    places = {
        str(value) for name in dir(Workspace) if isinstance(value := getattr(workspace, name), Path)
    } | {f"{workspace.processed}/{split}" for split in ("train", "validation", "test")}
    for stage in stages.values():
        for out in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            assert (next(iter(out)) if isinstance(out, dict) else out) in places


def test_only_test_images_come_from_the_raw_arrays_for_testing():
    assert [origin_of(split) for split in SPLITS] == ["train", "train", "test"]


# --- whose environment -------------------------------------------------------------------------


def test_this_package_belongs_to_this_repository():
    assert here().root == REPOSITORY


@pytest.mark.parametrize("place", ["", "conf", "src/pipeline"])
def test_inside_its_own_clone_and_outside_of_any_clone_it_runs(tmp_path, place):
    here().refuse_foreign_environment(REPOSITORY / place)
    here().refuse_foreign_environment(tmp_path)


def test_inside_another_clone_it_refuses_with_the_remedy(tmp_path):
    other = tmp_path / "clone"
    (other / "src/pipeline/artifacts").mkdir(parents=True)
    (other / "docs" / "deep").mkdir(parents=True)
    shutil.copy(REPOSITORY / "src/pipeline/artifacts/workspace.py", other / "src/pipeline/artifacts")
    for place in (other, other / "docs" / "deep"):
        with pytest.raises(PipelineError, match=f"belongs to {re.escape(str(REPOSITORY))}.*`make setup`"):
            here().refuse_foreign_environment(place)


def test_a_copy_by_pip_refuses_with_the_remedy_in_a_clone_and_does_what_needs_no_clone_elsewhere(tmp_path):
    copy = Workspace(tmp_path)
    copy.refuse_foreign_environment(tmp_path)
    with pytest.raises(PipelineError, match=f"copy in {re.escape(str(tmp_path))}.*--editable"):
        copy.refuse_foreign_environment(REPOSITORY)
    with pytest.raises(PipelineError, match=r"copy in .*--editable"):
        tracking_of(copy)


def test_a_link_to_its_own_clone_counts_as_its_own_clone(tmp_path):
    (tmp_path / "link").symlink_to(REPOSITORY)
    here().refuse_foreign_environment(tmp_path / "link" / "src")


def test_readers_see_the_old_or_the_new_file_while_it_is_replaced(tmp_path):
    path = tmp_path / "file"
    write_text(path, "0" * 100_000)
    script = f"""
from pathlib import Path
from pipeline.artifacts.workspace import write_text
for n in range(2000):
    write_text(Path({str(path)!r}), str(n % 10) * 100_000)
"""
    writer = subprocess.Popen([sys.executable, "-c", script])
    end, seen = time.monotonic() + 20, set()
    while writer.poll() is None and time.monotonic() < end:
        text = path.read_text()
        assert len(text) == 100_000
        assert len(set(text)) == 1
        seen.add(text[0])
    writer.kill()
    writer.wait()
    assert len(seen) > 1


def test_a_clone_without_its_dvc_yaml_is_told_from_a_copy_of_the_package(tmp_path):
    (tmp_path / "conf").mkdir()
    with pytest.raises(PipelineError, match=r"dvc\.yaml is missing: `git checkout"):
        Workspace(tmp_path).refuse_copy()
