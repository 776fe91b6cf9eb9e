"""Private names of other packages, which may change in any release, are only used with narrow pins."""

import ast
import importlib
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from optuna.trial import create_trial
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
USED = {
    "hydra._internal.config_loader_impl.ConfigLoaderImpl._apply_overrides_to_config": "hydra-core",
    "hydra._internal.config_search_path_impl.ConfigSearchPathImpl": "hydra-core",
    "hydra._internal.utils.get_args_parser": "hydra-core",
    "dvc.stage.cache._get_cache_hash": "dvc",
    "dvc.stage.cache.StageCache._get_cache_dir": "dvc",
    "dvc.stage.cache.StageCache._load_cache": "dvc",
    "dvc.commands.repro.CmdRepro._common_kwargs": "dvc",
    "dvc.commands.repro.CmdRepro._repro_kwargs": "dvc",
    "mlflow.data.dataset.Dataset._to_mlflow_entity": "mlflow",
    "optuna.storages.journal._file.BaseJournalFileLock": "optuna",
}


@pytest.mark.parametrize("name", USED)
def test_the_name_exists(name):
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
            break
        except ImportError:
            continue
    for part in parts[end:]:
        found = getattr(found, part)
    assert found


def test_the_name_that_only_instances_have_exists():
    assert isinstance(create_trial(value=0.0)._trial_id, int)


@pytest.mark.parametrize("package", sorted(set(USED.values())))
def test_the_pin_of_its_package_admits_the_installed_minor_version_alone(package):
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    [pin] = [found.specifier for text in listed if (found := Requirement(text)).name == package]
    major, minor, *_ = map(int, version(package).split("."))
    assert pin.contains(version(package))
    assert not pin.contains(f"{major}.{minor + 1}.0")
    assert not pin.contains(f"{major}.{minor - 1}.99")


def foreign_private_names(path: Path) -> set[str]:
    """Return private names of other packages that a module imports, and private attributes that it uses."""
    found = set()
    tree = ast.parse(path.read_text())
    own = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    } | {
        target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for outer in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for target in (outer.elts if isinstance(outer, ast.Tuple) else [outer])
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("pipeline"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name for name in names if any(is_private(part) for part in name.split("."))}
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            found.add(node.attr)
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in ("_exit", "_")


def test_no_other_private_names_are_used():
    for path in (REPOSITORY / "src").rglob("*.py"):
        for name in foreign_private_names(path) - {"_trial_id"}:
            assert any(
                used == name or used.startswith(f"{name}.") or used.endswith(f".{name}") for used in USED
            ), (path, name)
