import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from pictures import save

from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.data.adding.add import add_data
from pipeline.data.adding.options import AddOptions
from pipeline.stages import fetch

REPOSITORY = Path(__file__).parents[3]


class Clone:
    """A copy of the repository's conf/, in which data are added and fetched."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root)
        shutil.copytree(REPOSITORY / "conf", root / "conf")

    def add(self, path: Path | str, **options) -> list[str]:
        return list(add_data(AddOptions(str(path), **options), self.workspace, self.workspace.root))

    def conf(self, name: str) -> dict:
        return yaml.safe_load((self.workspace.root / "conf" / "data" / f"{name}.yaml").read_text())

    def fetch(self, name: str, *overrides: str) -> dict[str, np.ndarray]:
        fetch.run(compose(self.workspace.root / "conf", [f"data={name}", *overrides]), self.workspace)
        return {path.stem: np.load(path) for path in self.workspace.raw.glob("*.npy")}

    def added(self, path: Path, **options) -> dict[str, np.ndarray]:
        """Add, then fetch."""
        self.add(path, name="mine", **options)
        return self.fetch("mine")


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path / "repository")


@pytest.fixture
def pets(tmp_path):
    """Three classes of ten pictures."""
    for label, name in enumerate(("cat", "dog", "owl")):
        for number in range(10):
            save(tmp_path / "pets" / name / f"{number}.png", 100 * label + number)
    return tmp_path / "pets"
