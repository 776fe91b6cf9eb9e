"""The files of DVC's cache are found where DVC puts them."""

import pytest
import yaml
from dvc.repo import Repo

from pipeline.artifacts.workspace import Workspace, files_in, object_in


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_files_of_a_folder_are_found_in_the_cache_that_dvc_uses(tmp_path, elsewhere):
    (tmp_path / "repository").mkdir()
    Repo.init(str(tmp_path / "repository"), no_scm=True).close()
    workspace = Workspace(tmp_path / "repository")
    if elsewhere:
        (workspace.root / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    cache = workspace.dvc_cache()
    assert cache == (tmp_path / "shared" if elsewhere else workspace.root / ".dvc" / "cache")
    folder, alone = workspace.root / "folder", workspace.root / "alone"
    folder.mkdir()
    (folder / "a").write_text("one")
    alone.write_text("[]")
    with Repo(str(workspace.root)) as repo:
        repo.add([str(folder), str(alone)])
    of_folder, of_file = (
        yaml.safe_load(path.with_name(f"{path.name}.dvc").read_text())["outs"][0]["md5"]
        for path in (folder, alone)
    )
    found = files_in(cache, of_folder)
    assert list(found) == ["a"]
    assert object_in(cache, found["a"]).read_text() == "one"
    assert object_in(cache, of_file).read_text() == "[]"
    assert files_in(cache, of_file) == files_in(cache, f"{of_file}.dir") == {}
