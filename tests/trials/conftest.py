import shutil
from pathlib import Path

import pytest

from pipeline.artifacts.workspace import Workspace

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path):
    """A repository with the code, conf/ and pipeline of this one, and its own DVC cache."""
    root = tmp_path / "repository # 1, copied"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (root / "src").symlink_to(REPOSITORY / "src")
    shutil.copytree(REPOSITORY / "conf", root / "conf", ignore=shutil.ignore_patterns("local"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root)
    return Workspace(root)
